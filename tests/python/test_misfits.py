"""A group of which no batch can be made becomes a dead letter, counted and reported; the others
flow."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
import warnings
from typing import Any

import numpy as np
import pytest

import penstock
from penstock.trajectories import (
    TrajectoryGroup,
    TrajectoryReader,
    TrajectoryWriter,
    inspect_trajectories,
)

LONG = 30.0


def group(number: int, length: int = 3, **fields: Any) -> TrajectoryGroup:
    tokens = np.full(length, number, np.int32)
    fields.setdefault("masks", [tokens, tokens])
    return TrajectoryGroup([tokens, tokens], instance_id=f"g{number}", **fields)


@pytest.fixture
def reader(name: str) -> Any:
    with TrajectoryReader.create(name, sequences=4, capacity="256MiB") as made:
        yield made
        made.discard()


def firsts(batch: Any) -> list[int]:
    return [int(tokens[0]) for one in batch.groups for tokens in one.tokens]


# --- the most tokens of a sequence ------------------------------------------------------------


def test_a_sequence_that_is_too_long_is_refused_at_the_put(name: str) -> None:
    with (
        TrajectoryReader.create(name, sequences=4, max_tokens=5) as reader,
        TrajectoryWriter.attach(name) as writer,
    ):
        writer.put(group(1, 5))
        with pytest.raises(penstock.TooLarge, match=r"'g2'.* sequence of 6 tokens.* takes 5"):
            writer.put(group(2, 6))
        assert reader.stats().max_tokens == 5
        assert reader.discard() == 1


def test_a_sequence_that_is_queued_already_becomes_a_dead_letter(name: str) -> None:
    with TrajectoryWriter.create(name, environment="math") as writer:
        for number, length in ((1, 3), (2, 6), (3, 5)):
            writer.put(group(number, length))
        with TrajectoryReader.attach(name, sequences=4, max_tokens=5) as reader:
            with pytest.warns(RuntimeWarning, match="'g2' of 'math' has a sequence of 6 tokens"):
                batch = reader.next_batch(timeout=LONG)
            assert firsts(batch) == [1, 1, 3, 3]
            assert not batch.redelivered.any()
            batch.ack()
            (letter,) = reader.dead_letters()
            assert letter.content() == group(2, 6)
            assert reader.stats().dead_lettered == 1
        shown = subprocess.run(
            [sys.executable, "-m", "penstock.cli.main", "info", name],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert "1 group that no batch could be made of" in shown
        assert inspect_trajectories(name).trajectories.dead_lettered == 1
        with TrajectoryReader.attach(name, sequences=2, max_tokens=6) as larger:
            assert larger.requeue_dead_letters() == 1
            with larger.next_batch(timeout=LONG) as batch:
                assert firsts(batch) == [2, 2]


def test_a_restored_misfit_stays_with_the_reader(name: str, reader: TrajectoryReader) -> None:
    with TrajectoryWriter.attach(name) as writer:
        for number, length in ((1, 6), (2, 3)):
            writer.put(group(number, length))
        batch = reader.next_batch(timeout=LONG)
        state = reader.state_dict()
        batch.ack()
    with TrajectoryReader.create(name + ".new", sequences=2, max_tokens=5) as heir:
        heir.load_state_dict(state)
        with pytest.warns(RuntimeWarning, match="'g1'.* was set aside"):
            batch = heir.next_batch(timeout=LONG)
        assert firsts(batch) == [2, 2]
        assert len(heir.state_dict()["messages"]) == 2, "nothing is lost"
        batch.ack()
        with pytest.raises(penstock.Timeout):
            heir.next_batch(timeout=0)
        assert len(heir.state_dict()["messages"]) == 1
        heir.discard()


@pytest.mark.parametrize("bad", [0, -1, True, 2.5])
def test_invalid_bounds_are_refused(name: str, bad: Any) -> None:
    with pytest.raises((penstock.InvalidArgument, TypeError), match="max_tokens"):
        TrajectoryReader.create(name, max_tokens=bad)


# --- memory -----------------------------------------------------------------------------------

ONE_IS_TOO_LONG = """
import resource, sys, warnings
import numpy as np
from penstock.trajectories import TrajectoryGroup, TrajectoryReader, TrajectoryWriter
name = sys.argv[1]
with TrajectoryReader.create(name, sequences=64, capacity="512MiB") as reader:
    with TrajectoryWriter.attach(name) as writer:
        for number in range(33):
            length = 32 << 20 if number == 5 else 100
            tokens = np.full(length, number, np.int32)
            rows = [tokens] if number == 5 else [tokens] * 2
            writer.put(TrajectoryGroup(rows, instance_id=f"g{number}"))
        writer.put(TrajectoryGroup([tokens]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        memory = int(open("/proc/self/statm").read().split()[0]) * 4096 + (2 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        batch = reader.next_batch(timeout=30)
    print(batch.tokens.shape, [str(one.message) for one in caught])
    batch.ack()
    print(reader.stats().dead_lettered, len(reader.dead_letters()))
    reader.discard()
"""


def test_one_long_sequence_does_not_keep_the_others(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ONE_IS_TOO_LONG, name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("(64, 128)")
    assert "'g5'" in first
    assert "a sequence of 33554432 tokens" in first
    assert second == "1 1"


def test_more_tokens_than_can_be_counted(
    name: str, reader: TrajectoryReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong count would be silent; a real batch of 2**31 takes 2 GiB at least."""
    monkeypatch.setattr("penstock.trajectories.batch._MOST_PACKED", 20)
    with TrajectoryWriter.attach(name) as writer:
        for number, length in ((1, 3), (2, 9), (3, 4)):
            writer.put(group(number, length))
        with pytest.warns(RuntimeWarning, match="'g2'.* a sequence of 9 tokens"):
            batch = reader.next_batch(layout="packed", timeout=LONG)
        assert batch.cu_seqlens.tolist() == [0, 3, 6, 10, 14]
        batch.ack()
        for number in (4, 5):  # no longer than earlier ones: the batch is at fault
            writer.put(group(number, 4))
        monkeypatch.setattr("penstock.trajectories.batch._MOST_PACKED", 10)
        with pytest.raises(penstock.NoSpace, match="packed batch of 16 tokens"):
            reader.next_batch(layout="packed", timeout=LONG)
        assert reader.stats().dead_lettered == 1


# --- requests ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_a_group_that_does_not_meet_a_request_that_others_met(
    name: str, reader: TrajectoryReader, layout: Any
) -> None:
    wide = [np.array([2**40, 1], np.int64)] * 2
    asked: dict[str, Any] = {
        "layout": layout,
        "columns": ["tokens", "masks"],
        "dtypes": {"tokens": "int32"},
        "causal_shift": layout == "padded",
        "timeout": LONG,
    }
    with TrajectoryWriter.attach(name) as writer:
        for number in (1, 2):
            writer.put(group(number))
        reader.next_batch(**asked).ack()
        writer.put(group(3, masks=None))
        writer.put(TrajectoryGroup(wide, masks=wide, instance_id="wide"))
        for number in (4, 5):
            writer.put(group(number))
        with pytest.warns(RuntimeWarning) as caught:
            batch = reader.next_batch(**asked)
        assert firsts(batch) == [4, 4, 5, 5]
        assert not batch.redelivered.any()
        batch.ack()
    words = " ".join(str(one.message) for one in caught)
    assert "'g3' of 'default' was set aside: " in words
    assert "no column 'masks'" in words
    assert "'wide' of 'default' was set aside: " in words
    assert "does not fit into int32" in words
    assert reader.stats().dead_lettered == 2
    assert len(reader.dead_letters()) == 2


def test_a_request_that_was_never_met_is_refused(name: str, reader: TrajectoryReader) -> None:
    """The request may be at fault: then every group would become a dead letter."""
    with TrajectoryWriter.attach(name) as writer:
        for number in (1, 2):
            writer.put(group(number))
        for request in ({"columns": ["advantages"]}, {"dtypes": {"tokens": "float32"}}):
            with pytest.raises(penstock.InvalidArgument):
                reader.next_batch(timeout=LONG, **request)
        assert reader.stats().dead_lettered == 0
        with reader.next_batch(timeout=LONG) as batch:
            assert firsts(batch) == [1, 1, 2, 2]


def test_torch_arrays_of_the_caller(name: str, reader: TrajectoryReader) -> None:
    torch = pytest.importorskip("torch")
    out = {"tokens": torch.zeros((4, 64), dtype=torch.int32)}
    with TrajectoryWriter.attach(name) as writer:
        for number in (1, 2):
            writer.put(group(number))
        reader.next_batch(out=out, timeout=LONG).ack()
        writer.put(TrajectoryGroup([np.array([2**40], np.int64)] * 2, instance_id="wide"))
        for number in (3, 4):
            writer.put(group(number))
        with pytest.warns(RuntimeWarning, match="'wide'.* does not fit into int32"):
            batch = reader.next_batch(out=out, timeout=LONG)
        assert batch.tokens[:, 0].tolist() == [3, 3, 4, 4]
        batch.ack()


# --- undecodable groups -----------------------------------------------------------------------


def test_a_group_that_cannot_be_decoded(
    name: str, reader: TrajectoryReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = TrajectoryGroup.from_message

    def fails_for_one(message: Any) -> TrajectoryGroup:
        if message["instance_id"] == "g1":
            raise ImportError("no module that knows this dtype")
        return real(message)

    monkeypatch.setattr(TrajectoryGroup, "from_message", fails_for_one)
    with TrajectoryWriter.attach(name) as writer:
        for number in (1, 2, 3):
            writer.put(group(number))
        with pytest.warns(RuntimeWarning, match="'g1'.* can't be decoded: no module"):
            batch = reader.next_batch(layout="groups", timeout=LONG)
        assert firsts(batch) == [2, 2, 3, 3]
        batch.ack()


def test_by_hand(name: str, reader: TrajectoryReader) -> None:
    with TrajectoryWriter.attach(name) as writer:
        for number in (1, 2, 3):
            writer.put(group(number))
        batch = reader.next_batch(timeout=LONG)
        with pytest.raises(penstock.InvalidArgument, match="no 2"):
            batch.dead_letter(2)
        batch.dead_letter(0)
        assert not batch.is_open
        again = reader.next_batch(timeout=LONG)
        assert firsts(again) == [2, 2, 3, 3]
        assert not again.redelivered.any()
        again.ack()
        assert [letter.content() for letter in reader.dead_letters()] == [group(1)]


# --- over HTTP --------------------------------------------------------------------------------


@pytest.fixture
def client(name: str) -> Any:
    pytest.importorskip("starlette")
    pytest.importorskip("httpx")
    pytest.importorskip("msgspec")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient

    from http_server import REGISTRATION

    from penstock.integrations.atropos.http import build_app

    with TrajectoryWriter.create(name, environment="before") as before:
        before.put(TrajectoryGroup([[7]] * 5, instance_id="large"))  # no trainer has attached yet
        with TestClient(build_app(name)) as made:
            made.post("/register", json={**REGISTRATION, "batch_size": 2, "max_token_len": 100})
            yield made
        with TrajectoryReader.attach(name) as last:
            last.discard()  # dead letters included


def test_a_group_without_a_json_form_becomes_a_dead_letter(
    name: str, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bad: list[dict[str, Any]] = [
        {"group_overrides": {("a", 1): 2}},
        {"messages": [{b"bytes": 1}]},
        {"images": {None: [{(1,): 1}]}},
    ]
    with (
        TrajectoryWriter.attach(name, environment="local") as writer,
        caplog.at_level(logging.WARNING, logger="penstock.integrations.atropos.http"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # about the one that is too large
        for number, fields in enumerate(bad):
            writer.put(group(number, **fields))
        writer.put(group(9))
        answer = client.get("/batch")
        assert answer.status_code == 200
        assert [one["tokens"][0][0] for one in answer.json()["batch"]] == [9]
        assert client.get("/batch").json() == {"batch": None}
        assert writer.stats().dead_lettered == len(bad) + 1
    assert len(caplog.records) == len(bad)
    assert "'g0' of 'local' was set aside: JSON can't say it" in caplog.text


def test_groups_larger_than_the_batch_become_dead_letters(client: Any) -> None:
    from http_server import make_group

    client.post("/scored_data", json=make_group(1))
    with pytest.warns(RuntimeWarning, match="'large' of 'before' has 5 sequences and a batch 2"):
        answer = client.get("/batch")
    assert [one["tokens"][0][0] for one in answer.json()["batch"]] == [1]


def test_max_token_len_is_enforced(client: Any) -> None:
    body = {"tokens": [[1] * 101], "masks": [[1] * 101], "scores": [1]}
    refused = client.post("/scored_data", content=json.dumps(body))
    assert refused.status_code == 422
    assert "101 tokens and the trainer takes 100" in refused.json()["detail"]


def test_a_reset_does_not_try_every_sum(name: str, client: Any) -> None:
    """Groups that another trainer holds count as waiting, but can't be taken."""
    from http_server import make_group

    many = 60_000
    with (
        TrajectoryWriter.attach(name) as writer,
        TrajectoryReader.attach(name, sequences=many) as other,
    ):
        held = []
        for _ in range(8):
            writer.put(TrajectoryGroup(np.ones((many, 1), np.int32)))
            held.append(other.next_batch(layout="groups", timeout=LONG))
        client.post("/scored_data", json=make_group(1))
        begun = time.process_time()
        dropped = client.get("/reset_data").headers["X-Penstock-Dropped-Groups"]
        assert time.process_time() - begun < 2.0
        assert dropped == "2"  # including the one that is too large for any batch
        for batch in held:
            batch.ack()
