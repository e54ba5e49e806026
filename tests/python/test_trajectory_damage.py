"""Groups in shared memory that a faulty peer has written over: Corrupt, or the group, and no other
exception."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import penstock
from penstock.trajectories import TrajectoryGroup, TrajectoryReader, TrajectoryWriter

# The description of a message, in its slot: size below, format above; plain bytes have format 0.
SIZE_MASK = (1 << 40) - 1
FORMAT_MASK = 7 << 40
TYPED = 1 << 40


@pytest.fixture
def trainer(name: str) -> Iterator[TrajectoryReader]:
    with TrajectoryReader.create(
        name, sequences=1, capacity="1MiB", slots=16, max_deliveries=1
    ) as made:
        yield made
        made.discard()


@pytest.fixture
def memory(trainer: TrajectoryReader) -> Iterator[mmap.mmap]:
    with (
        Path(f"/dev/shm/penstock.{trainer.name}").open("r+b") as file,
        mmap.mmap(file.fileno(), 0) as mapped,
    ):
        yield mapped


def put_group(trainer: TrajectoryReader) -> None:
    with TrajectoryWriter.attach(trainer.name, environment="math") as writer:
        writer.put(TrajectoryGroup([np.arange(5, dtype=np.int32)]))


def overwrite(memory: mmap.mmap, old: bytes, new: bytes) -> None:
    """Every place of the old bytes."""
    places = 0
    at = memory.find(old)
    while at >= 0:
        memory[at : at + len(old)] = new
        places += 1
        at = memory.find(old, at + 1)
    assert places, f"{old!r} is nowhere in the segment"


def call_plain(memory: mmap.mmap, nbytes: int) -> None:
    """Say of the typed message of this size that it is plain bytes."""
    for at in range(0, len(memory), 8):
        (word,) = struct.unpack_from("<Q", memory, at)
        if word & SIZE_MASK == nbytes and word & FORMAT_MASK == TYPED:
            struct.pack_into("<Q", memory, at, word ^ TYPED)


def test_the_format_of_a_dead_letter_is_not_believed(
    trainer: TrajectoryReader, memory: mmap.mmap
) -> None:
    put_group(trainer)
    batch = trainer.next_batch(timeout=10)
    assert batch is not None
    batch.nack()
    (letter,) = trainer.dead_letters()
    call_plain(memory, letter.nbytes)
    (letter,) = trainer.dead_letters()
    assert letter.format == "bytes"
    assert letter.content().environment == "math"
    trainer.drop_dead_letters()


@pytest.mark.parametrize("key", ["environment", "begun", "lengths"])
def test_a_group_that_changes_after_its_check_is_corrupt(
    trainer: TrajectoryReader, memory: mmap.mmap, key: str
) -> None:
    put_group(trainer)
    batch = trainer.next_batch(timeout=10)
    assert batch is not None
    overwrite(memory, key.encode(), key.upper().encode())
    with pytest.raises(penstock.Corrupt, match="has changed since it was checked"):
        _ = batch.groups
    overwrite(memory, key.upper().encode(), key.encode())
    assert batch.groups[0].environment == "math"
    batch.ack()
