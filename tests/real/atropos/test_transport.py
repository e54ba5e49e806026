"""Real environments with transport "shm": whole groups into the queue, beside those over HTTP."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("atroposlib", reason="needs the real atroposlib")
import example_trainer.api
import example_trainer.data
from atroposlib.envs import base
from environments import Grouped, Single, config_for, save_tokenizer
from pydantic import BaseModel
from served import WITHIN, penstock_server
from tiers import in_full_tier
from trainers import register_example

import penstock
from penstock.integrations import atropos
from penstock.integrations.atropos import trainer
from penstock.integrations.atropos.install import _add_fields

atropos.install()

GROUPS, GROUP_SIZE, BATCH = 12, 4, 8
FIELDS = (
    *("tokens", "masks", "scores", "advantages", "ref_logprobs", "messages", "generation_params"),
    *("inference_logprobs", "overrides", "group_overrides", "images", "env_id"),
    *("distill_token_ids", "distill_logprobs"),
)


def configured(*arguments: Any, **fields: Any) -> Any:
    """Without logging: the inference server for tests has no metrics."""
    return config_for(*arguments, min_items_sent_before_logging=1_000_000, **fields)


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    return save_tokenizer(tmp_path / "tokenizer")


@pytest.fixture
def queue() -> Iterator[str]:
    name = f"transport-{uuid.uuid4().hex[:8]}"
    yield name
    source = trainer._sources.pop(f"shm://{name}", None)
    if source is not None:
        source.close()


class Trainer(threading.Thread):
    """example_trainer's register_trainer() and get_batch(), until ``groups`` have come."""

    def __init__(self, address: str, groups: int, folder: Path) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._wanted = groups
        self._folder = folder
        self.groups: list[dict[str, Any]] = []

    def run(self) -> None:
        register_example(self._address, BATCH, self._folder)
        while len(self.groups) < self._wanted:
            answer = example_trainer.api.get_batch(url=self._address)
            self.groups += copy.deepcopy(answer["batch"] or [])
            if answer["batch"]:
                example_trainer.data.pad_data_to_good_offset(answer, BATCH, False)


def run_all(trains: Trainer, *environments: Any) -> None:
    async def run() -> None:
        managers = [asyncio.create_task(one.env_manager()) for one in environments]
        joined = asyncio.create_task(asyncio.to_thread(trains.join, WITHIN))
        await asyncio.wait([*managers, joined], return_when=asyncio.FIRST_COMPLETED)
        for manager in managers:
            manager.cancel()
        for outcome in await asyncio.gather(*managers, return_exceptions=True):
            assert isinstance(outcome, asyncio.CancelledError), outcome

    trains.start()
    asyncio.run(run())
    for one in environments:
        leave(one)
    assert not trains.is_alive()


def leave(environment: Any) -> None:
    """Leave as at the end of the environment's process."""
    if environment._penstock_transport is not None:
        environment._penstock_transport.close()


def check_all_came(trains: Trainer, *environments: Any) -> None:
    def key(group: dict[str, Any]) -> Any:
        return group["env_id"], group["scores"][0]

    sent = [group for one in environments for group in one.sent]
    wanted = [{name: group.get(name) for name in FIELDS} for group in sorted(sent, key=key)]
    assert len(sent) == GROUPS * len(environments)
    assert sorted(trains.groups, key=key) == wanted


def refuse_posts(monkeypatch: pytest.MonkeyPatch, *environments: Any) -> None:
    def refuse(*_arguments: Any, **_options: Any) -> Any:
        raise AssertionError("a group went by HTTP")

    for one in environments:
        monkeypatch.setattr(one, "_post_json_with_compression", refuse)


@pytest.mark.parametrize("kind", [pytest.param(Single, marks=in_full_tier), Grouped])
def test_every_group_arrives_and_is_equal(
    kind: Any, tmp_path: Path, tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with penstock_server() as address:
        trains = Trainer(address, GROUPS, tmp_path)
        environment = kind(configured(address, tokenizer, kind.name, transport="shm"), GROUPS)
        refuse_posts(monkeypatch, environment)
        run_all(trains, environment)
        check_all_came(trains, environment)


def test_both_transports_feed_one_trainer(
    tmp_path: Path, tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with penstock_server() as address:
        trains = Trainer(address, 3 * GROUPS, tmp_path)
        shared = [
            Grouped(configured(address, tokenizer, f"shm{at}", transport="SHM"), GROUPS)
            for at in range(2)
        ]
        http = Grouped(configured(address, tokenizer, "http"), GROUPS)
        refuse_posts(monkeypatch, *shared)
        run_all(trains, *shared, http)
        check_all_came(trains, *shared, http)


def test_without_a_server(tmp_path: Path, tokenizer: str, queue: str) -> None:
    address = f"shm://{queue}"
    trains = Trainer(address, 2 * GROUPS, tmp_path)
    environments = [
        kind(configured(address, tokenizer, kind.name), GROUPS) for kind in (Single, Grouped)
    ]
    run_all(trains, *environments)
    check_all_came(trains, *environments)


def test_a_missing_server_or_queue_name_is_reported(tokenizer: str, queue: str) -> None:
    with penstock_server() as address:
        environment = Single(configured(address, tokenizer, "early", transport="shm"), 1)
        group = asyncio.run(environment.collect_trajectories({"number": 1}))[0]
        with pytest.raises(penstock.Incompatible, match="names no queue"):
            asyncio.run(last_try(environment._send_scored_data_to_api, group))
    environment = Single(
        configured(address, tokenizer, "wrong", transport="shm", shm_name=queue), 1
    )
    with pytest.raises(penstock.NotFound, match="start it first, or set transport='http'"):
        asyncio.run(last_try(environment._send_scored_data_to_api, group))


async def last_try(send: Callable[..., Any], group: Any) -> None:
    await send(group)


def test_state_is_injected_before_groups_are_sent(tokenizer: str, queue: str) -> None:
    source = atropos.BatchSource.open(queue, sequences=GROUP_SIZE)
    environment = Grouped(
        configured(f"shm://{queue}", tokenizer, "state", state_injection_template="w1 {state} w2"),
        1,
    )
    item = {"number": 3, "state": "w7"}

    async def run() -> None:
        await environment.register_env()
        await environment.get_server_info()
        group, _ = await environment.collect_trajectories(item)
        await environment.handle_send_to_api(group, item)

    asyncio.run(run())
    (group,) = source.get(WITHIN)["batch"]
    new = environment.tokenizer.encode("w1 w7 w2\n\n", add_special_tokens=False)
    for tokens, masks, logprobs in zip(
        group["tokens"], group["masks"], group["inference_logprobs"], strict=True
    ):
        assert tokens[: len(new)] == new
        assert masks[: len(new) + 2] == [-100] * (len(new) + 2)
        assert len(tokens) == len(masks) == len(logprobs)
        assert tokens[len(new) + 2 :] == masks[len(new) + 2 :]
    leave(environment)
    source.close()


def test_configs_of_before_and_after_have_the_fields() -> None:
    class Later(base.BaseEnvConfig):
        mine: int = 1

    assert base.BaseEnvConfig().transport == "http"
    assert Later(transport="Shm").transport is base.TransportType.SHM
    with pytest.raises(ValueError, match="transport"):
        Later(transport="tcp")
    atropos.install()  # a second time
    assert json.loads(Later(transport="shm", mine=2).model_dump_json())["transport"] == "shm"


def test_configs_that_were_defined_before_have_the_fields_too() -> None:
    class Config(BaseModel):
        group_size: int = 4

    class Before(Config):
        mine: int = 1

    class Deeper(Before):
        other: int = 2

    _add_fields(Config)
    config = Deeper(transport="shm", shm_name="x", mine=3)
    assert (config.transport, config.shm_name) == (base.TransportType.SHM, "x")
    assert (config.mine, config.other, config.group_size) == (3, 2, 4)
    assert Before().transport == "http"
