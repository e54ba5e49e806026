"""close() is final: no mapping, descriptor or memory of a handle is left afterwards, except for
objects that the user still holds, as long as the user holds them."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peers import eventually, needs_a_mount, threads_here, with_own_shm

import penstock
from penstock.integrations.atropos import ZeroCopySHMBuffer
from penstock.integrations.lmcache import PoolClient, PoolServer
from penstock.trajectories import TrajectoryGroup, TrajectoryReader, TrajectoryWriter

Inode = tuple[int, int]
NO_SERVER = penstock.SecondTier("redis://127.0.0.1:1", policy="read_only")


def inode_of(path: str | int) -> Inode:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def mappings() -> list[Inode]:
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split()
        major, minor = (int(part, 16) for part in fields[3].split(":"))
        found.append((os.makedev(major, minor), int(fields[4])))
    return found


def descriptors() -> list[Inode]:
    found = []
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(inode_of(int(entry)))
    return found


def uses_of(inode: Inode) -> tuple[int, int]:
    """The numbers of this process's mappings and descriptors of a file."""
    return mappings().count(inode), descriptors().count(inode)


# Each makes a handle, uses it in every way, and yields it with an object that keeps the name.


@contextlib.contextmanager
def broadcast_writer(name: str) -> Iterator[Any]:
    writer = penstock.Broadcast.create(name, readers=1)
    writer.send("small")
    writer.send(np.zeros(1 << 20))
    with writer.loan(1000) as buffer:
        buffer[:] = bytes(1000)
    with writer.loan(4 << 20) as buffer:
        buffer[:4] = b"1234"
    yield writer


@contextlib.contextmanager
def broadcast_reader(name: str) -> Iterator[Any]:
    with penstock.Broadcast.create(name, readers=1) as writer:
        reader = penstock.Broadcast.attach(name, rank=0)
        for value in ("small", np.zeros(1 << 20)):
            writer.send(value)
            with reader.recv_view(timeout=0):
                pass
        writer.send("pending")
        with pytest.raises(penstock.Incompatible):
            reader.recv_bytes(timeout=0)
        yield reader
        writer.close()


def use_queue(queue: Any) -> None:
    queue.put(bytes(100_000))
    queue.put("small")
    with queue.get_many(min_items=2, timeout=0) as batch:
        assert len(batch) == 2
    queue.put("stays")
    assert queue.get(timeout=0) == "stays"


@contextlib.contextmanager
def queue_creator(name: str) -> Iterator[Any]:
    queue = penstock.Queue.create(name, capacity="1MiB")
    use_queue(queue)
    yield queue


@contextlib.contextmanager
def queue_participant(name: str) -> Iterator[Any]:
    with penstock.Queue.create(name, capacity="1MiB"):
        queue = penstock.Queue.attach(name)
        use_queue(queue)
        yield queue


@contextlib.contextmanager
def store(name: str) -> Iterator[Any]:
    own = penstock.Store.create(name, capacity="8MiB")
    use_store(own)
    yield own


def use_store(own: Any) -> None:
    own.put("a", np.zeros(1 << 17))
    with own.reserve("b", shape=(300, 300), dtype="float32") as array:
        array[...] = 1
    with own.reserve("c", nbytes=100) as buffer:
        buffer[:] = bytes(100)
    with own.get("a"), own.get("b"), own.get("c"):
        pass
    own.stats()


@contextlib.contextmanager
def tiered_store(name: str) -> Iterator[Any]:
    own = penstock.Store.create(name, capacity="8MiB", second_tier=NO_SERVER)
    use_store(own)
    yield own


def one_group() -> TrajectoryGroup:
    return TrajectoryGroup([[1, 2], [3]], masks=[[1, 1], [1]], scores=[0.0, 1.0])


@contextlib.contextmanager
def trajectory_reader(name: str) -> Iterator[Any]:
    reader = TrajectoryReader.create(name, sequences=2, capacity="1MiB")
    with TrajectoryWriter.attach(name, environment="e", group_size=2) as writer:
        writer.put(one_group())
        reader.next_batch(timeout=0).ack(step=1)
        yield reader


@contextlib.contextmanager
def trajectory_writer(name: str) -> Iterator[Any]:
    with TrajectoryReader.create(name, sequences=2, capacity="1MiB") as reader:
        writer = TrajectoryWriter.attach(name, environment="e", group_size=2)
        with writer.begin(timeout=0) as rollout:
            rollout.put(one_group())
        reader.next_batch(timeout=0).ack(step=1)
        yield writer


@contextlib.contextmanager
def pool_server(name: str) -> Iterator[Any]:
    yield PoolServer.open(name, capacity="8MiB")


@contextlib.contextmanager
def pool_client(name: str) -> Iterator[Any]:
    with PoolServer.open(name, capacity="8MiB"):
        yield PoolClient.attach(name)


@contextlib.contextmanager
def ring(name: str) -> Iterator[Any]:
    own = ZeroCopySHMBuffer(name, size=16, entry_size=64, create=True)
    own.write_trajectory([1, 2, 3], 1.0)
    assert own.read_next() is not None
    yield own


HANDLES: list[Callable[[str], contextlib.AbstractContextManager[Any]]] = [
    broadcast_writer,
    broadcast_reader,
    queue_creator,
    queue_participant,
    store,
    tiered_store,
    trajectory_reader,
    trajectory_writer,
    pool_server,
    pool_client,
    ring,
]


@pytest.mark.parametrize("make", HANDLES)
def test_a_closed_handle_keeps_nothing(name, make):
    """While the Python object itself still exists."""
    with make(name) as handle:
        inode = inode_of(f"/dev/shm/penstock.{name}")
        before = uses_of(inode)
        handle.close()
        after = uses_of(inode)
        assert after[0] < before[0]
        assert after[1] < before[1]
        others = {broadcast_reader, queue_participant, trajectory_reader, trajectory_writer}
        if make not in others | {pool_client}:
            assert after == (0, 0)
        handle.close()
    gc.collect()
    assert uses_of(inode) == (0, 0)
    repr(handle)


def test_descriptors_and_threads_stay_few(name):
    """Handles are made and closed repeatedly, with the Python objects kept."""
    kept = []
    for number in range(3):
        for make in HANDLES:
            with make(f"{name}-{number}") as handle:
                handle.close()
            kept.append(handle)
        if number == 0:
            count = len(os.listdir("/proc/self/fd"))
    assert len(os.listdir("/proc/self/fd")) == count


def test_an_open_loan_keeps_the_memory_and_no_longer(name):
    writer = penstock.Broadcast.create(name, readers=1)
    inode = inode_of(f"/dev/shm/penstock.{name}")
    with penstock.Broadcast.attach(name, rank=0) as reader:
        loan = writer.loan(1000)
        buffer = loan.__enter__()
        writer.close()
        with pytest.raises(penstock.Closed):
            reader.recv(timeout=0)  # reported at once, though the loan is open
        buffer[:] = bytes(1000)
        with pytest.raises(penstock.Closed, match="closed by this process"):
            loan.__exit__(None, None, None)
    assert uses_of(inode) == (0, 0)


def test_a_view_keeps_the_memory_and_no_longer(name):
    with penstock.Broadcast.create(name, readers=1) as writer:
        reader = penstock.Broadcast.attach(name, rank=0)
        writer.send(np.arange(1 << 20))
        with reader.recv_view(timeout=0) as array:
            reader.close()
            assert array[-1] == (1 << 20) - 1
        inode = inode_of(f"/dev/shm/penstock.{name}")
    assert uses_of(inode) != (0, 0)
    assert array[-1] == (1 << 20) - 1
    del array
    gc.collect()
    assert uses_of(inode) == (0, 0)


def test_a_pinned_object_keeps_the_memory_and_no_longer(name):
    own = penstock.Store.create(name, capacity="8MiB")
    own.put("a", np.arange(1 << 17))
    inode = inode_of(f"/dev/shm/penstock.{name}")
    with own.get("a") as array:
        own.close()
        assert array[-1] == (1 << 17) - 1
    del array
    gc.collect()
    assert uses_of(inode) == (0, 0)


def test_an_anonymous_segment_goes_with_its_last_handle():
    writer = penstock.Broadcast.create(None, readers=1)
    handle = writer.handle
    inode = inode_of(handle.fileno())
    with penstock.Broadcast.attach(handle, rank=0) as reader:
        writer.send(1)
        assert reader.recv(timeout=0) == 1
    writer.close()
    assert uses_of(inode) == (0, 1)  # the handle's own
    del handle
    gc.collect()
    assert uses_of(inode) == (0, 0)


@needs_a_mount
@pytest.mark.parametrize(
    "create",
    [
        "penstock.Broadcast.create('x', readers=1, capacity='32MiB')",
        "penstock.Queue.create('x', capacity='32MiB', inline_bytes=4096, slots=8192)",
        "penstock.Store.create('x', capacity='40MiB', populate=True)",
        "TrajectoryReader.create('x', sequences=4, capacity='40MiB', populate=True)",
    ],
)
def test_a_closed_segment_can_be_made_again_where_memory_is_scarce(create):
    """A notebook cell that is run twice, in a container with Docker's 64 MB."""
    outcome = with_own_shm(
        f"""
        import penstock
        from penstock.trajectories import TrajectoryReader
        for _ in range(4):
            w = {create}
            w.close()
        print("made")
        """,
        mount="size=64m",
    )
    assert (outcome.stdout, outcome.returncode) == ("made\n", 0), outcome.stderr


@needs_a_mount
def test_a_loan_of_python_does_not_keep_the_memory_either():
    outcome = with_own_shm(
        """
        import penstock
        for _ in range(3):
            w = penstock.Broadcast.create("x", readers=1, capacity="32MiB")
            with w.loan(5 << 20) as buffer:
                buffer[:3] = b"abc"
            w.close()
        print("made")
        """,
        mount="size=64m",
    )
    assert (outcome.stdout, outcome.returncode) == ("made\n", 0), outcome.stderr


def test_a_second_tier_leaves_no_connection(name):
    """Its sockets and threads are gone when close() returns."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        descriptors = len(os.listdir("/proc/self/fd"))
        threads = threads_here()
        second_tier = penstock.SecondTier(
            f"redis://127.0.0.1:{port}", connect_timeout=0.1, request_timeout=0.1
        )
        own = penstock.Store.create(name, capacity="1MiB", second_tier=second_tier)
        own.close(timeout=0)
        assert len(os.listdir("/proc/self/fd")) == descriptors
        eventually(lambda: threads_here() == threads)
