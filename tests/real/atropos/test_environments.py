"""A real environment and the real example trainer: every group arrives unchanged."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("atroposlib", reason="needs the real atroposlib")
import example_trainer.data
from environments import Grouped, Single, config_for, save_tokenizer
from served import WITHIN, penstock_server
from tiers import in_full_tier
from trainers import register_example

GROUPS, GROUP_SIZE, BATCH = 16, 4, 8
FIELDS = (
    *("tokens", "masks", "scores", "advantages", "ref_logprobs", "messages", "generation_params"),
    *("inference_logprobs", "overrides", "group_overrides", "images", "env_id"),
    *("distill_token_ids", "distill_logprobs"),
)


class Trainer(threading.Thread):
    """example_trainer's own register_trainer() and get_data(), until all groups have arrived."""

    def __init__(self, address: str, has_logprobs: bool, folder: Path) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._has_logprobs = has_logprobs  # get_data() fails on null where it looks for them
        self._folder = folder
        self.groups: list[dict[str, Any]] = []  # as they came over HTTP
        self.rows = 0  # of the tensors that get_data() made
        self.began = threading.Event()

    def run(self) -> None:
        register_example(self._address, BATCH, self._folder)
        while len(self.groups) < GROUPS:
            batches, _ = example_trainer.data.get_data(
                BATCH, 64, self._address, extract_inference_logprobs=self._has_logprobs
            )
            for tokens, labels, *_ in batches:
                assert tokens[0].shape == labels[0].shape
                self.rows += sum(len(one) for one in tokens)

    def keep(self, answer: dict[str, Any]) -> dict[str, Any]:
        self.groups.extend(copy.deepcopy(answer["batch"] or []))
        return answer


@pytest.mark.parametrize("kind", [Single, pytest.param(Grouped, marks=in_full_tier)])
def test_every_group_arrives_and_is_equal(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    with penstock_server() as address:
        trainer = Trainer(address, kind is Grouped, tmp_path)
        get_batch = example_trainer.data.get_batch
        monkeypatch.setattr(
            example_trainer.data, "get_batch", lambda url: trainer.keep(get_batch(url=url))
        )
        config = config_for(address, tokenizer, kind.name, group_size=GROUP_SIZE)
        environment = kind(config, GROUPS)
        trainer.start()

        async def run() -> None:
            manager = asyncio.create_task(environment.env_manager())
            joined = asyncio.create_task(asyncio.to_thread(trainer.join, WITHIN))
            await asyncio.wait([manager, joined], return_when=asyncio.FIRST_COMPLETED)
            manager.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await manager

        asyncio.run(run())
    assert not trainer.is_alive()
    assert len(environment.sent) == GROUPS

    def key(group: dict[str, Any]) -> Any:
        return group["scores"][0]

    sent = [
        {name: group.get(name) for name in FIELDS} for group in sorted(environment.sent, key=key)
    ]
    assert sorted(trainer.groups, key=key) == sent
    assert trainer.rows == GROUPS * GROUP_SIZE
