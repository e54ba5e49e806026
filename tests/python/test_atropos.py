"""The old interface of the trajectory ring, and each defect that it had."""

from __future__ import annotations

import gc
import multiprocessing
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from peers import needs_a_mount, with_own_shm

import penstock
from penstock.integrations.atropos import ZeroCopySHMBuffer, segment_name
from penstock.trajectories import TrajectoryReader


@pytest.fixture
def ring(name: str) -> Iterator[ZeroCopySHMBuffer]:
    made = ZeroCopySHMBuffer(name, size=64, entry_size=4096, create=True)
    yield made
    made.close(unlink=True)


def test_a_trajectory_is_read_as_written(ring: ZeroCopySHMBuffer) -> None:
    assert ring.read_next() is None
    metadata = {"env": "gsm8k", "logprobs": [0.1 * i for i in range(500)]}  # far above 256 bytes
    assert ring.write_trajectory([1, 2, 3], 0.5, "q17", 3, metadata)
    assert ring.write_trajectory([], -1.0)
    assert ring.read_next() == {
        "tokens": [1, 2, 3],
        "score": 0.5,
        "instance_id": "q17",
        "repetition_id": 3,
        "metadata": metadata,
    }
    assert ring.read_next() == {
        "tokens": [],
        "score": -1.0,
        "instance_id": "",
        "repetition_id": 0,
        "metadata": {},
    }
    assert ring.read_next() is None


def test_nothing_is_cut_or_wrapped(ring: ZeroCopySHMBuffer) -> None:
    with pytest.raises(penstock.TooLarge, match="4097 tokens"):
        ring.write_trajectory(list(range(4097)), 0.0)
    with pytest.raises(penstock.TooLarge, match="instance_id"):
        ring.write_trajectory([1], 0.0, "i" * 65)
    with pytest.raises(penstock.InvalidArgument):
        ring.write_trajectory([1.5], 0.0)  # type: ignore[list-item]
    assert ring.write_trajectory([2**31, 5], 0.0, repetition_id=2**40)
    read = ring.read_next()
    assert read is not None
    assert read["tokens"] == [2**31, 5]
    assert read["repetition_id"] == 2**40


def test_full_is_false_and_the_whole_size_is_there(ring: ZeroCopySHMBuffer) -> None:
    for number in range(64):
        assert ring.write_trajectory([number] * 4096, float(number))
    assert not ring.write_trajectory([64], 0.0)
    assert len(ring) == 64
    for number in range(64):
        read = ring.read_next()
        assert read is not None
        assert read["tokens"] == [number] * 4096


def test_a_name_alone_takes_the_geometry_from_the_segment(name: str) -> None:
    made = ZeroCopySHMBuffer(name, size=7, entry_size=12, instance_id_len=200, create=True)
    for given in ({}, {"size": 7}, {"entry_size": 12}, {"size": 7, "entry_size": 12}):
        other = ZeroCopySHMBuffer(name, **given)
        assert (other.max_size, other.entry_size) == (7, 12)
        assert other.write_trajectory(range(12), 0.5, instance_id="i" * 200)
        with pytest.raises(penstock.TooLarge):
            other.write_trajectory(range(13), 0.5)
        read = made.read_next()
        assert read is not None
        assert read["tokens"] == list(range(12))
        other.close()
    made.close(unlink=True)


def test_a_differing_geometry_is_reported(ring: ZeroCopySHMBuffer) -> None:
    for given, words in (
        ({"size": 65}, "size=65 was given, and 64 trajectories"),
        ({"entry_size": 512}, "entry_size=512 was given, and a trajectory may have 4096"),
        ({"size": 1280, "entry_size": 2048}, "size=1280 .*; entry_size=2048"),
        ({"size": np.int64(1000), "entry_size": 0}, "size=1000 .*; entry_size=0"),
    ):
        with pytest.warns(RuntimeWarning, match=words) as told:
            other = ZeroCopySHMBuffer(ring.name, **given)
        assert told[0].filename == __file__
        assert (other.max_size, other.entry_size) == (64, 4096)
        assert other.write_trajectory([1] * 4096, 0.5)
        read = ring.read_next()
        assert read is not None
        assert read["tokens"] == [1] * 4096
        other.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for same in ({}, {"size": 64}, {"size": 10}, {"entry_size": 4096}):  # holds as many
            ZeroCopySHMBuffer(ring.name, **same).close()
    for wrong in ({"size": "64"}, {"entry_size": 1.5}):
        with pytest.raises(penstock.InvalidArgument, match="give a whole number"):
            ZeroCopySHMBuffer(ring.name, **wrong)


def test_impossible_geometries_are_refused(name: str) -> None:
    for wrong in ({"size": 0}, {"size": 1 << 20}, {"entry_size": 0}, {"entry_size": 1 << 28}):
        with pytest.raises(penstock.InvalidArgument, match="give a whole number from 1"):
            ZeroCopySHMBuffer(name, create=True, **wrong)


def test_arguments_in_the_places_of_the_first_version(name: str) -> None:
    made = ZeroCopySHMBuffer(name, 100, 512, True)
    assert (made.max_size, made.entry_size) == (100, 512)
    assert made.write_trajectory([1, 2], 0.5, {"env": "gsm8k"})
    assert made.write_trajectory([3], 1.5, None)
    other = ZeroCopySHMBuffer(name, 100, 512, False)
    read = other.read_next()
    assert read is not None
    assert (read["tokens"], read["score"], read["metadata"]) == ([1, 2], 0.5, {"env": "gsm8k"})
    assert read["instance_id"] == ""
    read = other.read_next()
    assert read is not None
    assert read["metadata"] == {}
    with pytest.raises(penstock.InvalidArgument, match="give text"):
        made.write_trajectory([1], 0.5, 7)  # type: ignore[call-overload]
    with pytest.raises(penstock.InvalidArgument, match="give text"):
        made.write_trajectory([1], 0.5, {"a": 1}, 0, {"b": 2})  # type: ignore[call-overload]
    made.close(unlink=True)


def test_rep_id_is_another_name(ring: ZeroCopySHMBuffer) -> None:
    assert ring.write_trajectory(tokens=[1], score=0.5, instance_id="i1", rep_id=3)
    assert ring.write_trajectory([1], 0.5, "i1", 4)
    for repetition in (3, 4):
        read = ring.read_next()
        assert read is not None
        assert (read["instance_id"], read["repetition_id"]) == ("i1", repetition)


def test_every_text_is_a_name_of_its_own(name: str) -> None:
    names = [f"{name} run/3", f"{name}_run_3", f"{name}-run 3", f"{name}é", f"/{name}", "x" * 300]
    names += ["x" * 301, segment_name(names[0]) + ".", "atropos-name.x"]
    assert len({segment_name(one) for one in names}) == len(names)
    assert segment_name(f"{name}_run_3") == f"{name}_run_3"
    made = [ZeroCopySHMBuffer(one, size=4, entry_size=8, create=True) for one in names]
    for number, one in enumerate(names):
        ring = ZeroCopySHMBuffer(one)
        assert ring.write_trajectory([number], 0.0)
        ring.close()
    for number, ring in enumerate(made):
        read = ring.read_next()
        assert read is not None
        assert read["tokens"] == [number]
        assert ring.read_next() is None
        ring.close(unlink=True)
    for wrong in ("", None, 7):
        with pytest.raises(penstock.InvalidName):
            ZeroCopySHMBuffer(wrong)  # type: ignore[arg-type]


def test_made_again_by_its_process_it_is_the_same_ring(name: str) -> None:
    """A server that registers several trainers creates the ring at each call, and keeps the last
    one."""
    server = ZeroCopySHMBuffer(name, size=64, entry_size=128, create=True)
    environment = ZeroCopySHMBuffer(name)
    assert environment.write_trajectory([1], 0.0)
    server = ZeroCopySHMBuffer(name, size=64, entry_size=128, create=True)
    gc.collect()
    assert environment.write_trajectory([2], 0.0)  # the stream goes on
    assert server.write_trajectory([3], 0.0)
    with pytest.warns(RuntimeWarning, match="size=32 .*entry_size=256"):  # others rely on it
        server = ZeroCopySHMBuffer(name, size=32, entry_size=256, create=True)
    assert (server.max_size, server.entry_size) == (64, 128)
    for number in (1, 2, 3):
        read = server.read_next()
        assert read is not None
        assert read["tokens"] == [number]
    environment.close()
    server.close(unlink=True)
    with pytest.raises(penstock.NotFound):
        ZeroCopySHMBuffer(name)


def test_made_again_larger_it_keeps_its_trajectories(name: str) -> None:
    first = ZeroCopySHMBuffer(name, size=4, entry_size=8, create=True)
    assert first.write_trajectory([1] * 8, 0.5, "q", 2, {"a": 1})
    second = ZeroCopySHMBuffer(name, size=16, entry_size=32, create=True)
    assert (first.entry_size, second.max_size, second.entry_size) == (32, 16, 32)
    assert first.write_trajectory([2] * 32, 0.5)
    first.close()
    waiting = [ZeroCopySHMBuffer(name).read_next() for _ in range(2)]
    assert waiting == [
        {
            "tokens": [1] * 8,
            "score": 0.5,
            "instance_id": "q",
            "repetition_id": 2,
            "metadata": {"a": 1},
        },
        {
            "tokens": [2] * 32,
            "score": 0.5,
            "instance_id": "",
            "repetition_id": 0,
            "metadata": {},
        },
    ]
    gc.collect()
    assert second.write_trajectory([3] * 32, 0.5)
    with pytest.warns(RuntimeWarning, match="entry_size=8"):  # no room for waiting trajectories
        ZeroCopySHMBuffer(name, size=16, entry_size=8, create=True)
    read = second.read_next()
    assert read is not None
    assert read["tokens"] == [3] * 32
    second.close(unlink=True)


def test_a_queue_that_is_no_ring_is_refused(name: str) -> None:
    with (
        penstock.Queue.create(name, capacity="1MiB"),
        pytest.raises(penstock.Incompatible, match="trajectory buffer"),
    ):
        ZeroCopySHMBuffer(name)


def test_tokens_from_an_iterator(ring: ZeroCopySHMBuffer) -> None:
    assert ring.write_trajectory((token for token in (1, 2)), 0.0)
    assert ring.write_trajectory(map(int, "34"), 0.0)
    for tokens in ([1, 2], [3, 4]):
        read = ring.read_next()
        assert read is not None
        assert read["tokens"] == tokens


def test_errors_name_the_application_of_a_queue(ring: ZeroCopySHMBuffer, name: str) -> None:
    with pytest.raises(penstock.Incompatible, match=r"of single trajectories \(a ZeroCopySHMBuf"):
        penstock.Queue.attach(ring.name)
    with pytest.raises(penstock.Incompatible, match=r"single traj.*, and one of groups of traj"):
        TrajectoryReader.attach(ring.name)
    other = f"{name}.groups"
    with (
        TrajectoryReader.create(other),
        pytest.raises(penstock.Incompatible, match="queue of groups of trajectories, whose"),
    ):
        penstock.Queue.attach(other)
    with (
        penstock.Queue.create(other, capacity="1MiB"),
        pytest.raises(penstock.Incompatible, match="plain messages, and one of groups"),
    ):
        TrajectoryReader.attach(other)


def _create(name: str) -> str:
    try:
        ZeroCopySHMBuffer(name, size=64, create=True)
    except penstock.AlreadyExists:
        return "refused"
    return "created"


def test_another_processes_ring_is_not_replaced(ring: ZeroCopySHMBuffer) -> None:
    assert ring.write_trajectory([1], 0.0)
    for method in ("spawn", "fork"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.apply(_create, (ring.name,)) == "refused"
    other = ZeroCopySHMBuffer(ring.name, size=64)
    other.close(unlink=True)  # another is attached: nothing is discarded
    read = ring.read_next()
    assert read is not None
    assert read["tokens"] == [1]


@pytest.mark.parametrize(
    "tokens",
    [
        [],
        [0, -1, 2**31 - 1, -(2**31)],
        [2**31],
        [5, -(2**63), 2**63 - 1],
        (1, 2, 3),
        [True, 7],
        [np.int64(3), 4],
        np.arange(5, dtype=np.uint16),
        range(3),
    ],
)
def test_tokens_of_every_kind(ring: ZeroCopySHMBuffer, tokens: Any) -> None:
    assert ring.write_trajectory(tokens, 0.0)
    read = ring.read_next()
    assert read is not None
    assert read["tokens"] == [int(token) for token in tokens]
    assert all(type(token) is int for token in read["tokens"])


@pytest.mark.parametrize("tokens", [[1.5], ["1"], [None], [[1]], [2**64], "12", {1, 2}, 7])
def test_invalid_tokens_are_refused(ring: ZeroCopySHMBuffer, tokens: Any) -> None:
    with pytest.raises(penstock.InvalidArgument, match="give a list of ints"):
        ring.write_trajectory(tokens, 0.0)
    assert len(ring) == 0


def test_a_name_that_is_not_there(name: str) -> None:
    with pytest.raises(penstock.NotFound):
        ZeroCopySHMBuffer(name)


def _produce(name: str, rank: int, count: int) -> None:
    ring = ZeroCopySHMBuffer(name, size=64)
    for number in range(count):
        tokens = [rank * 100_000 + number] * (1 + number % 300)
        while not ring.write_trajectory(tokens, float(number), f"r{rank}", number):
            pass
    ring.close()


def test_four_producers_lose_tear_and_mix_nothing(ring: ZeroCopySHMBuffer) -> None:
    count = 500
    spawn = multiprocessing.get_context("spawn")
    crew = [spawn.Process(target=_produce, args=(ring.name, rank, count)) for rank in range(4)]
    for process in crew:
        process.start()
    following = [0] * 4
    while sum(following) < 4 * count:
        read: dict[str, Any] | None = ring.read_next()
        if read is None:
            assert any(process.is_alive() for process in crew) or len(ring) > 0
            continue
        rank, number = int(read["instance_id"][1:]), read["repetition_id"]
        assert number == following[rank]  # in order, once
        assert read["tokens"] == [rank * 100_000 + number] * (1 + number % 300)
        assert read["score"] == number
        following[rank] += 1
    for process in crew:
        process.join()
        assert process.exitcode == 0


@needs_a_mount
def test_a_ring_that_could_not_be_replaced_keeps_its_trajectories() -> None:
    script = """
        import sys, warnings
        from penstock.integrations.atropos import ZeroCopySHMBuffer
        ring = ZeroCopySHMBuffer(sys.argv[1], 100, 512, create=True)
        for number in range(50):
            assert ring.write_trajectory([number], 1.0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            again = ZeroCopySHMBuffer(sys.argv[1], 1_000_000, 512, create=True)
        assert "keeps the numbers" in str(caught[0].message)
        assert (again.max_size, len(again)) == (100, 50)
        assert [ring.read_next()["tokens"] for _ in range(50)] == [[at] for at in range(50)]
    """
    outcome = with_own_shm(script, "ring", mount="size=16m")
    assert outcome.returncode == 0, outcome.stderr
