"""The old interface of the trajectory ring, and each defect that it had."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from typing import Any

import pytest

import penstock
from penstock.integrations.atropos import ZeroCopySHMBuffer


@pytest.fixture
def ring(name: str) -> Iterator[ZeroCopySHMBuffer]:
    made = ZeroCopySHMBuffer(name, size=64, entry_size=4096, create=True)
    yield made
    made.close(unlink=True)


def test_what_is_written_is_read(ring: ZeroCopySHMBuffer) -> None:
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


def test_numbers_that_were_given_and_differ_are_refused(ring: ZeroCopySHMBuffer) -> None:
    for given, words in (
        ({"size": 65}, "not of the size that"),
        ({"entry_size": 512}, "not of the entry_size that"),
        ({"size": 1000, "entry_size": 2048}, "not of the size and entry_size that"),
    ):
        with pytest.raises(penstock.Incompatible, match="size 64 and entry_size 4096") as refused:
            ZeroCopySHMBuffer(ring.name, **given)
        assert words in str(refused.value)
    for wrong in (
        {"size": "64"},
        {"size": 0},
        {"size": 1 << 20},
        {"entry_size": 0},
        {"entry_size": 1 << 28},
    ):
        with pytest.raises(penstock.InvalidArgument, match="give a whole number"):
            ZeroCopySHMBuffer(ring.name, **wrong)


def test_what_is_no_ring(name: str) -> None:
    with (
        penstock.Queue.create(name, capacity="1MiB"),
        pytest.raises(penstock.Incompatible, match="trajectory buffer"),
    ):
        ZeroCopySHMBuffer(name)


def test_tokens_that_can_be_gone_through_only_once(ring: ZeroCopySHMBuffer) -> None:
    assert ring.write_trajectory((token for token in (1, 2)), 0.0)
    assert ring.write_trajectory(map(int, "34"), 0.0)
    for tokens in ([1, 2], [3, 4]):
        read = ring.read_next()
        assert read is not None
        assert read["tokens"] == tokens


def test_a_queue_of_the_plain_kind_is_refused(ring: ZeroCopySHMBuffer) -> None:
    with pytest.raises(penstock.Incompatible):
        penstock.Queue.attach(ring.name)


def test_a_living_one_is_not_replaced(ring: ZeroCopySHMBuffer) -> None:
    with pytest.raises(penstock.AlreadyExists):
        ZeroCopySHMBuffer(ring.name, size=64, create=True)
    other = ZeroCopySHMBuffer(ring.name, size=64)
    assert ring.write_trajectory([1], 0.0)
    other.close(unlink=True)  # somebody is attached: nothing is thrown away
    read = ring.read_next()
    assert read is not None
    assert read["tokens"] == [1]


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
