"""Memory of received arrays is that of earlier ones, but never while anything refers to it."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from peers import WITHIN, eventually

import penstock
from penstock import _core
from penstock.trajectories import TrajectoryGroup, TrajectoryReader, TrajectoryWriter

KIB, MIB = 1 << 10, 1 << 20
BLOCK = 1 * MIB

Give = Callable[[Any], Any]  # what is sent, to what is received


@contextlib.contextmanager
def broadcast(name: str) -> Iterator[Give]:
    with (
        penstock.Broadcast.create(name, readers=1) as writer,
        penstock.Broadcast.attach(name, rank=0) as reader,
    ):

        def give(value: Any) -> Any:
            writer.send(value)
            return reader.recv(timeout=WITHIN)

        yield give


@contextlib.contextmanager
def queue(name: str) -> Iterator[Give]:
    with penstock.Queue.create(name) as both:

        def give(value: Any) -> Any:
            both.put(value)
            return both.get(timeout=WITHIN)

        yield give


@contextlib.contextmanager
def store(name: str) -> Iterator[Give]:
    with penstock.Store.create(name, capacity="64MiB") as both:

        def give(value: Any) -> Any:
            both.put("key", value)
            got = both.get_copy("key")
            both.delete("key")
            return got

        yield give


@contextlib.contextmanager
def store_of_arrays(name: str) -> Iterator[Give]:
    with penstock.Store.create(name, capacity="64MiB") as both:

        def give(value: Any) -> Any:
            with both.reserve("key", shape=value.shape, dtype=value.dtype) as room:
                room[...] = value
            got = both.get_copy("key")
            both.delete("key")
            return got

        yield give


@contextlib.contextmanager
def pickled(name: str) -> Iterator[Give]:
    with penstock.Queue.create(name, codec="pickle") as both:

        def give(value: Any) -> Any:
            both.put([frozenset(), value])  # the typed codec has no sets
            return both.get(timeout=WITHIN)[1]

        yield give


CONCEPTS = (broadcast, queue, store, store_of_arrays, pickled)


def address_of(array: Any) -> int:
    return int(array.ctypes.data)


@pytest.mark.parametrize("concept", CONCEPTS)
def test_an_array_lies_where_the_last_one_lay(name: str, concept: Any) -> None:
    with concept(name) as give:
        first = give(np.full(BLOCK, 1, np.uint8))
        address = address_of(first)
        assert address % 64 == 0
        before = penstock.memory_stats()
        del first
        second = give(np.full(BLOCK, 2, np.uint8))
        after = penstock.memory_stats()
        assert address_of(second) == address
        assert (second == 2).all()
        assert second.flags.writeable
        assert (after.recycled, after.fresh) == (before.recycled + 1, before.fresh)
        assert after.in_use_bytes == before.in_use_bytes


@pytest.mark.parametrize("concept", CONCEPTS)
def test_an_array_that_is_kept_stays_as_it_is(name: str, concept: Any) -> None:
    with concept(name) as give:
        kept = [give(np.full(BLOCK, number, np.uint8)) for number in range(4)]
        for number, array in enumerate(kept):
            assert (array == number).all()


def references(torch: Any) -> dict[str, Callable[[Any], Any]]:
    """Whatever may be the last reference to an array's memory."""
    made: dict[str, Callable[[Any], Any]] = {
        "slice": lambda array: array[3:5, 2:9],
        "reshaped": lambda array: array.reshape(-1)[::2],
        "memoryview": lambda array: memoryview(array)[3:],
        "base": lambda array: array.base,
        "frombuffer": lambda array: np.frombuffer(memoryview(array).cast("B"), np.uint8),
        "dlpack": np.from_dlpack,
    }
    if torch is not None:
        made["torch.from_numpy"] = torch.from_numpy
        made["torch slice"] = lambda array: torch.from_numpy(array)[7:]
        made["torch dlpack"] = torch.from_dlpack
    return made


def test_any_reference_keeps_the_memory(name: str) -> None:
    try:
        import torch
    except ImportError:
        torch = None
    with broadcast(name) as give:
        for kind, refer in references(torch).items():
            array = give(np.full((1024, 1024), 7, np.uint8))
            address = address_of(array)
            last = refer(array)
            del array
            gc.collect()
            other = give(np.full((1024, 1024), 9, np.uint8))
            assert address_of(other) != address, kind
            assert set(np.asarray(last).reshape(-1)) == {7}, kind
            in_use = penstock.memory_stats().in_use_bytes
            del last
            gc.collect()
            assert penstock.memory_stats().in_use_bytes == in_use - BLOCK, kind
            assert address_of(give(np.full((1024, 1024), 5, np.uint8))) == address, kind
            assert (other == 9).all(), kind


def test_tensors_take_part(name: str) -> None:
    torch = pytest.importorskip("torch")
    with broadcast(name) as give:
        tensor = give(torch.full((1024, 1024), 7, dtype=torch.uint8))
        address = tensor.data_ptr()
        corner = tensor[3:5, 2:9]
        array = corner.numpy()
        del tensor, corner
        other = give(torch.full((1024, 1024), 9, dtype=torch.uint8))
        assert other.data_ptr() != address
        assert (array == 7).all()
        del array
        again = give(torch.full((1024, 1024), 5, dtype=torch.uint8))
        assert again.data_ptr() == address
        assert bool((again == 5).all())


def test_a_shorter_array_shows_nothing_of_the_last_one(name: str) -> None:
    with broadcast(name) as give:
        first = give(np.full(BLOCK, 0xEE, np.uint8))
        address = address_of(first)
        del first
        second = give(np.full(BLOCK - 4000, 1, np.uint8))
        assert address_of(second) == address
        assert memoryview(second.base).nbytes == second.nbytes
        assert (np.frombuffer(second.base, np.uint8) == 1).all()


def test_short_arrays_and_bytes_are_left_to_python(name: str) -> None:
    with broadcast(name) as give:
        before = penstock.memory_stats()
        short = give(np.zeros(127 * KIB, np.uint8))
        text = give(b"x" * BLOCK)
        changeable = give(bytearray(BLOCK))
        assert type(text) is bytes
        assert type(changeable) is bytearray
        assert short.nbytes == 127 * KIB
        after = penstock.memory_stats()
        assert (after.recycled, after.fresh) == (before.recycled, before.fresh)


def test_it_keeps_no_more_than_its_limit() -> None:
    """None of this memory is touched."""
    limit = penstock.memory_stats().limit_bytes
    assert 0 < limit <= 256 * MIB
    buffers = [_core.new_memory(limit // 3) for _ in range(4)]
    in_use = penstock.memory_stats().in_use_bytes
    assert in_use >= 4 * (limit // 3)
    buffers.clear()
    after = penstock.memory_stats()
    assert 0 < after.kept_bytes <= limit
    assert after.in_use_bytes <= in_use - 4 * (limit // 3)
    largest = _core.new_memory(limit + MIB)
    del largest
    assert penstock.memory_stats().kept_bytes <= limit


def test_a_process_that_waits_gives_it_back(name: str) -> None:
    with (
        penstock.Broadcast.create(name, readers=1) as writer,
        penstock.Broadcast.attach(name, rank=0) as reader,
    ):
        writer.send(np.zeros(BLOCK, np.uint8))
        reader.recv(timeout=WITHIN)
        before = penstock.memory_stats()
        assert before.kept_bytes >= BLOCK

        def has_given_back() -> bool:
            with contextlib.suppress(penstock.Timeout):
                reader.recv(timeout=0.5)
            return penstock.memory_stats().kept_bytes == 0

        eventually(has_given_back)
        assert penstock.memory_stats().returned_bytes >= before.returned_bytes + BLOCK


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_memory_of_its_own(name: str) -> None:
    def child() -> None:
        assert penstock.memory_stats().kept_bytes == 0
        nonlocal array
        assert (array == 1).all()
        array[...] = 2
        address = address_of(array)
        del array
        own = _core.codec_decode(message)
        assert address_of(own) == address
        assert (own == 3).all()

    message = _core.codec_encode(np.full(BLOCK, 3, np.uint8))
    with broadcast(name) as give:
        array = give(np.full(BLOCK, 1, np.uint8))
        give(np.zeros(3 * BLOCK, np.uint8))
        kept = penstock.memory_stats().kept_bytes
        assert kept >= 3 * BLOCK
        pid = os.fork()
        if pid == 0:
            try:
                signal.alarm(int(WITHIN))
                child()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert penstock.memory_stats().kept_bytes == kept
        assert (array == 1).all()


def test_threads_share_it() -> None:
    messages = [_core.codec_encode(np.full(BLOCK, number, np.uint8)) for number in range(4)]
    failures: list[str] = []

    def decode(number: int) -> None:
        kept = [_core.codec_decode(messages[number])]
        for _ in range(50):
            kept = [_core.codec_decode(messages[number]), kept[0]]
            if any((array != number).any() for array in kept):
                failures.append(f"an array of thread {number} changed")

    in_use = penstock.memory_stats().in_use_bytes
    threads = [threading.Thread(target=decode, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert penstock.memory_stats().in_use_bytes == in_use


def test_arrays_outlive_the_interpreter() -> None:
    program = """
import numpy as np
from penstock import _core
message = _core.codec_encode({"array": np.ones(1 << 20), "more": np.ones(1 << 20)})
value = _core.codec_decode(message)
value["cycle"] = value
try:
    import torch
    tensor = _core.codec_decode(_core.codec_encode(torch.ones(1 << 20)))
except ImportError:
    pass
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=WITHIN)


def test_no_memory_is_an_error() -> None:
    before = penstock.memory_stats().in_use_bytes
    with pytest.raises(MemoryError):
        _core.new_memory(1 << 62)
    assert penstock.memory_stats().in_use_bytes == before


def test_zero_bytes() -> None:
    assert np.ndarray((0, 4), np.int32, buffer=_core.new_memory(0)).size == 0


def test_batches_take_turns(name: str) -> None:
    """A batch that is still held is not overwritten by the next; one that is gone is."""
    with (
        TrajectoryReader.create(name, sequences=2) as reader,
        TrajectoryWriter.attach(name) as writer,
    ):
        for number in range(3):
            writer.put(TrajectoryGroup([[number] * 20_000] * 2))
        held = reader.next_batch(columns=["tokens"], timeout=WITHIN)
        second = reader.next_batch(columns=["tokens"], timeout=WITHIN)
        assert not np.shares_memory(held.tokens, second.tokens)
        address = second.tokens.ctypes.data
        second.ack()
        del second
        third = reader.next_batch(columns=["tokens"], timeout=WITHIN)
        assert third.tokens.ctypes.data == address
        assert (held.tokens[held.padding_mask] == 0).all()
        assert (third.tokens[third.padding_mask] == 2).all()
        held.ack()
        third.ack()
