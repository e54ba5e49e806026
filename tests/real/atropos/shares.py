"""Each environment's share of the batches, from Atropos' own server and from Penstock's.

    python tests/real/atropos/shares.py [--batches 90] [--sizes 16 2] [--minimum 0.5]

Both servers run at once, each with the same two real environments, with groups of 16 and of 2, and
a trainer that requests batches of 64. ``--minimum`` is the ``min_batch_allocation`` of the
environment with the small groups.

A batch has 2, 3 or 4 of the large groups, so the share in one batch says little: the mean of 23
batches has a standard error of 3 points, of 95 it has 2. Hence environments and trainer run five
times as fast as in training: the trainer asks each fifth of a second, and a sequence takes 60 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from environments import Single, config_for, save_tokenizer
from served import atropos_server, penstock_server, register

BATCH = 64
PATIENCE = 90.0  # seconds; 90 batches take 25 on an idle machine
ASKS_EACH = 0.2  # seconds
SEQUENCE_TAKES = 0.06  # seconds
_FOREVER = 1_000_000


async def _ask(session: aiohttp.ClientSession, url: str) -> Any:
    async with session.get(url) as answer:
        return await answer.json()


async def _train(address: str, batches: int) -> Counter[int]:
    """Received sequences, by the size of their group."""
    came: Counter[int] = Counter()
    end = asyncio.get_running_loop().time() + PATIENCE
    async with aiohttp.ClientSession() as session:
        while came.total() < batches * BATCH and asyncio.get_running_loop().time() < end:
            for group in (await _ask(session, f"{address}/batch"))["batch"] or []:
                came[len(group["tokens"])] += len(group["tokens"])
            await asyncio.sleep(ASKS_EACH)
    return came


@dataclass(frozen=True)
class Setting:
    """The sizes of the environments' groups, and the minimum share of the small ones."""

    sizes: tuple[int, ...] = (16, 2)
    minimum: float | None = None

    def fields(self, size: int) -> dict[str, Any]:
        insists = self.minimum is not None and size == min(self.sizes)
        return {"group_size": size, "min_batch_allocation": self.minimum if insists else None}


async def _share_of_large(
    address: str, tokenizer: str, batches: int, setting: Setting
) -> tuple[float, int]:
    register(address, BATCH)
    environments = [
        Single(
            config_for(address, tokenizer, f"of {size}", **setting.fields(size)),
            _FOREVER,
            seconds=SEQUENCE_TAKES,
        )
        for size in setting.sizes
    ]
    managers = [asyncio.create_task(one.env_manager()) for one in environments]
    came = await _train(address, batches)
    for one in managers:
        one.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await one
    total = sum(came.values())
    return came[max(setting.sizes)] / max(1, total), total // BATCH


async def _all(
    addresses: list[str], tokenizer: str, batches: int, setting: Setting
) -> list[tuple[float, int]]:
    return await asyncio.gather(
        *(_share_of_large(one, tokenizer, batches, setting) for one in addresses)
    )


def measure(batches: int, setting: Setting) -> list[tuple[float, int]]:
    """The large groups' share and the number of batches, for Atropos' server and for Penstock's."""
    with (
        tempfile.TemporaryDirectory() as folder,
        atropos_server() as theirs,
        penstock_server() as ours,
    ):
        tokenizer = save_tokenizer(Path(folder))
        return asyncio.run(_all([theirs, ours], tokenizer, batches, setting))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=90)
    parser.add_argument("--sizes", type=int, nargs=2, default=[16, 2])
    parser.add_argument("--minimum", type=float)
    given = parser.parse_args()
    setting = Setting(tuple(given.sizes), given.minimum)
    measured = measure(given.batches, setting)
    for name, (share, batches) in zip(("Atropos", "Penstock"), measured, strict=True):
        print(
            f"{name}: {100 * share:.1f} % of {batches} batches to the groups of {max(given.sizes)}"
        )


if __name__ == "__main__":
    main()
