"""Arrays whose memory is reused, but never while it is referenced."""

from __future__ import annotations

import numpy as np

from penstock import _core
from penstock.trajectories import TrajectoryGroup, TrajectoryReader, TrajectoryWriter

LONG = 30.0
BLOCK = 64 << 10


def test_memory_is_reused() -> None:
    pool = _core.ArrayPool()
    first = np.frombuffer(pool.take(BLOCK), np.uint8)
    address = first.ctypes.data
    assert address % 64 == 0
    assert (pool.in_use, pool.kept) == (BLOCK, 0)
    del first
    assert (pool.in_use, pool.kept) == (0, BLOCK)
    again = np.frombuffer(pool.take(BLOCK - 100), np.uint8)
    assert again.ctypes.data == address
    assert len(again) == BLOCK - 100


def test_a_view_keeps_its_memory() -> None:
    pool = _core.ArrayPool()
    corner = np.frombuffer(pool.take(BLOCK), np.uint8).reshape(256, 256)[3:5, 2:9]
    corner[...] = 7
    other = np.frombuffer(pool.take(BLOCK), np.uint8)
    other[...] = 9
    assert not np.shares_memory(corner, other)
    assert (corner == 7).all()
    assert pool.in_use == 2 * BLOCK


def test_no_more_is_kept_than_was_in_use() -> None:
    pool = _core.ArrayPool()
    for size in range(1, 20):
        pool.take(size * BLOCK)
        assert pool.in_use == 0
        assert pool.kept <= size * BLOCK
    pool.take(BLOCK)  # far smaller than the kept memory, which stays
    assert pool.kept <= 19 * BLOCK


def test_memory_outlives_its_pool() -> None:
    array = np.frombuffer(_core.ArrayPool().take(BLOCK), np.uint8)
    array[...] = 5
    assert (array == 5).all()


def test_zero_bytes() -> None:
    assert np.ndarray((0, 4), np.int32, buffer=_core.ArrayPool().take(0)).size == 0


def test_batches_take_turns(name: str) -> None:
    """A batch that is still held is not overwritten by the next; one that is gone is."""
    with (
        TrajectoryReader.create(name, sequences=2) as reader,
        TrajectoryWriter.attach(name) as writer,
    ):
        for number in range(3):
            writer.put(TrajectoryGroup([[number] * 20_000] * 2))
        held = reader.next_batch(columns=["tokens"], timeout=LONG)
        second = reader.next_batch(columns=["tokens"], timeout=LONG)
        assert not np.shares_memory(held.tokens, second.tokens)
        address = second.tokens.ctypes.data
        second.ack()
        del second
        third = reader.next_batch(columns=["tokens"], timeout=LONG)
        assert third.tokens.ctypes.data == address
        assert (held.tokens[held.padding_mask] == 0).all()
        assert (third.tokens[third.padding_mask] == 2).all()
        held.ack()
        third.ack()
