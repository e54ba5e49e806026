"""Environments, workers and trainers in their own processes; some are killed, some stopped."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import queue
import random
import signal
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("atroposlib", reason="needs the real atroposlib")
import requests
from environments import VOCABULARY, Grouped, config_for, save_tokenizer
from served import WITHIN, penstock_server, register
from workers import (
    ENTRY,
    ROWS,
    SIZE,
    WORKERS,
    die_in_mid_post,
    metadata_of,
    row_of,
    stop_in_mid_post,
    stress,
    work,
)

from penstock.integrations.atropos import BatchSource, ZeroCopySHMBuffer, install

_spawn = multiprocessing.get_context("spawn")
_fork = multiprocessing.get_context("fork")
install()

# --- the ring, used by the programs that came with it --------------------------------------------


@pytest.fixture
def ring() -> Iterator[ZeroCopySHMBuffer]:
    name = f"atropos_shm_{uuid.uuid4().hex[:8]}"
    one = ZeroCopySHMBuffer(name=name, size=SIZE, entry_size=ENTRY, create=True)
    yield one
    one.close(unlink=True)


def test_workers_lose_tear_double_and_reorder_no_row(ring: ZeroCopySHMBuffer) -> None:
    barrier = _spawn.Barrier(WORKERS + 1)
    crew = [_spawn.Process(target=work, args=(ring.name, one, barrier)) for one in range(WORKERS)]
    for process in crew:
        process.start()
    barrier.wait(WITHIN)
    following = [0] * WORKERS
    while sum(following) < WORKERS * ROWS:
        read = ring.read_next()
        if read is None:
            assert any(process.is_alive() for process in crew) or len(ring) > 0
            continue
        worker = int(read["instance_id"].removeprefix("worker_"))
        number = following[worker]
        assert (read["repetition_id"], read["score"]) == (number, number)
        assert read["tokens"] == row_of(worker, number)
        assert read["metadata"] == metadata_of(worker)
        following[worker] += 1
    assert ring.read_next() is None
    for process in crew:
        process.join(WITHIN)
        assert process.exitcode == 0


@pytest.mark.filterwarnings("ignore:.*ring.*:RuntimeWarning")
def test_one_worker_with_a_launchers_numbers(ring: ZeroCopySHMBuffer) -> None:
    rows = 3000
    process = _spawn.Process(target=stress, args=(ring.name, rows))
    process.start()
    for number in range(rows):
        while (read := ring.read_next()) is None:
            assert process.is_alive() or len(ring) > 0
        assert (read["repetition_id"], read["tokens"]) == (number, [number] * 512)
    process.join(WITHIN)
    assert process.exitcode == 0


# --- environments -------------------------------------------------------------------------------

BATCH, GROUP_SIZE, ITEMS = 8, 4, 16
_FOREVER = 100_000  # its numbers are above all of the other's


class Trainer(threading.Thread):
    """Polls until it is told to stop; received groups are in ``groups``, shared by all trainers."""

    def __init__(self, groups: queue.Queue[dict[str, Any]], stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._groups = groups
        self._stop_asked = stop

    def run(self) -> None:
        while not self._stop_asked.is_set():
            for group in self.batch():
                self._groups.put(group)
        self.close()

    def close(self) -> None:
        pass

    def batch(self) -> list[dict[str, Any]]:
        raise NotImplementedError


class OverHttp(Trainer):
    def __init__(self, address: str, *rest: Any) -> None:
        super().__init__(*rest)
        self._address = address

    def batch(self) -> list[dict[str, Any]]:
        groups = requests.get(f"{self._address}/batch", timeout=WITHIN).json()["batch"]
        if groups is None:
            self._stop_asked.wait(0.05)
        return groups or []


class FromQueue(Trainer):
    def __init__(self, name: str, *rest: Any) -> None:
        super().__init__(*rest)
        self._source = BatchSource.open(name, sequences=BATCH)

    def batch(self) -> list[dict[str, Any]]:
        return self._source.get(0.2)["batch"] or []

    def close(self) -> None:
        self._source.close()


def _environment(address: str, tokenizer: str, transport: str, items: int) -> None:
    """An environment in its own process, which ends when all its groups are sent."""

    async def run() -> None:
        config = config_for(
            address, tokenizer, transport, transport=transport, group_size=GROUP_SIZE
        )
        environment = Grouped(config, items)
        manager = asyncio.create_task(environment.env_manager())
        while len(environment.sent) < items and not manager.done():
            await asyncio.sleep(0.05)
        manager.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await manager

    asyncio.run(run())


def _number_of(group: dict[str, Any]) -> int:
    """The number of its item. The group must be whole, and as its environment makes it."""
    number = int(group["scores"][0])
    assert group["scores"] == [number + 0.25 * at for at in range(GROUP_SIZE)]
    dice = random.Random(number)
    tokens = [dice.randrange(VOCABULARY) for _ in range(dice.randint(5, 40))]
    assert group["tokens"] == [tokens] * GROUP_SIZE
    assert group["masks"] == [[-100, -100, *tokens[2:]]] * GROUP_SIZE
    assert group["inference_logprobs"] == [[-0.1 * one for one in tokens]] * GROUP_SIZE
    return number


def test_groups_of_live_environments_come_once_despite_deaths_and_stops(tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    name = f"atropos-{uuid.uuid4().hex[:8]}"
    came: queue.Queue[dict[str, Any]] = queue.Queue()
    stop = threading.Event()
    with penstock_server(name) as address, contextlib.ExitStack() as stack:
        register(address, BATCH)
        # Forked before there are threads: the children have the slowest imports already.
        lives, dies = (
            _fork.Process(target=_environment, args=(address, tokenizer, transport, items))
            for transport, items in (("http", ITEMS), ("shm", _FOREVER))
        )
        killed = _spawn.Process(target=die_in_mid_post, args=(address,))
        stopped = _spawn.Process(target=stop_in_mid_post, args=(address,))
        for process in (lives, dies, killed, stopped):
            process.start()
            stack.callback(process.join)
            stack.callback(process.kill)
        trainers = [
            *(OverHttp(address, came, stop) for _ in range(2)),
            FromQueue(name, came, stop),
        ]
        stack.callback(stop.set)
        for trainer in trainers:
            trainer.start()
        killed.join(WITHIN)
        assert killed.exitcode == -signal.SIGKILL
        numbers: list[int] = []
        while len(numbers) - _count_of(numbers) < 4:
            numbers.append(_number_of(came.get(timeout=WITHIN)))
        dies.kill()
        dies.join(WITHIN)
        assert dies.exitcode == -signal.SIGKILL
        while _count_of(numbers) < ITEMS:
            with contextlib.suppress(queue.Empty):
                group = came.get(timeout=0.1)
                if group["env_id"] is not None:
                    numbers.append(_number_of(group))
                continue
            assert lives.exitcode in (None, 0)
            if lives.exitcode == 0:  # one group may wait for another
                filler = {"tokens": [[1]] * 4, "masks": [[1]] * 4, "scores": [0.0] * 4}
                requests.post(f"{address}/scored_data", json=filler, timeout=WITHIN)
        stop.set()
        for trainer in trainers:
            trainer.join(WITHIN)
            assert not trainer.is_alive()
        assert len(numbers) == len(set(numbers))


def _count_of(numbers: list[int]) -> int:
    """The number of groups of the surviving environment."""
    return sum(number < ITEMS for number in numbers)
