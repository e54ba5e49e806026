"""Offsets of objects in the segment's file: a process without Penstock reads an object there while
it is pinned, and writes it there before it is committed."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import numpy as np
import pytest

import penstock

KIB = 1 << 10
# Copied in from private memory; moved as pages, among pages of others or alone.
SIZES = [1, 64, 100 * KIB, 300 * KIB, (5 << 20) + 12345]


@pytest.fixture
def store(name: str) -> Iterator[penstock.Store]:
    with penstock.Store.create(name, capacity="32MiB") as store:
        store.put_bytes("neighbour before", bytes(1000))
        yield store


def path_of(store: penstock.Store) -> str:
    return f"/dev/shm/penstock.{store.name}"


def in_another_process(program: str, *arguments: object) -> bytes:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    ).stdout


def read_at(store: penstock.Store, offset: int, nbytes: int) -> bytes:
    program = """
        import os, sys
        path, offset, nbytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
        data = os.pread(os.open(path, os.O_RDONLY), nbytes, offset)
        sys.stdout.buffer.write(data)
    """
    return in_another_process(program, path_of(store), offset, nbytes)


def write_at(store: penstock.Store, offset: int, nbytes: int) -> None:
    """Write i * 7 % 256 at byte i, through a mapping, as a pool's engines do."""
    program = """
        import mmap, os, sys
        path, offset, nbytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
        with mmap.mmap(os.open(path, os.O_RDWR), os.stat(path).st_size) as file:
            file[offset:offset + nbytes] = bytes(i * 7 % 256 for i in range(nbytes))
    """
    in_another_process(program, path_of(store), offset, nbytes)


def written(nbytes: int) -> bytes:
    return bytes(i * 7 % 256 for i in range(nbytes))


@pytest.mark.parametrize("size", SIZES)
def test_another_process_reads_an_object_where_its_view_says(
    store: penstock.Store, size: int
) -> None:
    data = np.random.default_rng(size).bytes(size)
    store.put_bytes("x", data)
    other = penstock.Store.attach(store.name)
    view = other.get("x")
    with view as obj:
        assert read_at(store, view.offset, view.nbytes) == data == bytes(obj)
        with store.get("x") as _:
            assert store.get("x").offset == view.offset  # wherever each has mapped it
    with pytest.raises(penstock.Closed):
        _ = view.offset
    other.close()


@pytest.mark.parametrize("size", SIZES)
def test_bytes_that_another_process_wrote_are_the_object(store: penstock.Store, size: int) -> None:
    reservation = store.reserve("x", nbytes=size)
    offset = reservation.offset
    write_at(store, offset, size)
    assert "x" not in store
    reservation.commit()
    view = store.get("x")
    assert view.offset == offset
    with view as obj:
        assert bytes(obj) == written(size)
    assert store.get_copy("neighbour before") == bytes(1000)
    with pytest.raises(penstock.Expired):
        _ = reservation.offset


@pytest.mark.parametrize("size", SIZES)
def test_bytes_written_in_the_room_lie_at_the_offset(store: penstock.Store, size: int) -> None:
    reservation = store.reserve("x", shape=size, dtype=np.uint8, alignment=4096)
    before = reservation.offset
    assert before % 4096 == 0
    with reservation as room:
        room[:] = 9
        assert reservation.offset == before
    assert read_at(store, before, size) == bytes([9]) * size
    assert store.get("x").offset == before


def test_an_offset_after_a_resize_and_an_abort(store: penstock.Store) -> None:
    reservation = store.reserve("x", nbytes="1MiB")
    offset = reservation.offset
    reservation.resize(1000)
    assert reservation.offset == offset
    reservation.abort()
    with pytest.raises(penstock.Expired):
        _ = reservation.offset


def test_offsets_of_a_tiered_store(store: penstock.Store) -> None:
    second_tier = penstock.SecondTier("redis://127.0.0.1:1", policy="read_only")
    with penstock.Store.attach(store.name, second_tier=second_tier) as tiered:
        reservation = tiered.reserve("x", nbytes=300 * KIB)
        write_at(store, reservation.offset, reservation.nbytes)
        offset = reservation.offset
        reservation.commit()
        view = tiered.get("x")
        assert view.offset == offset
        with view as obj:
            assert bytes(obj) == written(300 * KIB)


def test_a_forked_child_has_no_place_in_the_file(store: penstock.Store) -> None:
    reservation = store.reserve("x", nbytes=100)
    child = os.fork()
    if child == 0:
        try:
            _ = reservation.offset
        except penstock.WrongProcess:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
