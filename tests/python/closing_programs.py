"""Programs that close every descriptor while handles are open, as daemons do, and open files of
their own under the same numbers; for `test_closed_descriptors.py`. Each runs in its own Python and
reports its progress on its output."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.trajectories import TrajectoryGroup, TrajectoryReader, TrajectoryWriter

LONG = 60.0
LARGE = bytes(300 << 10)  # needs a block, and memory for it
# There is no server, which is an outage.
NO_SERVER = penstock.SecondTier("redis://127.0.0.1:1", policy="read_only")
SENTENCE = "its descriptor was closed by this process"
_LOCK = struct.Struct("hhqqi4x")  # struct flock


class OwnFiles:
    """Files of the program under every number up to the highest in use, each fully locked."""

    CONTENT = b"\xaa" * (1 << 20)

    def __init__(self, folder: str, highest: int) -> None:
        self._files: list[tuple[int, str, os.stat_result]] = []
        while not self._files or self._files[-1][0] < highest:
            path = os.path.join(folder, f"own-{os.getpid()}-{len(self._files)}")
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.write(descriptor, self.CONTENT)
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_WRLCK, 0, 0, 0, 0))
            self._files.append((descriptor, path, os.fstat(descriptor)))
        assert self._files[0][0] == 3, "it has the number of the first handle"

    def check(self) -> None:
        """They are open and unchanged, and all their locks are held."""
        for descriptor, path, before in self._files:
            now = os.fstat(descriptor)
            assert (now.st_dev, now.st_ino) == (before.st_dev, before.st_ino), path
            assert (now.st_size, now.st_blocks) == (before.st_size, before.st_blocks), path
            assert os.lseek(descriptor, 0, os.SEEK_CUR) == len(self.CONTENT), path
            assert Path(path).read_bytes() == self.CONTENT, path
            other = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            asked = fcntl.fcntl(other, fcntl.F_OFD_GETLK, _LOCK.pack(fcntl.F_WRLCK, 0, 0, 0, 0))
            os.close(other)
            kind, _, start, length, _ = _LOCK.unpack(asked)
            assert (kind, start, length) == (fcntl.F_WRLCK, 0, 0), f"a lock of {path} was changed"


def highest_descriptor() -> int:
    return max(int(number) for number in os.listdir("/proc/self/fd"))


def close_all(folder: str) -> OwnFiles:
    highest = highest_descriptor()
    os.closerange(3, 256)
    return OwnFiles(folder, highest)


def lose_locks(folder: str) -> OwnFiles:
    """The same, and the locks are gone at once. Otherwise mappings keep them, until close()."""
    for number in range(3, highest_descriptor() + 1):
        with contextlib.suppress(OSError):
            fcntl.fcntl(number, fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_UNLCK, 0, 0, 0, 0))
    return close_all(folder)


def lose_locks_and_wait(folder: str) -> OwnFiles:
    """The same; returns when another process has found this one dead."""
    own = lose_locks(folder)
    say("lost")
    await_word()
    return own


def says_so() -> Any:
    """The block ends with the error that explains what happened."""
    return pytest.raises(penstock.WrongProcess, match=SENTENCE)


def is_lost(call: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """The call raises that error, and so does the next one."""
    for _ in range(2):
        with says_so():
            call(*arguments, **options)


def say(word: str) -> None:
    print(word, flush=True)


def await_word() -> None:
    assert sys.stdin.readline(), "the test is gone"


def group(first: int = 1) -> TrajectoryGroup:
    return TrajectoryGroup([[first, 2], [3]], masks=[[1, 1], [1]], scores=[0.0, 1.0])


# One process with every descriptor closed under its handles: the result of each call.


def alone_queue(name: str, folder: str) -> None:
    queue = penstock.Queue.create(name, capacity="8MiB", slots=16)
    own = close_all(folder)
    is_lost(queue.get, timeout=LONG)
    is_lost(queue.put, LARGE)
    is_lost(queue.stats)
    queue.close()
    own.check()


def alone_queue_put(name: str, folder: str) -> None:
    queue = penstock.Queue.create(name, capacity="8MiB", slots=16)
    own = close_all(folder)
    is_lost(queue.put, LARGE)
    queue.close()
    own.check()


def alone_queue_trim(name: str, folder: str) -> None:
    """A trim works on the mapping and needs no descriptor."""
    queue = penstock.Queue.create(name, capacity="8MiB", slots=16)
    queue.put(LARGE)
    assert queue.get(timeout=LONG) == LARGE
    own = close_all(folder)
    with contextlib.suppress(penstock.WrongProcess, penstock.Timeout):
        queue.get(timeout=3)
    queue.close()
    own.check()


def alone_broadcast(name: str, folder: str) -> None:
    writer = penstock.Broadcast.create(name, readers=1, capacity="64KiB")
    reader = penstock.Broadcast.attach(name, rank=0)
    own = close_all(folder)
    is_lost(reader.recv, timeout=LONG)
    is_lost(writer.send, LARGE)
    is_lost(writer.stats)
    is_lost(reader.stats)
    reader.close()
    writer.close()
    own.check()


def alone_broadcast_full(name: str, folder: str) -> None:
    """The writer waits for room; the reader holds messages."""
    writer = penstock.Broadcast.create(name, readers=1, capacity="64KiB")
    reader = penstock.Broadcast.attach(name, rank=0)
    with contextlib.suppress(penstock.Timeout):
        while True:
            writer.send_bytes(bytes(8000), timeout=0)
    with contextlib.ExitStack() as views:
        kept = views.enter_context(reader.recv_view(timeout=LONG))
        own = close_all(folder)
        is_lost(writer.send_bytes, bytes(8000), timeout=LONG)
        writer.close()
        assert bytes(kept) == bytes(8000)
    reader.close()
    own.check()


def alone_broadcast_loan(name: str, folder: str) -> None:
    writer = penstock.Broadcast.create(name, readers=1, capacity="64KiB")
    reader = penstock.Broadcast.attach(name, rank=0)
    own = close_all(folder)
    with says_so(), writer.loan(300 << 10) as room:
        room[:] = bytes(len(room))
    writer.close()
    reader.close()
    own.check()


def alone_anonymous(name: str, folder: str) -> None:
    writer = penstock.Broadcast.create(None, readers=1, capacity="64KiB")
    handle = writer.handle
    reader = penstock.Broadcast.attach(handle, rank=0)
    own = close_all(folder)
    is_lost(handle.fileno)
    is_lost(lambda: writer.handle)
    is_lost(reader.recv, timeout=LONG)
    del handle
    reader.close()
    writer.close()
    own.check()


def alone_file(name: str, folder: str) -> None:
    queue = penstock.Queue.create(f"file:{folder}/{name}", capacity="8MiB", slots=16)
    own = close_all(folder)
    is_lost(queue.get, timeout=LONG)
    is_lost(queue.put, LARGE)
    queue.close()
    own.check()
    os.unlink(f"{folder}/{name}")


def alone_store(name: str, folder: str) -> None:
    store = penstock.Store.create(name, capacity="8MiB")
    store.put("key", LARGE)
    with says_so(), store.reserve("staged", nbytes=1 << 20) as room:
        room[:] = bytes(len(room))
        own = close_all(folder)
        is_lost(store.put, "other", LARGE)
    is_lost(store.wait, "missing", timeout=LONG)
    is_lost(store.get_copy, "key")
    is_lost(store.stats)
    store.close()
    own.check()


def alone_store_view(name: str, folder: str) -> None:
    store = penstock.Store.create(name, capacity="8MiB")
    store.put("key", LARGE)
    with says_so(), store.get("key") as found:
        own = close_all(folder)
        is_lost(store.wait, "missing", timeout=LONG)
        assert bytes(found) == LARGE
    store.trim()
    store.close()
    own.check()


def alone_tiered(name: str, folder: str) -> None:
    store = penstock.Store.create(name, capacity="8MiB", second_tier=NO_SERVER)
    own = close_all(folder)
    is_lost(store.put, "key", LARGE)
    is_lost(store.get_copy, "key")
    store.close()
    own.check()


def alone_pool(name: str, folder: str) -> None:
    """The engine of a KV pool, which is a store."""
    from penstock.integrations.lmcache.client import PoolClient

    store = penstock.Store.create(name, capacity="8MiB")
    client = PoolClient(store, 16)
    own = close_all(folder)
    is_lost(store.wait, "missing", timeout=LONG)
    client.close()
    own.check()


def alone_trainer(name: str, folder: str) -> None:
    trainer = TrajectoryReader.create(name, sequences=2, capacity="8MiB", slots=16)
    own = close_all(folder)
    is_lost(trainer.next_batch, timeout=LONG)
    is_lost(trainer.stats)
    trainer.close()
    own.check()


def alone_environment(name: str, folder: str) -> None:
    writer = TrajectoryWriter.create(
        name, environment="math", group_size=2, capacity="8MiB", slots=16, max_staleness=0
    )
    own = close_all(folder)
    is_lost(writer.begin, timeout=LONG)  # there is no trainer yet
    is_lost(writer.stats)
    writer.close()
    own.check()


# A peer finds the process dead, reaps it, and reuses what it held.


def reaped_consumer(name: str, folder: str) -> None:
    queue = penstock.Queue.attach(name)
    with says_so(), queue.get_many(max_items=1, timeout=LONG) as batch:
        assert len(batch) == 1
        own = lose_locks_and_wait(folder)
    is_lost(queue.get, timeout=0)
    is_lost(queue.put, "small")
    queue.close()
    own.check()


def reaped_reader(name: str, folder: str) -> None:
    reader = penstock.Broadcast.attach(name, rank=0)
    assert reader.recv_bytes(timeout=LONG) == bytes(8000)
    own = lose_locks_and_wait(folder)
    is_lost(reader.recv_bytes, timeout=0)
    reader.close()
    own.check()


def reaped_reader_view(name: str, folder: str) -> None:
    reader = penstock.Broadcast.attach(name, rank=0)
    with says_so(), reader.recv_view(timeout=LONG):
        own = lose_locks_and_wait(folder)
    reader.close()
    own.check()


def reaped_writer(name: str, folder: str) -> None:
    writer = penstock.Broadcast.create(name, readers=1, capacity="64KiB")
    say("made")
    writer.wait_ready(timeout=LONG)
    writer.send("accepted")
    own = lose_locks_and_wait(folder)
    is_lost(writer.send, "small")
    writer.close()
    own.check()


def reaped_store(name: str, folder: str) -> None:
    store = penstock.Store.attach(name)
    with says_so(), store.reserve("key", nbytes=1000) as room:
        own = lose_locks_and_wait(folder)
        room[:] = bytes([1]) * 1000
    is_lost(store.get_copy, "key")
    is_lost(store.put, "small", 1)
    store.close()
    own.check()


def reaped_pin(name: str, folder: str) -> None:
    store = penstock.Store.attach(name)
    with says_so(), store.get("key"):
        own = lose_locks_and_wait(folder)
    store.close()
    own.check()


def reaped_environment(name: str, folder: str) -> None:
    writer = TrajectoryWriter.attach(name, environment="math", group_size=2)
    with says_so(), writer.begin(timeout=LONG) as rollout:
        own = lose_locks_and_wait(folder)
        rollout.put(group())
    is_lost(writer.begin, timeout=0)
    writer.close()
    own.check()


def reaped_trainer(name: str, folder: str) -> None:
    trainer = TrajectoryReader.attach(name, sequences=2)
    with says_so(), trainer.next_batch(timeout=LONG):
        own = lose_locks_and_wait(folder)
    is_lost(trainer.next_batch, timeout=0)
    trainer.close()
    own.check()


def kept_consumer(name: str, folder: str) -> None:
    """With descriptors closed but the lock still held: its deliveries remain its own."""
    queue = penstock.Queue.attach(name)
    with queue.get_many(max_items=1, timeout=LONG) as batch:
        assert batch == ["one"]
        own = close_all(folder)
        say("lost")
        await_word()
    with says_so(), queue.get_view(timeout=LONG) as second:
        assert second == "two"
        is_lost(queue.stats)
        say("holds")
        await_word()
    queue.close()
    own.check()


# What a program does with its descriptors.


def issue(name: str, folder: str) -> None:
    """A daemon's first steps, in the order in which they did harm."""
    queue = penstock.Queue.create(name, capacity="64MiB", slots=16)
    message = b"\x55" * (16 << 20)
    queue.put(message)
    assert queue.get(timeout=LONG) == message
    os.closerange(3, 256)
    path = os.path.join(folder, "own")
    content = b"\xaa" * (20 << 20)
    Path(path).write_bytes(content)
    own = os.open(path, os.O_RDWR)
    assert own == 3
    before = os.fstat(own)
    with says_so():
        queue.get(timeout=2)
    with contextlib.suppress(penstock.WrongProcess):
        queue.get(timeout=2)
    assert Path(path).read_bytes() == content
    queue.close()
    now = os.fstat(own)
    assert (now.st_ino, now.st_size, now.st_blocks) == (
        before.st_ino,
        before.st_size,
        before.st_blocks,
    )


def close_before_reading(name: str, folder: str) -> None:
    """close() is the first call afterwards."""
    handles: list[Any] = [
        penstock.Queue.create(name, capacity="8MiB", slots=16),
        penstock.Store.create(f"{name}.store", capacity="8MiB"),
        penstock.Broadcast.create(f"{name}.ring", readers=1),
    ]
    handles.append(penstock.Broadcast.attach(f"{name}.ring", rank=0))
    own = close_all(folder)
    for handle in handles:
        handle.close()
    own.check()


def fork_after(name: str, folder: str) -> None:
    """A forked child closes the library's descriptors and not the program's files under their
    numbers."""
    queue = penstock.Queue.create(name, capacity="8MiB", slots=16)
    own = close_all(folder)
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            own.check()
            status = 0
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    queue.close()
    own.check()


def attach_again(name: str, folder: str) -> None:
    """The new handle has the numbers of the old one, which must neither close nor unlock it."""
    old = penstock.Queue.create(name, capacity="8MiB", slots=16)
    old.put("kept")
    os.closerange(3, 256)
    new = penstock.Queue.attach(name)
    is_lost(old.stats)
    old.close()
    del old
    new.put(LARGE)
    assert new.get(timeout=LONG) == "kept"
    say("lost")  # the test checks whether it lives
    await_word()
    assert new.get(timeout=LONG) == LARGE
    new.close()


def daemonize(name: str, folder: str) -> None:
    """A real daemon with handles opened before: two forks, a session, and every descriptor closed.
    The daemon reports its result in a file."""
    handles: dict[str, Any] = {
        "queue": penstock.Queue.create(f"{name}.queue", capacity="8MiB", slots=16),
        "store": penstock.Store.create(f"{name}.store", capacity="8MiB"),
        "writer": penstock.Broadcast.create(f"{name}.ring", readers=1),
        "trainer": TrajectoryReader.create(f"{name}.rl", sequences=2, capacity="8MiB", slots=16),
    }
    handles["reader"] = penstock.Broadcast.attach(f"{name}.ring", rank=0)
    handles["tiered"] = penstock.Store.create(
        f"{name}.tiered", capacity="8MiB", second_tier=NO_SERVER
    )
    highest = highest_descriptor()
    if os.fork() != 0:
        await_word()  # the handles are this process's until the daemon is done
        for handle in reversed(handles.values()):
            handle.close()
        return
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    outcome = "failed"
    try:
        os.closerange(0, 256)
        for _ in range(3):
            os.open(os.devnull, os.O_RDWR)
        own = OwnFiles(folder, highest)
        calls = (
            (handles["writer"].send, (LARGE,), {}),
            (handles["reader"].recv, (), {"timeout": LONG}),
            (handles["trainer"].next_batch, (), {"timeout": LONG}),
        )
        for call, arguments, options in calls:
            try:
                call(*arguments, **options)
            except penstock.WrongProcess:
                continue
            raise AssertionError(call)
        handles["queue"].put("from the daemon")  # attaches anew, as a store does
        handles["store"].put("key", LARGE)
        handles["tiered"].put("key", LARGE)
        own.check()
        for handle in reversed(handles.values()):
            handle.close()
        handles.clear()
        own.check()
        outcome = "well"
    except BaseException as error:
        outcome = repr(error)
    finally:
        Path(folder, "outcome.new").write_text(outcome)
        os.rename(Path(folder, "outcome.new"), Path(folder, "outcome"))
        os._exit(0)


def redis(name: str, folder: str) -> None:
    """The socket's number is now a file of the program: nothing is written to it."""
    second_tier = penstock.SecondTier(f"unix:{sys.argv[4]}", policy="write_through")
    tiered = penstock.Store.create(name, capacity="8MiB", second_tier=second_tier)
    tiered.put("one", "first")
    sockets = [
        int(number)
        for number in os.listdir("/proc/self/fd")
        if os.path.islink(f"/proc/self/fd/{number}")
        and os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
    ]
    assert sockets
    paths = []
    for number in sockets:
        os.close(number)
        paths.append(os.path.join(folder, f"own-{number}"))
        descriptor = os.open(paths[-1], os.O_RDWR | os.O_CREAT, 0o600)
        if descriptor != number:
            os.dup2(descriptor, number)
            os.close(descriptor)
    tiered.put("two", "second")  # on a new connection
    assert tiered.get_copy("two") == "second"
    tiered.close()
    for number, path in zip(sockets, paths, strict=True):
        assert os.fstat(number).st_ino == os.stat(path).st_ino
        assert os.path.getsize(path) == 0


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2], sys.argv[3])
    say("well")
