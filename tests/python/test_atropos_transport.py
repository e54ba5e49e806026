"""Atropos' groups through the queue, and the batches of its trainers, SkyRL's and torchtitan's."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import penstock
from penstock.integrations import atropos
from penstock.integrations.atropos import (
    AtroposSHMGenerator,
    BatchSource,
    TrajectoryID,
    Transport,
    TransportType,
    group_from,
    group_to,
    torchtitan,
    trainer,
)
from penstock.integrations.atropos.imports import when_imported
from penstock.integrations.atropos.serverless import info, registration, status
from penstock.integrations.atropos.state_injection import inject_state
from penstock.trajectories import (
    TrajectoryGroup,
    TrajectoryReader,
    TrajectoryWriter,
    inspect_trajectories,
)
from penstock.trajectories.backlog import Formed

LONG = 30.0


def make_group(number: int, sequences: int = 2, tokens: int = 5, **fields: Any) -> dict[str, Any]:
    rows = [[number, at, *range(2, tokens + at)] for at in range(sequences)]
    return {
        "tokens": rows,
        "masks": [[-100, -100, *row[2:]] for row in rows],
        "scores": [number + 0.5 * at for at in range(sequences)],
        "inference_logprobs": [[1.0, 1.0, *(-0.5 * one for one in row[2:])] for row in rows],
        **fields,
    }


NONE = dict.fromkeys(
    (
        *("advantages", "ref_logprobs", "messages", "generation_params", "inference_logprobs"),
        *("overrides", "group_overrides", "images", "env_id"),
        *("distill_token_ids", "distill_logprobs"),
    )
)


# --- groups -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "group",
    [
        make_group(1),
        make_group(2, ref_logprobs=[], advantages=[], messages=[], overrides=[], images=[]),
        make_group(3, advantages=[[0.5], [0.25]], group_overrides={"group_size": 2}, env_id=0),
        make_group(
            4,
            messages=[[{"role": "user", "content": "naïve 😀"}]] * 2,
            generation_params={"temperature": 0.7},
            overrides=[{"set_advantage_to_zero": True}, {}],
            distill_token_ids=[[[1, 2]] * 5, [[3, 4]] * 6],
            distill_logprobs=[[[-0.5, -1.0]] * 5, [[-2.0, -3.0]] * 6],
            instance_id="q17",
        ),
        make_group(5, tokens=3, scores=[2**31, -1.5]),
    ],
)
def test_a_group_comes_out_as_it_went_in(group: dict[str, Any]) -> None:
    out = group_to(group_from(group))
    assert out == {**NONE, **group}
    assert all(type(token) is int for row in out["tokens"] for token in row)


def test_arrays_and_tensors_are_lists_too() -> None:
    group = make_group(1)
    arrays = {
        "tokens": [np.array(row) for row in group["tokens"]],
        "masks": [np.array(row, np.int16) for row in group["masks"]],
        "scores": np.array(group["scores"]),
        "inference_logprobs": group["inference_logprobs"],
    }
    assert group_to(group_from(arrays, 3)) == {**NONE, **group, "env_id": 3}


def test_invalid_groups_are_refused_with_a_reason() -> None:
    for wrong, words in (
        ({"tokens": None}, "no 'tokens'"),
        ({"tokens": [[1, "x"], [2]]}, "sequence 0 of 'tokens' holds"),
        ({"scores": ["x", 1]}, "'scores' holds something else"),
        ({"masks": 5}, "'masks' is a whole number: give a list"),
        ({"tokens": []}, "1 sequence at least"),
    ):
        with pytest.raises(penstock.InvalidArgument, match=words):
            group_from({**make_group(1), **wrong})


def test_transport_has_any_spelling() -> None:
    for text in ("shm", "SHM", "Shm", TransportType.SHM):
        assert TransportType(text) is TransportType.SHM
    with pytest.raises(ValueError, match="tcp"):
        TransportType("tcp")


# --- environments and trainers ------------------------------------------------------------------


def put(queue: str, groups: list[dict[str, Any]], **fields: Any) -> None:
    async def run() -> None:
        options = {"environment": "math", "group_size": 2, "env_id": None, **fields}
        transport = await Transport.attach(queue, **options)
        await transport.put(groups)
        transport.close()

    asyncio.run(run())


def numbers(answer: dict[str, Any]) -> list[int]:
    return [group["tokens"][0][0] for group in answer["batch"]]


def test_batches_in_atropos_shape(name: str) -> None:
    queue = f"{name} of/run 3"
    source = BatchSource.open(queue, sequences=4, max_tokens=0, starting_step=7)
    assert source.get() == {"batch": None}
    put(queue, [make_group(number) for number in range(3)], env_id=0)
    first = source.get(LONG)
    assert first == {"batch": [{**NONE, **make_group(at), "env_id": 0} for at in (0, 1)]}
    assert source.get() == {"batch": None}  # this acknowledges the first batch
    assert source.reader.version == 8
    put(queue, [make_group(3)])
    assert numbers(source.get(LONG)) == [2, 3]
    source.close()
    with pytest.raises(penstock.NotFound):
        inspect_trajectories(atropos.segment_name(queue))


def test_a_missing_queue_is_reported(name: str) -> None:
    with pytest.raises(penstock.NotFound, match="start it first, or set transport='http'"):
        put(name, [])


def _environment(queue: str, rank: int, count: int) -> None:
    put(queue, [make_group(rank * 1000 + at) for at in range(count)], environment=f"env{rank}")


def _trainer(queue: str, stop: Any, came: Any) -> None:
    source = BatchSource.open(queue, sequences=4)
    while True:
        answer = source.get(0.05)
        if answer["batch"] is None:
            if stop.is_set():
                break
            continue
        for number in numbers(answer):
            came.put(number)
    source.close()


def test_several_environments_and_several_trainers_share_a_queue(name: str) -> None:
    context = multiprocessing.get_context("spawn")
    stop, came = context.Event(), context.Queue()
    count = 40
    with TrajectoryReader.create(name, sequences=4) as reader:
        trainers = [context.Process(target=_trainer, args=(name, stop, came)) for _ in range(2)]
        environments = [
            context.Process(target=_environment, args=(name, rank, count)) for rank in range(3)
        ]
        for process in (*trainers, *environments):
            process.start()
        got = sorted(came.get(timeout=LONG) for _ in range(3 * count))
        stop.set()
        for process in (*environments, *trainers):
            process.join(LONG)
            assert process.exitcode == 0
        assert got == sorted(rank * 1000 + at for rank in range(3) for at in range(count))
        assert reader.stats().environments == []


def _trains_until_killed(queue: str) -> None:
    source = BatchSource.open(queue, sequences=4)
    source.get(LONG)
    source.get(LONG)
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_batch_of_a_trainer_that_was_killed_comes_again(name: str) -> None:
    with TrajectoryReader.create(name, sequences=4):
        put(name, [make_group(number) for number in range(6)])
        process = multiprocessing.get_context("spawn").Process(
            target=_trains_until_killed, args=(name,)
        )
        process.start()
        process.join(LONG)
        assert process.exitcode == -signal.SIGKILL
        source = BatchSource.open(name, sequences=4)
        assert numbers(source.get(LONG)) == [2, 3]  # the first two were trained on
        assert numbers(source.get(LONG)) == [4, 5]
        source.close()


def test_a_batch_that_ctrl_c_kept_from_the_trainer_comes_again(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(group: TrajectoryGroup) -> dict[str, Any]:
        monkeypatch.undo()
        signal.raise_signal(signal.SIGINT)
        return group_to(group)

    source = BatchSource.open(name, sequences=4)
    put(name, [make_group(number) for number in range(4)])
    monkeypatch.setattr(trainer, "group_to", interrupted)
    with pytest.raises(KeyboardInterrupt):
        source.get(LONG)
    assert source.reader.version == 0
    assert numbers(source.get(LONG)) == [0, 1]
    assert numbers(source.get(LONG)) == [2, 3]
    source.close()


def test_environments_go_on_when_their_trainer_was_started_anew(name: str) -> None:
    async def run() -> None:
        source = BatchSource.open(name, sequences=4)
        transport = await Transport.attach(name, environment="math", group_size=2, env_id=None)
        await transport.put([make_group(0), make_group(1), make_group(2)])
        assert numbers(source.get(LONG)) == [0, 1]
        source.close()
        with pytest.raises(penstock.Closed):
            await transport.put([make_group(9)])
        source = BatchSource.open(name, sequences=4)
        await transport.put([make_group(3), make_group(4), make_group(5)])
        assert numbers(source.get(LONG)) == [2, 3]
        assert numbers(source.get(LONG)) == [4, 5]
        source.close()
        transport.close()
        with pytest.raises(penstock.NotFound):
            inspect_trajectories(name)

    asyncio.run(run())


def test_answers_equal_those_of_atropos_server(name: str) -> None:
    with (
        TrajectoryReader.create(name, sequences=64, max_tokens=100) as reader,
        TrajectoryWriter.attach(name, environment="large", group_size=16) as large,
        TrajectoryWriter.attach(name, environment="small", group_size=2, min_share=0.25) as small,
    ):
        assert info(large) == {"batch_size": 64, "max_token_len": 100}
        assert registration(small)["starting_step"] == 0
        assert registration(small)["wandb_name"] == "small"
        for number in range(12):
            small.put(group_from(make_group(number)))
        asked = status(large, 16, Formed(0))
        assert asked["queue_size"] == (24 - 16) // 16
        assert (asked["self_queue_size"], asked["max_group_size"]) == (0, 2)
        assert asked["unallocated_fraction"] == 0.75
        asked = status(small, 2, Formed(0))
        assert (asked["queue_size"], asked["self_queue_size"]) == (12, 12)
        reader.next_batch(24, layout="groups", timeout=LONG).ack(5)
        assert status(small, 2, Formed(0))["current_step"] == 5


def test_batches_that_can_be_made_at_once_dont_wait(name: str) -> None:
    with (
        TrajectoryReader.create(name, sequences=4) as reader,
        TrajectoryWriter.attach(name, environment="two", group_size=2) as two,
    ):
        formed = Formed(0)

        def waiting() -> int:
            return int(status(two, 2, formed)["queue_size"])

        for number in range(9):
            two.put(group_from(make_group(number)))
        assert waiting() == 9  # none was requested yet
        reader.next_batch(layout="groups", timeout=LONG).ack(1)
        assert waiting() == 1
        for number in range(3):
            two.put(group_from(make_group(number)))
        for step in (2, 3, 4):
            assert waiting() == 4
            reader.next_batch(layout="groups", timeout=LONG).ack(step)
        assert waiting() == 4
        reader.next_batch(layout="groups", timeout=LONG).ack(5)
        assert waiting() == 0
        reader.discard()


# --- state injection ----------------------------------------------------------------------------


class Letters:
    """A tokenizer of single letters; 1 is its token for beginnings."""

    bos_token_id = 1

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [self.bos_token_id] * add_special_tokens + [ord(letter) for letter in text]

    def decode(self, tokens: list[int]) -> str:
        return "".join(map(chr, tokens))


def test_state_is_injected_and_every_value_stays_at_its_token() -> None:
    group = {
        "tokens": [[1, 97, 98], [99, 100]],
        "masks": [[-100, -100, 98], [-100, 100]],
        "scores": [1.0, 0.0],
        "advantages": [],
        "ref_logprobs": None,
        "inference_logprobs": [[1.0, 1.0, -0.5], [1.0, -0.25]],
        "distill_token_ids": [[[7, 8]] * 3, [[9, 9]] * 2],
    }
    inject_state(group, {"state": "ls"}, "$ {state}", Letters())
    new = [ord(letter) for letter in "$ ls\n\n"]
    assert group["tokens"] == [[1, *new, 97, 98], [*new, 99, 100]]
    assert group["masks"] == [[-100] * 8 + [98], [-100] * 7 + [100]]
    assert group["inference_logprobs"] == [[1.0] * 8 + [-0.5], [1.0] * 7 + [-0.25]]
    assert group["distill_token_ids"][0] == [[7, 8], *[[0, 0]] * 6, [7, 8], [7, 8]]
    assert (group["advantages"], group["ref_logprobs"]) == ([], None)
    before = [list(tokens) for tokens in group["tokens"]]
    inject_state(group, SimpleNamespace(state="ls"), "$ {state}", Letters())  # already injected
    assert group["tokens"] == before


# --- SkyRL --------------------------------------------------------------------------------------


@pytest.fixture
def generator(name: str) -> Iterator[AtroposSHMGenerator]:
    made = AtroposSHMGenerator(name, batch_size=4, entry_size=512, timeout=0.3)
    yield made
    with contextlib.suppress(penstock.NotFound), TrajectoryReader.attach(name) as reader:
        made.close()
        reader.discard()


def ids_of(*texts: str) -> list[TrajectoryID]:
    return [TrajectoryID.from_string(text) for text in texts]


def test_skyrl_gets_the_requested_groups_in_its_order(
    generator: AtroposSHMGenerator, name: str
) -> None:
    put(name, [make_group(2, instance_id="b"), make_group(1, sequences=3, instance_id="a_x")])
    put(name, [make_group(3, sequences=1, group_overrides={"instance_id": "c"})])
    asked = ids_of("a_x_0", "b_1", "c_0", "b_0")
    output = asyncio.run(generator.generate({"trajectory_ids": asked}))
    assert output["trajectory_ids"] == asked
    assert output["prompt_token_ids"] == [[1, 0], [2, 1], [3, 0], [2, 0]]
    assert output["response_ids"] == [[2, 3, 4], [2, 3, 4, 5], [2, 3, 4], [2, 3, 4]]
    assert output["rewards"] == [1.0, 2.5, 3.0, 2.0]
    assert output["loss_masks"][1] == [1, 1, 1, 1]
    assert output["rollout_logprobs"][0] == [-1.0, -1.5, -2.0]
    assert output["stop_reasons"] == ["stop"] * 4
    assert sorted(generator.stash) == ["a_x_1", "a_x_2"]
    later = asyncio.run(generator.generate({"trajectory_ids": ids_of("a_x_2", "a_x_1")}))
    assert later["rewards"] == [2.0, 1.5]
    assert len(generator.stash) == 0
    assert generator.reader.version == 1  # the first batch was trained on


def test_skyrl_is_told_which_groups_are_missing(generator: AtroposSHMGenerator, name: str) -> None:
    put(name, [make_group(1, instance_id="a")])
    with pytest.raises(penstock.Timeout, match=r"1 of 2 traj.*: b_0.*2 others wait"):
        asyncio.run(generator.generate({"trajectory_ids": ids_of("a_0", "b_0")}))
    put(name, [make_group(2, instance_id="b"), make_group(1, instance_id="a")])
    output = asyncio.run(generator.generate({"trajectory_ids": ids_of("a_0", "b_0", "a_0")}))
    assert output["rewards"] == [1.0, 2.0, 1.0]  # a duplicate is not lost


def test_skyrl_takes_whole_groups_where_it_names_none(
    generator: AtroposSHMGenerator, name: str
) -> None:
    put(name, [make_group(1, instance_id="a"), make_group(2, instance_id="b")])
    output = asyncio.run(generator.generate({"prompts": ["?"] * 4, "trajectory_ids": None}))
    assert [one.to_string() for one in output["trajectory_ids"]] == ["a_0", "a_1", "b_0", "b_1"]
    step = SimpleNamespace(global_step=9)
    empty = asyncio.run(generator.generate({"trajectory_ids": [], "batch_metadata": step}))
    assert empty["response_ids"] == []
    assert generator.reader.version == 9


def test_groups_that_skyrl_did_not_get_are_returned(name: str) -> None:
    with TrajectoryReader.create(name, sequences=2) as reader:
        put(name, [make_group(1, instance_id="a"), make_group(2, instance_id="b")])
        generator = AtroposSHMGenerator(name, batch_size=2, timeout=LONG)
        asyncio.run(generator.generate({"trajectory_ids": ids_of("b_0", "b_1", "a_0")}))
        generator.close()
        batch = reader.next_batch(layout="groups", timeout=LONG)
        assert [group.instance_id for group in batch.groups] == ["a"]
        batch.ack(1)


def test_skyrl_takes_a_ring_too(name: str) -> None:
    ring = atropos.ZeroCopySHMBuffer(name, size=10, create=True)
    generator = AtroposSHMGenerator(shm_name=name, shm_size=10, batch_size=2, timeout=LONG)
    ring.write_trajectory([20, 21], 0.9, instance_id="task_B", repetition_id=0)
    ring.write_trajectory([10, 11], 0.8, "task_A", 0, {"logprobs": [-0.5, -1.0]})
    output = asyncio.run(generator.generate({"trajectory_ids": ids_of("task_A_0", "task_B_0")}))
    assert output["response_ids"] == [[10, 11], [20, 21]]
    assert output["rewards"] == [0.8, 0.9]
    assert len(generator.stash) == 0
    ring.write_trajectory(tokens=[1, 2], score=1.0, instance_id="i1", rep_id=1)
    ring.write_trajectory(tokens=[3, 4], score=0.5, instance_id="i1", rep_id=0)
    assert asyncio.run(generator.generate({}))["response_ids"] == [[3, 4], [1, 2]]
    generator.timeout = 0.05
    with pytest.raises(penstock.Timeout, match="in time"):
        asyncio.run(generator.generate({}))
    generator.close()
    ring.close(unlink=True)


#: Groups that servers accept, and of which no array can be made.
UNFIT: dict[str, dict[str, Any]] = {
    "masks": {"masks": [[-100, -100, 2], [-100, -100, 3, 4]]},
    "no masks": {"masks": []},
    "scores": {"scores": [1.0]},
    "inference_logprobs": {"inference_logprobs": [[0.5], [0.5]]},
}
unfit = pytest.mark.parametrize("fields", UNFIT.values(), ids=UNFIT.keys())


@unfit
@pytest.mark.parametrize("by_id", [True, False])
def test_skyrl_dead_letters_a_group_unfit_for_training(
    generator: AtroposSHMGenerator, name: str, fields: dict[str, Any], by_id: bool
) -> None:
    put(name, [make_group(1, instance_id="a", **fields)])
    put(name, [make_group(2, instance_id="b"), make_group(3, instance_id="c")])
    wanted = {"trajectory_ids": ids_of("b_0", "b_1", "c_0", "c_1")}
    with pytest.warns(RuntimeWarning, match="the group 'a' of 'math' was set aside: its '"):
        output = asyncio.run(generator.generate(wanted if by_id else {}))
    assert [prompt[0] for prompt in output["prompt_token_ids"]] == [2, 2, 3, 3]
    generator.close()
    with TrajectoryReader.attach(name) as reader:
        assert reader.drop_dead_letters() == 1
        assert reader.stats().environments == []


def test_an_empty_list_of_logprobs_means_no_logprobs(
    generator: AtroposSHMGenerator, name: str
) -> None:
    groups = [make_group(at, inference_logprobs=[]) for at in range(2)]
    put(name, groups)
    assert asyncio.run(generator.generate({}))["rollout_logprobs"] is None
    prepared = torchtitan.prepare(
        [group_from(one) for one in groups], gradient_accumulation_steps=4, seq_len=256
    )
    assert set(prepared.batches[0][3].ravel().tolist()) == {1.0}


# --- torchtitan ---------------------------------------------------------------------------------


@unfit
def test_torchtitan_dead_letters_a_group_unfit_for_training(
    name: str, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    ranks = Ranks()
    torch = ModuleType("torch")
    torch.distributed = ranks  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch.distributed", ranks)  # type: ignore[arg-type]
    bad = make_group(1, **fields)
    with pytest.raises(penstock.InvalidArgument, match="have not one value"):
        torchtitan.prepare([group_from(bad)], gradient_accumulation_steps=2, seq_len=256)
    with TrajectoryReader.create(name, sequences=4) as reader:
        handler = torchtitan.OnlineDataHandler(name)
        handler.register_atropos(job(4), 0, 4)
        put(name, [make_group(0), bad, make_group(2)])
        with pytest.warns(RuntimeWarning, match="a group of 'math' was set aside: its '"):
            batches, *_ = handler.data_handling(None, 1, 1, 0, "cpu", job(4), 0)
        assert sorted(int(row[0]) for batch in batches for row in batch[0]) == [0, 0, 2, 2]
        handler.close()
        assert reader.drop_dead_letters() == 1
        reader.discard()


def job(sequences: int, **grpo: Any) -> Any:
    training = SimpleNamespace(global_batch_size=sequences, local_batch_size=1, seq_len=256)
    settings = {"scale_adv_by_len": False, "num_microbatches": 1, **grpo}
    return SimpleNamespace(training=training, grpo=SimpleNamespace(**settings))


def test_torchtitans_arrays() -> None:
    groups = [
        group_from(make_group(1, tokens=70)),
        group_from(make_group(2, tokens=5, overrides=[{}, {"set_advantage_to_zero": True}])),
    ]
    prepared = torchtitan.prepare(
        groups, gradient_accumulation_steps=4, seq_len=256, scale_adv_by_len=False
    )
    assert prepared.max_token_len == 128
    assert (prepared.dynamic_batch_size, prepared.dynamic_grad_accum_size) == (2, 2)
    assert prepared.data_lens == [128, 128, 64, 64]
    (long, short) = prepared.batches
    ids, labels, masks, logprobs, rewards = long
    assert ids.shape == labels.shape == masks.shape == logprobs.shape == (2, 128)
    assert ids[0, :71].tolist() == [1, 0, *range(2, 70), 0]
    assert labels[0, :70].tolist() == [0, *range(2, 70), -100]
    assert masks[0].tolist() == [0] + [1] * 68 + [0] * 59
    assert logprobs[0, :4].tolist() == [1.0, 1.0, -1.0, -1.5]
    assert rewards.tolist() == [-1.0, 1.0]
    assert short[4].tolist() == [-1.0, 0.0]
    with pytest.raises(penstock.InvalidArgument, match=r"4 sequences, and a step .* takes 8"):
        torchtitan.prepare(groups, gradient_accumulation_steps=8, seq_len=256)


def test_torchtitans_long_sequences_are_spread() -> None:
    groups = [
        group_from(make_group(at, 1, tokens=length)) for at, length in enumerate((66, 200, 10, 130))
    ]
    prepared = torchtitan.prepare(
        groups, dp_degree=2, gradient_accumulation_steps=2, seq_len=512, num_microbatches=2
    )
    assert prepared.data_lens == [256, 192, 128, 64]
    assert prepared.dynamic_batch_size == 1  # each microbatch has one row
    assert [batch[0][0, 0] for batch in prepared.batches] == [1, 3, 0, 2]


class Ranks:
    """torch.distributed in one process that plays several ranks: all receive what rank 0 sends."""

    def __init__(self) -> None:
        self.rank = 0
        self.said: list[list[Any]] = []

    def get_rank(self) -> int:
        return self.rank

    def broadcast_object_list(self, objects: list[Any], _source: int) -> None:
        if self.rank == 0:
            self.said.append(pickle.loads(pickle.dumps(objects)))
        else:
            objects[:] = self.said.pop(0)


def test_all_ranks_of_torchtitan_get_the_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Ranks()
    torch = ModuleType("torch")
    torch.distributed = ranks  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch.distributed", ranks)  # type: ignore[arg-type]
    waits: list[Any] = []
    sglang = ModuleType("torchtitan.grpo.sglang_handling")
    sglang.send_wait = lambda *told: waits.append(told)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchtitan.grpo.sglang_handling", sglang)
    with TrajectoryReader.create(name, sequences=4) as reader:
        handlers = [torchtitan.OnlineDataHandler(name) for _ in range(2)]
        put(name, [make_group(number) for number in range(4)])
        for ranks.rank, handler in enumerate(handlers):
            handler.register_atropos(job(4), 0, 4)
        assert handlers[1].reader is None
        for step in range(2):
            outcomes = []
            for ranks.rank, handler in enumerate(handlers):
                outcomes.append(
                    handler.data_handling("group", 1, 2, ranks.rank, "cpu", job(4), step)
                )
            for batches, *rest in outcomes:
                rows = sorted(int(row[0]) for batch in batches for row in batch[0])
                assert rows == [2 * step, 2 * step, 2 * step + 1, 2 * step + 1]
                assert rest[:4] == [64, 2, 1, [64] * 4]
        assert waits == [("group", "cpu")] * 2
        assert reader.version == 1
        for handler in handlers:
            handler.close()
        # The last one was not acknowledged as trained on.
        assert sorted(numbers_of(reader)) == [2, 3]


def numbers_of(reader: TrajectoryReader) -> list[int]:
    with reader.next_batch(layout="groups", timeout=LONG) as batch:
        return [int(group.tokens[0][0]) for group in batch.groups]


# --- install ------------------------------------------------------------------------------------


def test_install_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    with pytest.raises(ImportError, match="pip install atroposlib"):
        atropos.install()


def test_another_atroposlib_is_left_alone_in_words() -> None:
    from penstock.integrations.atropos import install

    module = sys.modules["penstock.integrations.atropos.install"]
    del install
    base = ModuleType("atroposlib.envs.base")
    base.BaseEnv = type("BaseEnv", (), {})  # type: ignore[attr-defined]
    base.BaseEnvConfig = type("BaseEnvConfig", (), {"model_fields": {}})  # type: ignore[attr-defined]
    with pytest.raises(penstock.Incompatible, match=r"lacks register_env, .*nothing was"):
        module._install_into_environments(base)
    assert not hasattr(base, "TransportType")


def test_a_module_is_met_as_soon_as_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "met_package"
    package.mkdir()
    (package / "__init__.py").write_text("from .user import value\n")
    (package / "user.py").write_text("from .used import value\n")
    (package / "used.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def act(module: ModuleType) -> None:
        module.value += 1  # type: ignore[attr-defined]

    when_imported("met_package.used", act)
    import met_package  # type: ignore[import-not-found]

    assert met_package.value == 2
    when_imported("met_package.used", act)
    assert met_package.used.value == 3
    when_imported("met_package.absent", act)
    with pytest.raises(ModuleNotFoundError):
        import met_package.absent


def test_the_program_says_how_it_is_called(capfd: pytest.CaptureFixture[str]) -> None:
    from penstock.integrations.atropos.__main__ import main

    assert main(["--help"]) == 0
    assert main([]) == 2
    assert main(["--what"]) == 2
    assert main(["-m"]) == 2
    out, err = capfd.readouterr()
    assert "PROGRAM" in out
    assert err.count("usage: python -m penstock.integrations.atropos") == 3
