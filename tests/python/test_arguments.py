"""Wrong values for every public argument: one of our errors, which is also the built-in that a
Python programmer would catch, with a message about the argument and not about its binding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import penstock
from penstock import inspect
from penstock.trajectories import TrajectoryGroup, TrajectoryReader, TrajectoryWriter

# Words of the binding's machinery, which no message may contain.
MACHINERY = ("nanobind", "_core", "incompatible function arguments", "instance:", "nb::", "handle=")


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def refused(call: Callable[[], Any], *classes: type[BaseException]) -> str:
    """The call is refused by one of the classes, with a message without such words."""
    with pytest.raises(classes or (penstock.Error,)) as refusal:
        call()
    sentence = str(refusal.value)
    assert sentence
    assert not any(word in sentence for word in MACHINERY), sentence
    assert len(sentence) < 400, sentence
    return sentence


NAMES = [None, b"steps", 7, 1.5, ["a"], object(), Unprintable(), "x" * 100_000, "\udc80", True]
NAMED = {
    "Broadcast.create": lambda name: penstock.Broadcast.create(name, readers=1),
    "Broadcast.attach": lambda name: penstock.Broadcast.attach(name, rank=0),
    "Queue.create": penstock.Queue.create,
    "Queue.attach": penstock.Queue.attach,
    "Store.create": penstock.Store.create,
    "Store.attach": penstock.Store.attach,
    "TrajectoryReader.create": TrajectoryReader.create,
    "TrajectoryReader.attach": TrajectoryReader.attach,
    "TrajectoryWriter.create": TrajectoryWriter.create,
    "TrajectoryWriter.attach": TrajectoryWriter.attach,
    "inspect": inspect.inspect,
    "summarize": inspect.summarize,
    "remove_if_abandoned": inspect.remove_if_abandoned,
}


@pytest.mark.parametrize("call", NAMED.values(), ids=NAMED)
def test_names_of_other_types(call) -> None:
    for name in NAMES:
        if name is None and call is NAMED["Broadcast.create"]:
            continue  # anonymous
        sentence = refused(lambda name=name: call(name), penstock.InvalidName)
        assert "name" in sentence
        if not isinstance(name, str):
            refused(lambda name=name: call(name), TypeError)


@pytest.mark.parametrize("call", NAMED.values(), ids=NAMED)
def test_the_empty_name_is_refused(call) -> None:
    refused(lambda: call(""), penstock.InvalidName)


@pytest.mark.parametrize("as_name", [Path, str, lambda path: f"file:{path}"])
def test_a_path_is_the_name_of_a_file_segment(tmp_path: Path, as_name, monkeypatch) -> None:
    path = tmp_path / "here"
    if as_name is str:
        refused(lambda: penstock.Queue.create(str(path)), penstock.InvalidName)
        return
    with penstock.Queue.create(as_name(path)) as queue:
        assert queue.name == f"file:{path}"
        assert path.exists()
        monkeypatch.chdir(tmp_path)
        with penstock.Queue.attach(Path("here")) as other:
            other.put(1)
        with penstock.Queue.attach(queue.handle) as other:
            assert other.get(timeout=0) == 1
        assert inspect.inspect(path).segment.name == f"file:{path}"
    assert not path.exists()


def test_paths_name_segments_of_every_kind(tmp_path: Path) -> None:
    with (
        penstock.Broadcast.create(tmp_path / "w", readers=1) as writer,
        penstock.Broadcast.attach(tmp_path / "w", rank=0) as reader,
        penstock.Store.create(tmp_path / "s", capacity="1MiB") as store,
        penstock.Store.attach(tmp_path / "s") as other,
        TrajectoryReader.create(tmp_path / "t"),
        TrajectoryWriter.attach(tmp_path / "t"),
    ):
        writer.send(1)
        assert reader.recv(timeout=0) == 1
        assert reader.name == writer.name == f"file:{tmp_path}/w"
        store.put("key", 2)
        assert other.get_copy("key") == 2


SIZE = [None, b"1", 1.5, [], object(), True, Unprintable(), "lots", -1]
COUNT = [None, "1", b"1", 1.5, [], object(), True, Unprintable(), -1, 2**70]
FLAG = [None, "yes", 1, b"", [], Unprintable()]
REAL = [None, "1", b"1", [], object(), Unprintable(), float("nan")]
WORD = [None, b"any", 7, object(), Unprintable(), "unheard-of"]
MEMORY = {"populate": FLAG, "lock_memory": FLAG, "huge_pages": FLAG}
CREATED = {
    penstock.Broadcast.create: {
        "readers": COUNT,
        "capacity": SIZE,
        "large": SIZE,
        "on_reader_death": WORD,
        "codec": WORD[1:],
        **MEMORY,
        "numa_node": COUNT[1:],
        "waiting": WORD,
    },
    penstock.Queue.create: {
        "capacity": SIZE,
        "slots": COUNT,
        "inline_bytes": COUNT,
        "participants": COUNT,
        "max_deliveries": COUNT,
        "ends_with": WORD,
        "waiting": WORD,
        "codec": WORD[1:],
        **MEMORY,
    },
    penstock.Store.create: {
        "capacity": SIZE,
        "objects": COUNT[1:-1],
        "participants": COUNT,
        "eviction": WORD,
        "waiting": WORD,
        "granule": SIZE[1:],
        "persistent": FLAG,
        "codec": WORD[1:],
        **MEMORY,
    },
    TrajectoryReader.create: {
        "sequences": COUNT,
        "max_staleness": COUNT[1:],
        "capacity": SIZE,
        "slots": COUNT,
        "participants": COUNT,
        "max_deliveries": COUNT,
        "ends_with": WORD,
        "waiting": WORD,
        **MEMORY,
    },
    TrajectoryWriter.create: {
        "environment": WORD[:-1],
        "weight": REAL,
        "min_share": REAL,
        "group_size": COUNT,
        "env_id": ["1", b"1", 1.5, [], object(), True, 2**70],
    },
}


@pytest.mark.parametrize("create", CREATED, ids=lambda create: create.__qualname__)
def test_options_of_other_types(create, name: str) -> None:
    for option, values in CREATED[create].items():
        for value in values:
            given = {"readers": 1} if create is penstock.Broadcast.create else {}
            given[option] = value
            sentence = refused(lambda given=given: create(name, **given), penstock.InvalidArgument)
            assert option in sentence or "size" in sentence, sentence
    with pytest.raises(penstock.NotFound):
        inspect.summarize(name)


ATTACHED = {
    "rank": (penstock.Broadcast.attach, COUNT),
    "role": (penstock.Queue.attach, WORD),
    "sequences": (TrajectoryReader.attach, COUNT),
    "environment": (TrajectoryWriter.attach, WORD[:-1]),
}
TIMEOUT = ["1", b"1", [], object(), Unprintable(), -1, float("nan")]


@pytest.mark.parametrize("option", ATTACHED)
def test_options_of_attach(option: str, name: str) -> None:
    attach, values = ATTACHED[option]
    for value in values:
        sentence = refused(
            lambda value=value: attach(name, **{option: value}), penstock.InvalidArgument
        )
        assert option in sentence
    more = {"rank": 0} if option == "rank" else {}
    for value in TIMEOUT:
        refused(lambda value=value: attach(name, timeout=value, **more), penstock.InvalidArgument)


def test_arguments_of_methods(name: str) -> None:
    with (
        penstock.Broadcast.create(f"{name}-w", readers=1) as writer,
        penstock.Broadcast.attach(f"{name}-w", rank=0) as reader,
        penstock.Queue.create(f"{name}-q") as queue,
        penstock.Store.create(f"{name}-s", capacity="1MiB") as store,
        TrajectoryReader.create(f"{name}-t", sequences=1) as trainer,
        TrajectoryWriter.attach(f"{name}-t") as environment,
    ):
        store.put("key", 1)
        token = [np.arange(3, dtype=np.int32)]
        environment.put(TrajectoryGroup(token, masks=token, scores=[0.0]))
        batch = trainer.next_batch(timeout=0)
        keys = (None, 7, 1.5, [], object(), Unprintable())
        table = [
            (lambda v: writer.send_bytes(v), (None, 7, "text", object())),
            (lambda v: writer.loan(v), SIZE),
            (lambda v: reader.recv_bytes_into(v), (None, 7, "text")),
            (lambda v: queue.put_bytes(v), (None, 7, "text")),
            (lambda v: queue.get_many(v), COUNT),
            (lambda v: queue.get_many(4, v), COUNT),
            (lambda v: store.put(v, 1), keys),
            (lambda v: store.put_bytes("new", v), (None, 7, "text")),
            (lambda v: store.put("new", 1, weight=v), COUNT),
            (lambda v: store.put("new", 1, expires_after=v), ("1", [], object(), -1)),
            (lambda v: store.reserve(v, 10), keys),
            (lambda v: store.reserve("new", v), SIZE[1:]),
            (lambda v: store.reserve("new", 8, alignment=v), SIZE[1:]),
            (lambda v: store.get(v), keys),
            (lambda v: store.get_copy(v), keys),
            (lambda v: store.look(v), keys),
            (lambda v: store.wait(v, timeout=0), keys),
            (lambda v: store.delete(v), keys),
            (lambda v: store.touch(v), keys),
            (lambda v: store.retain(v), keys),
            (lambda v: store.release(v), keys),
            (lambda v: v in store, keys),
            (lambda v: store.trim(v), SIZE),
            (lambda v: store.get_ref((v, 1)), COUNT),
            (lambda v: store.get_ref((1, v)), COUNT),
            (lambda v: trainer.next_batch(v, timeout=0), COUNT[1:]),
            (lambda v: trainer.next_batch(drop_stale=v, timeout=0), FLAG),
            (lambda v: trainer.next_batch(causal_shift=v, timeout=0), FLAG),
            (lambda v: trainer.next_batch(lookahead=v, timeout=0), COUNT[1:]),
            (lambda v: batch.ack(v), ("1", 1.5, [], object(), -1)),
            (lambda v: penstock.parse_size(v), (None, 7, b"1MiB", [])),
        ]
        for row, (call, values) in enumerate(table):
            for value in values:
                print(f"row {row} of the table: a {type(value).__name__}")  # shown on failure
                refused(lambda call=call, value=value: call(value))
        timed = (
            lambda v: writer.send(1, v),
            lambda v: writer.wait_ready(v),
            lambda v: reader.recv(v),
            lambda v: reader.recv_view(v),
            lambda v: queue.put(1, v),
            lambda v: queue.get(v),
            lambda v: queue.get_many(timeout=v),
            lambda v: store.wait("none", v),
            lambda v: trainer.next_batch(timeout=v),
            lambda v: environment.begin(timeout=v),
        )
        for call in timed:
            for value in TIMEOUT:
                sentence = refused(
                    lambda call=call, value=value: call(value), penstock.InvalidArgument
                )
                assert "timeout" in sentence
        assert queue.stats().accepted == 0
        batch.ack(1)


@pytest.mark.parametrize(
    "cls",
    [
        penstock.Broadcast,
        penstock.BroadcastWriter,
        penstock.BroadcastReader,
        penstock.Queue,
        penstock.Store,
        TrajectoryReader,
        TrajectoryWriter,
    ],
)
def test_classes_without_constructor_name_their_factory(cls) -> None:
    for arguments in ((), ("name",), (None,)):
        sentence = refused(lambda arguments=arguments: cls(*arguments), TypeError)
        assert "create()" in sentence or "attach()" in sentence


def test_errors_of_type_can_be_told_apart_and_pickled() -> None:
    import pickle

    with pytest.raises(penstock.InvalidArgument) as wrong_type:
        penstock.Broadcast.create("x", readers="1")
    assert isinstance(wrong_type.value, TypeError | ValueError)
    again = pickle.loads(pickle.dumps(wrong_type.value))
    assert type(again) is type(wrong_type.value)
    with pytest.raises(penstock.InvalidArgument) as wrong_value:
        penstock.Broadcast.create("x", readers=0)
    assert not isinstance(wrong_value.value, TypeError)
