"""Trajectories through the Python package: groups bit for bit, exact batches, credit, restarts."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import pickle
import signal
from typing import Any

import numpy as np
import pytest

import penstock
from penstock.cli.main import main
from penstock.trajectories import (
    TrajectoryGroup,
    TrajectoryReader,
    TrajectoryWriter,
    inspect_trajectories,
)

LONG = 20.0


def make_group(number: int, lengths: list[int], **fields: Any) -> TrajectoryGroup:
    """Token t of sequence s is number * 10_000 + s * 1000 + t, in every column."""
    tokens = [
        np.arange(length, dtype=np.int32) + number * 10_000 + s * 1000
        for s, length in enumerate(lengths)
    ]
    given: dict[str, Any] = {
        "masks": [np.where(np.arange(len(t)) == 0, -100, t).astype(np.int32) for t in tokens],
        "inference_logprobs": [-t.astype(np.float32) for t in tokens],
        "advantages": [t.astype(np.float64) / 7 for t in tokens],
        "scores": [number + s / 2 for s in range(len(lengths))],
        "instance_id": f"g{number}",
    }
    return TrajectoryGroup(tokens, **{**given, **fields})


@pytest.fixture
def reader(name: str) -> Any:
    with TrajectoryReader.create(name, sequences=4, capacity="8MiB", slots=64) as made:
        yield made
        made.discard()


def test_environments_come_and_go(reader: TrajectoryReader) -> None:
    for number in range(2):
        with TrajectoryWriter.attach(reader.name) as environment:
            environment.put(make_group(number, [2] * 4))
        batch = reader.next_batch(layout="groups", timeout=LONG)
        assert ids(batch) == [f"g{number}"]
        batch.ack(number)
    with pytest.raises(penstock.Timeout):
        reader.next_batch(timeout=0)
    assert not reader.stats().queue.closed


def test_the_last_environment_ends_the_stream_where_that_was_agreed_on(name: str) -> None:
    creator = TrajectoryWriter.create(name, ends_with="last_producer")
    with (
        TrajectoryReader.attach(name, sequences=4) as reader,
        TrajectoryWriter.attach(name) as other,
    ):
        creator.close()
        other.put(make_group(0, [2] * 4))
        reader.next_batch(timeout=LONG).ack(1)
        other.close()
        with pytest.raises(penstock.Closed):
            reader.next_batch(timeout=LONG)


def test_groups_become_dead_letters_and_are_requeued(name: str) -> None:
    with (
        TrajectoryReader.create(name, sequences=4, max_deliveries=1) as reader,
        TrajectoryWriter.attach(name) as writer,
    ):
        for number in range(3):
            writer.put(make_group(number, [2] * 4))
            reader.next_batch(layout="groups", timeout=LONG).nack()
        first, second, third = reader.dead_letters()
        assert (first.sequence, first.deliveries) == (0, 1)
        assert isinstance(second.content(), TrajectoryGroup)
        assert second.content().instance_id == "g1"
        assert reader.stats().queue.dead_letters == 3
        assert reader.requeue_dead_letters([second, 77]) == 1
        batch = reader.next_batch(layout="groups", timeout=LONG)
        assert (ids(batch), batch.deliveries) == (["g1"], [1])
        batch.ack(1)
        assert reader.drop_dead_letters(third) == 1
        assert reader.requeue_dead_letters() == 1
        batch = reader.next_batch(layout="groups", timeout=LONG)
        assert ids(batch) == ["g0"]
        batch.ack(2)
        assert reader.dead_letters() == []


@pytest.mark.parametrize("limit", [1, 2])
def test_good_groups_of_a_bad_batch_are_trained_on(name: str, limit: int) -> None:
    with (
        TrajectoryReader.create(name, sequences=4, max_deliveries=limit) as reader,
        TrajectoryWriter.attach(name) as writer,
    ):
        writer.put(make_group(0, [2] * 2, instance_id="bad"))
        writer.put(make_group(1, [2] * 2))
        trained: list[str | None] = []
        for number in range(2, 7):  # others arrive meanwhile
            writer.put(make_group(number, [2] * 2))
            batch = reader.next_batch(layout="groups", timeout=LONG)
            if "bad" in ids(batch):
                batch.nack()
            else:
                trained += ids(batch)
                batch.ack(number)
        while reader.stats().queue.queued > 1:
            batch = reader.next_batch(layout="groups", timeout=LONG)
            assert "bad" not in ids(batch)
            trained += ids(batch)
            batch.ack(9)
        (letter,) = reader.dead_letters()
        assert letter.content().instance_id == "bad"
        assert letter.deliveries == limit + 1
        assert len(set(trained)) == len(trained) == 6
        reader.discard()


def test_suspects_that_can_not_be_kept_apart_do_not_come_for_ever(name: str) -> None:
    with (
        TrajectoryReader.create(name, sequences=4, max_deliveries=1) as reader,
        TrajectoryWriter.attach(name) as writer,
    ):
        for number in range(2):
            writer.put(make_group(number, [2] * 2))
        for _ in range(3):
            assert reader.dead_letters() == []
            reader.next_batch(layout="groups", timeout=LONG).nack()
        assert [letter.deliveries for letter in reader.dead_letters()] == [3, 3]
        assert reader.drop_dead_letters() == 2


def test_no_credit_is_given_for_slots_of_dead_letters(name: str) -> None:
    with (
        TrajectoryReader.create(name, sequences=2, slots=4, max_deliveries=1) as reader,
        TrajectoryWriter.attach(name, group_size=2) as writer,
    ):
        for number in range(4):
            assert writer.credit() == 4 - number
            writer.put(make_group(number, [2] * 2))
            reader.next_batch(layout="groups", timeout=LONG).nack()
        with pytest.raises(penstock.Timeout, match="4 of 4 slots hold dead letters"):
            writer.begin(timeout=0)
        with pytest.raises(penstock.Timeout, match="4 of 4 slots hold dead letters"):
            writer.put(make_group(4, [2] * 2), timeout=0)
        assert reader.drop_dead_letters([0, 1]) == 2
        with writer.begin(timeout=0) as rollout:
            rollout.put(make_group(5, [2] * 2))
        assert reader.drop_dead_letters() == 2
        batch = reader.next_batch(layout="groups", timeout=LONG)
        assert ids(batch) == ["g5"]
        batch.ack(1)


def test_a_group_that_contradicts_itself_is_a_dead_letter(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with TrajectoryReader.create(name, sequences=4) as reader:
        application = penstock._core.inspect_queue(name)["application"]
        raw = penstock._core.Queue(
            name, instance="", role="any", codec=None, timeout=0, application=application
        )
        raw.put({"group": 1, "lengths": "\x07none"})
        with pytest.raises(penstock.Corrupt, match="set aside"):
            reader.next_batch(timeout=0)
        (letter,) = reader.dead_letters()
        with pytest.raises(penstock.Corrupt):
            letter.content()
        assert letter.content_bytes()
        assert main(["dead", name]) == 0
        assert "\\x07none" in capsys.readouterr().out
        assert main(["dead", name, "--drop", "0"]) == 0
        assert reader.dead_letters() == []
        raw.close()


def ids(batch: Any) -> list[str | None]:
    return [group.instance_id for group in batch.groups]


def test_every_field_comes_back_bit_for_bit(reader: TrajectoryReader) -> None:
    with TrajectoryWriter.attach(reader.name, environment="gsm8k") as writer:
        group = TrajectoryGroup(
            [[1, 2, 3], [2**31, 5]],
            masks=[[-100, 2, 3], [-100, 5]],
            scores=[0.1, -2.5],
            advantages=[[0.1, 0.2, 0.3], [0.4, 0.5]],
            ref_logprobs=[np.float16([1, 2, 3]), np.float16([4, 5])],
            inference_logprobs=[np.float32([1, 0.1, 0.2]), np.float32([1, 0.3])],
            versions=[7, 8],
            messages=[[{"role": "user", "content": "1+1?", "reward": None}], []],
            generation_params={"temperature": 0.7},
            overrides=[{"set_advantage_to_zero": True}, {}],
            group_overrides={"group_size": 2},
            images=[b"\x89PNG", None],
            instance_id="q17",
            distill_token_ids=[[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 10]]],
            distill_logprobs=[[[0.1, 0.2]] * 3, [[0.3, 0.4]] * 2],
        )
        writer.put(group)
        batch = reader.next_batch(2, layout="groups", timeout=LONG)
        (read,) = batch.groups
        batch.ack(9)
        assert read == group
        assert (read.environment, read.environment_id) == ("gsm8k", writer.env_id)
        assert read.env_id is None
        assert read.begun == 7
        assert read.tokens[1].dtype == np.int64
        assert writer.version == 9


ARRAYS: dict[str, Any] = {
    "nested": [{"image": np.arange(6, dtype=np.uint8).reshape(2, 3)}, (1, float("nan"))],
    "number": np.float32(0.5),
    "nothing": None,
}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"env_id": 3},
        {"env_id": np.int64(3), "instance_id": np.str_("q1")},
        {"images": ARRAYS, "messages": [[ARRAYS]]},
        {"scores": [float("nan"), 1.0]},
        {"advantages": [[float("nan"), 0.0], [1.0]]},
        {"distill_token_ids": [[[1], [2, 3]], [[4]]]},
        {"ref_logprobs": [np.float16([1, 2]), np.float16([3])]},
    ],
)
def test_a_group_that_arrived_equals_the_one_that_was_put(
    reader: TrajectoryReader, fields: dict[str, Any]
) -> None:
    group = TrajectoryGroup([[1, 2], [3]], **fields)
    with TrajectoryWriter.attach(reader.name, environment="env", env_id=7) as writer:
        writer.put(group)
        with reader.next_batch(2, layout="groups", timeout=LONG) as batch:
            (read,) = batch.groups
            assert read == group
            assert read.env_id == fields.get("env_id")
            assert (read.environment, read.environment_id) == ("env", 7)
        writer.put(read)  # again
        with reader.next_batch(2, layout="groups", timeout=LONG) as batch:
            assert batch.groups == (group,)
    other = TrajectoryGroup([[1, 2], [3]], **{**fields, "group_overrides": {"x": np.arange(2)}})
    assert group != other
    assert other == TrajectoryGroup(
        [[1, 2], [3]], **{**fields, "group_overrides": {"x": np.arange(2)}}
    )


def test_tensors_among_the_values_of_a_group(reader: TrajectoryReader) -> None:
    torch = pytest.importorskip("torch")
    fields = {"images": [torch.tensor([1.5, float("nan")]), torch.tensor(2, dtype=torch.bfloat16)]}
    columns = {"advantages": [torch.tensor([1.0, float("nan")], dtype=torch.bfloat16)]}
    group = TrajectoryGroup([[1, 2]], **fields, **columns)
    with TrajectoryWriter.attach(reader.name) as writer:
        writer.put(group)
        with reader.next_batch(1, layout="groups", timeout=LONG) as batch:
            assert batch.groups == (group,)


def test_an_iterator_is_a_column_too(reader: TrajectoryReader) -> None:
    lists: dict[str, Any] = {
        "masks": [[-100, 2], [3]],
        "scores": [0.5, 1.0],
        "advantages": [[0.25, 0.5], [1.0]],
        "versions": [1, 2],
        "distill_token_ids": [[[1], [2]], [[3]]],
    }
    expected = TrajectoryGroup([[0, 1], [0]], **lists)
    once = TrajectoryGroup(
        (range(length) for length in (2, 1)),
        masks=map(iter, lists["masks"]),
        scores=iter(lists["scores"]),
        advantages=tuple(dict.fromkeys(row).keys() for row in lists["advantages"]),
        versions=(version for version in (1, 2)),
        distill_token_ids=(
            ((number for number in token) for token in row) for row in lists["distill_token_ids"]
        ),
    )
    assert once == expected
    for tokens in ({1: 2}, {3}, {"tokens": [1]}, 7, None):
        with pytest.raises(penstock.InvalidArgument, match="tokens"):
            TrajectoryGroup(tokens)
    with TrajectoryWriter.attach(reader.name) as writer:
        writer.put(once)
    names = ["masks", "tokens"]
    batch = reader.next_batch(2, columns=(name for name in names), timeout=LONG)
    assert list(batch.columns) == names
    batch.ack()


@pytest.mark.parametrize("env_id", ["3", 3.0, [3]])
def test_invalid_env_ids_are_refused(env_id: Any) -> None:
    with pytest.raises(penstock.InvalidArgument, match="env_id"):
        TrajectoryGroup([[1]], env_id=env_id)


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_a_column_that_no_array_can_hold_is_left_out(reader: TrajectoryReader, layout: Any) -> None:
    even = {"distill_logprobs": [[[0.5], [0.25]]], "distill_token_ids": [[[1], [2]]]}
    ragged = {**even, "distill_logprobs": [[[0.5], [0.25, 1.0]]], "distill_token_ids": None}
    wider = {"distill_token_ids": [[[1, 2], [3, 4]]], "ref_logprobs": [[1.0, 2.0]]}
    with TrajectoryWriter.attach(reader.name) as writer:
        for fields in (even, ragged, wider, {}):
            writer.put(TrajectoryGroup([[1, 2]], masks=[[1, 2]], **fields))
    batch = reader.next_batch(3, layout=layout, timeout=LONG)  # without the last
    assert batch.columns == ("tokens", "masks")
    assert set(batch.left_out) == {"distill_logprobs", "distill_token_ids", "ref_logprobs"}
    for name, why in batch.left_out.items():
        assert name in why
        assert name not in batch
        with pytest.raises(AttributeError, match=name):
            getattr(batch, name)
    assert batch.groups[1].distill_logprobs is not None  # present nevertheless
    batch.nack()
    with pytest.raises(penstock.InvalidArgument, match="another number of values"):
        reader.next_batch(2, columns=["tokens", "distill_logprobs"], timeout=LONG)
    again = reader.next_batch(1, layout=layout, timeout=LONG)
    assert again.left_out == {}
    assert "distill_logprobs" in again
    again.ack()


@pytest.mark.parametrize("column", ["tokens", "masks", "distill_token_ids"])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"])
def test_a_batch_of_any_dtype_is_padded(reader: TrajectoryReader, column: str, dtype: str) -> None:
    values: Any = [np.array([1, 2, 3], dtype), np.array([4], dtype)]
    if column == "distill_token_ids":
        values = [one[:, None] for one in values]
    with TrajectoryWriter.attach(reader.name) as writer:
        writer.put(TrajectoryGroup(**{"tokens": [[1, 2, 3], [4]], column: values}))
        batch = reader.next_batch(2, pad_to=4, timeout=LONG)
        assert batch[column].reshape(2, -1)[0, :3].tolist() == [1, 2, 3]
        batch.ack()


def test_distilled_tokens_of_different_numbers(reader: TrajectoryReader) -> None:
    with TrajectoryWriter.attach(reader.name) as writer:
        ragged = [[[1], [2, 3]], [[], [4], [5, 6]]]
        logprobs = [[[0.1], [0.2, 0.3]], [[], [0.4], [0.5, 0.6]]]
        writer.put(
            TrajectoryGroup(
                [[1, 2], [3, 4, 5]], distill_token_ids=ragged, distill_logprobs=logprobs
            )
        )
        batch = reader.next_batch(2, layout="groups", timeout=LONG)
        (read,) = batch.groups
        got = [[token.tolist() for token in sequence] for sequence in read.distill_token_ids or []]
        assert got == ragged
        batch.nack()
        with pytest.raises(penstock.InvalidArgument, match="distill_token_ids"):
            reader.next_batch(2, columns=["distill_token_ids"], timeout=LONG)


def test_padded_and_packed_say_the_same(reader: TrajectoryReader) -> None:
    with TrajectoryWriter.attach(reader.name) as writer:
        for number, lengths in enumerate(([3, 5], [1], [4])):
            writer.put(make_group(number, lengths))
        padded = reader.next_batch(pad_to=8, timeout=LONG)
        assert padded.tokens.shape == (4, 8)
        assert padded.padding_mask is not None
        assert padded.padding_mask.sum(axis=1).tolist() == [3, 5, 1, 4]
        assert (padded.masks[~padded.padding_mask] == -100).all()
        assert (padded.inference_logprobs[~padded.padding_mask] == 1.0).all()
        assert padded.scores.tolist() == [0, 0.5, 1, 2]
        assert padded.group_index.tolist() == [0, 0, 1, 2]
        padded.nack()
        packed = reader.next_batch(layout="packed", timeout=LONG)
        assert packed.redelivered.all()
        assert packed.cu_seqlens is not None
        assert packed.position_ids is not None
        assert packed.cu_seqlens.tolist() == [0, 3, 8, 9, 13]
        for name in ("tokens", "masks", "advantages", "inference_logprobs"):
            assert (packed[name] == padded[name][padded.padding_mask]).all()
            assert packed[name].dtype == padded[name].dtype
        assert packed.position_ids[3:8].tolist() == [0, 1, 2, 3, 4]
        packed.ack(1)


def test_causal_shift(reader: TrajectoryReader) -> None:
    with TrajectoryWriter.attach(reader.name) as writer:
        writer.put(make_group(1, [3, 5, 2, 2]))
        batch = reader.next_batch(causal_shift=True, pad_to=4, timeout=LONG)
        assert batch.tokens.shape == (4, 4)
        assert batch.tokens[0].tolist() == [10_000, 10_001, 0, 0]
        assert batch.masks[0].tolist() == [10_001, 10_002, -100, -100]
        batch.ack()


def test_arrays_of_the_caller(reader: TrajectoryReader) -> None:
    torch = pytest.importorskip("torch")
    tokens = torch.full((6, 32), 7, dtype=torch.int64)
    masks = np.full((4, 16), 7, np.int32)
    with TrajectoryWriter.attach(reader.name) as writer:
        writer.put(make_group(1, [3, 5, 2, 2]))
        with pytest.raises(penstock.TooLarge, match="'masks'"):
            reader.next_batch(out={"masks": masks[:, :4]}, pad_to=8, timeout=LONG)
        batch = reader.next_batch(out={"tokens": tokens, "masks": masks}, pad_to=8, timeout=LONG)
        assert not batch.redelivered.any()  # the arrays were too small: nothing was taken
        assert batch.tokens.data_ptr() == tokens.data_ptr()
        assert np.shares_memory(batch.masks, masks)
        assert tokens[0, :4].tolist() == [10_000, 10_001, 10_002, 0]
        assert tokens[0, 8].item() == 7
        assert tokens[4, 0].item() == 7
        batch.ack()


def test_columns_and_dtypes_on_request(reader: TrajectoryReader) -> None:
    with TrajectoryWriter.attach(reader.name) as writer:
        writer.put(TrajectoryGroup([[2**40, 1]] * 4, instance_id="wide"))
        with pytest.raises(penstock.InvalidArgument, match=r"'wide'.*does not fit into int32"):
            reader.next_batch(dtypes={"tokens": "int32"}, timeout=LONG)
        with pytest.raises(penstock.InvalidArgument, match=r"'wide'.*no column 'masks'"):
            reader.next_batch(columns=["tokens", "masks"], timeout=LONG)
        with pytest.raises(penstock.InvalidArgument, match="'rewards'"):
            reader.next_batch(columns=["rewards"], timeout=LONG)
        batch = reader.next_batch(timeout=LONG)
        assert batch.columns == ("tokens",)
        assert batch.tokens.dtype == np.int64
        batch.ack()


def test_bfloat16_is_widened(reader: TrajectoryReader) -> None:
    torch = pytest.importorskip("torch")
    logprobs = [torch.tensor([0.5, -1.25, 3.0], dtype=torch.bfloat16)] * 4
    with TrajectoryWriter.attach(reader.name) as writer:
        writer.put(TrajectoryGroup([[1, 2, 3]] * 4, ref_logprobs=logprobs))
        batch = reader.next_batch(layout="packed", timeout=LONG)
        assert batch.ref_logprobs.dtype == np.float32
        assert batch.ref_logprobs[:3].tolist() == [0.5, -1.25, 3.0]
        assert batch.groups[0].ref_logprobs is not None
        assert batch.groups[0].ref_logprobs[0].dtype == torch.bfloat16
        batch.ack()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"masks": [[1, 2], [3]]}, r"column 'masks' of the group 'q' has 1 values in sequence 1"),
        ({"masks": [[1, 2]]}, r"column 'masks' of the group 'q' has 1 sequences"),
        ({"scores": [1.0]}, r"column 'scores' of the group 'q'"),
        ({"masks": [np.int32([1, 2]), np.int8([3, 4])]}, r"'masks' .* mixes int32 and int8"),
        ({"distill_token_ids": [[[1], [2]]] * 2, "distill_logprobs": [[[0.1], []]] * 2}, r"values"),
    ],
)
def test_columns_that_do_not_fit(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(penstock.InvalidArgument, match=words):
        TrajectoryGroup([[1, 2], [3, 4]], instance_id="q", **fields)


def test_wrong_dtypes_put_nothing(reader: TrajectoryReader) -> None:
    with TrajectoryWriter.attach(reader.name, environment="a") as writer:
        bad = TrajectoryGroup([[1.5, 2.5]], instance_id="q")
        with pytest.raises(penstock.InvalidArgument, match="'tokens' of the group 'q' of 'a'"):
            writer.put(bad)
        with pytest.raises(penstock.TooLarge, match="5 sequences"):
            writer.put(make_group(1, [2] * 5))
        with pytest.raises(penstock.TooLarge):
            writer.put(TrajectoryGroup([np.zeros(3 << 20, np.int32)]))
        with pytest.raises(penstock.InvalidArgument):
            writer.put({"tokens": [[1]]})  # type: ignore[arg-type]
        assert writer.stats().queue.held_bytes == 0
        assert writer.stats().queue.accepted == 0


def test_a_queue_of_another_kind(name: str) -> None:
    with penstock.Queue.create(name):
        with pytest.raises(penstock.Incompatible, match="plain messages"):
            TrajectoryReader.attach(name)
        with pytest.raises(penstock.Incompatible):
            TrajectoryWriter.attach(name)
        with pytest.raises(penstock.Incompatible):
            inspect_trajectories(name)


def test_credit_and_staleness(name: str) -> None:
    with (
        TrajectoryReader.create(name, sequences=4, max_staleness=1) as reader,
        TrajectoryWriter.attach(name, environment="a", group_size=2) as writer,
    ):
        assert writer.credit() == 4
        rollouts = [writer.begin(0) for _ in range(4)]
        with pytest.raises(penstock.Timeout, match="enough is on the way"):
            writer.begin(0)
        for number, rollout in enumerate(rollouts):
            rollout.put(make_group(number, [2, 2]))
        first = reader.next_batch(timeout=LONG)
        assert first.staleness == 0
        first.ack(1)
        with writer.begin(0) as rollout:
            assert rollout.version == 1
        second = reader.next_batch(timeout=LONG)
        assert second.staleness == 1
        second.ack(2)
        (environment,) = inspect_trajectories(name).trajectories.environments
        assert environment.running_groups == 0
        assert environment.waiting_groups == 0


def test_a_timeout_of_next_batch_reports_what_is_queued(reader: TrajectoryReader) -> None:
    with TrajectoryWriter.attach(reader.name, environment="odd") as writer:
        for number in range(3):
            writer.put(make_group(number, [1, 1, 1]))
        with pytest.raises(penstock.Timeout, match=r"exactly 4 .* of 'odd' 3 x 3"):
            reader.next_batch(timeout=0.05)
        assert len(reader.next_batch(9, timeout=LONG)) == 9


def test_a_block_acknowledges_or_gives_back(reader: TrajectoryReader) -> None:
    with TrajectoryWriter.attach(reader.name) as writer:
        writer.put(make_group(1, [2] * 4))
        with pytest.raises(ZeroDivisionError), reader.next_batch(timeout=LONG):
            _ = 1 // 0
        with reader.next_batch(timeout=LONG) as batch:
            assert batch.redelivered.all()
        assert not batch.is_open
        assert reader.stats().groups == 1


def test_state_goes_into_another_queue(name: str) -> None:
    with TrajectoryReader.create(name, sequences=2) as reader:
        with TrajectoryWriter.attach(name, environment="a") as writer:
            for number in range(3):
                writer.put(make_group(number, [2, 2]))
            reader.next_batch(timeout=LONG).ack(5)
            open_batch = reader.next_batch(timeout=LONG)
            state = pickle.loads(pickle.dumps(reader.state_dict()))
            reader.load_state_dict(state)  # the same queue: it has them itself
            assert len(reader._held_messages()) == 1
            assert ids(open_batch) == ["g1"]
            open_batch.nack()
        reader.discard()
    with TrajectoryReader.create(name, sequences=2) as restarted:
        restarted.load_state_dict(state)
        assert restarted.version == 5
        batches = [restarted.next_batch(timeout=LONG) for _ in range(2)]
        assert [ids(batch) for batch in batches] == [["g1"], ["g2"]]
        assert all(batch.redelivered.all() for batch in batches)
        for batch in batches:
            batch.ack(6)


def test_restored_groups_outlive_a_second_restart(name: str) -> None:
    with TrajectoryReader.create(name, sequences=2) as reader:
        with TrajectoryWriter.attach(name, environment="a") as writer:
            writer.put(make_group(1, [2, 2]))
            writer.put(make_group(2, [2, 2]))
            held = reader.next_batch(timeout=LONG)
            state = reader.state_dict()
            held.nack()
        reader.discard()
    with TrajectoryReader.create(name, sequences=2) as keeper:
        with TrajectoryReader.attach(name, sequences=2) as first:
            first.load_state_dict(state)
            open_batch = first.next_batch(timeout=LONG)
            state = pickle.loads(pickle.dumps(first.state_dict()))
            first.load_state_dict(state)  # has them
            assert len(first._held_messages()) == 1
            open_batch.nack()
        with TrajectoryReader.attach(name, sequences=2) as second:  # of the same queue
            second.load_state_dict(state)
            batches = [second.next_batch(timeout=LONG) for _ in range(2)]
            assert sorted(ids(batch)[0] for batch in batches) == ["g1", "g2"]
            for batch in batches:
                batch.ack(0)
        assert keeper.version == 0


def test_async(reader: TrajectoryReader) -> None:
    async def talk() -> None:
        with TrajectoryWriter.attach(reader.name) as writer:
            waiting = asyncio.create_task(reader.next_batch_async(timeout=LONG))
            rollout = await writer.begin_async(timeout=LONG)
            await writer.put_async(make_group(1, [2] * 4), timeout=LONG)
            rollout.release()
            (await waiting).ack()
            idle = asyncio.create_task(reader.next_batch_async())
            await asyncio.sleep(0)
            idle.cancel()
            with pytest.raises(asyncio.CancelledError):
                await idle

    asyncio.run(talk())


def _environment(name: str, environment: str, first: int, count: int) -> None:
    with TrajectoryWriter.attach(
        name, environment=environment, group_size=2, timeout=LONG
    ) as writer:
        for number in range(first, first + count):
            with writer.begin(timeout=LONG) as rollout:
                rollout.put(make_group(number, [2 + number % 3, 3]), timeout=LONG)


def _doomed_trainer(name: str, taken: Any) -> None:
    reader = TrajectoryReader.attach(name, sequences=4, timeout=LONG)
    batch = reader.next_batch(timeout=LONG)
    taken.put(ids(batch))
    signal.pause()


def test_environments_and_trainers_die_and_come_back(name: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    with (
        TrajectoryReader.create(name, sequences=4, max_staleness=2) as reader,
        TrajectoryWriter.attach(name, environment="keeper"),
    ):
        crew = [
            spawn.Process(target=_environment, args=(name, f"e{rank}", rank * 100, 20))
            for rank in range(2)
        ]
        taken = spawn.Queue()
        trainer = spawn.Process(target=_doomed_trainer, args=(name, taken))
        for process in (*crew, trainer):
            process.start()
        lost = taken.get(timeout=LONG)
        assert trainer.pid is not None
        os.kill(trainer.pid, signal.SIGKILL)
        trainer.join()
        seen: list[str | None] = []
        again: set[str | None] = set()
        while len(seen) < 40:
            batch = reader.next_batch(timeout=LONG)
            for group, deliveries in zip(batch.groups, batch.deliveries, strict=True):
                seen.append(group.instance_id)
                again |= {group.instance_id} if deliveries > 1 else set()
            batch.ack(reader.version + 1)
        for process in crew:
            process.join()
            assert process.exitcode == 0
        assert sorted(seen, key=str) == sorted(
            (f"g{rank * 100 + i}" for rank in range(2) for i in range(20)), key=str
        )
        assert set(lost) <= again
        assert reader.stats().queue.held_bytes == 0


def test_info_shows_the_environments(reader: TrajectoryReader, capsys: Any) -> None:
    with TrajectoryWriter.attach(reader.name, environment="gsm8k", group_size=2) as writer:
        writer.put(make_group(1, [2, 2]))
        with writer.begin(0):
            assert main(["info", reader.name, "--interval", "0"]) == 0
            text = capsys.readouterr().out
            assert main(["info", reader.name, "--json", "--interval", "0"]) == 0
            told = json.loads(capsys.readouterr().out)
    assert "gsm8k" in text
    (environment,) = told["trajectories"]["environments"]
    assert environment["waiting_sequences"] == 2
    assert environment["running_groups"] == 1
    assert told["trajectories"]["batch_sequences"] == 4
