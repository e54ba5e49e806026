"""A repr makes no system call, takes no lock and attaches to nothing; and it never raises, whatever
state its object is in."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import pytest
from peers import WITHIN, eventually

import penstock
from penstock import _core, trajectories
from penstock.integrations import atropos, lmcache
from penstock.trajectories import TrajectoryGroup, TrajectoryReader, TrajectoryWriter

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def public_classes() -> list[type]:
    found = {
        one
        for module in (penstock, trajectories, atropos, lmcache)
        for name in module.__all__
        for one in [getattr(module, name)]
        if isinstance(one, type) and not issubclass(one, BaseException)
    }
    return sorted(found, key=lambda cls: cls.__name__)


@pytest.mark.parametrize("cls", public_classes())
def test_a_half_constructed_object_has_a_repr(cls: type) -> None:
    if cls.__repr__ is object.__repr__ or hasattr(cls, "__dataclass_fields__"):
        pytest.skip("Python's own repr")
    try:
        half = cls.__new__(cls)
    except TypeError:
        pytest.skip("can't be half made")
    assert cls.__name__ in repr(half)


def broadcast(name: str) -> list[Any]:
    writer = penstock.Broadcast.create(name, readers=1)
    return [writer, penstock.Broadcast.attach(name, 0)]


def queue(name: str) -> list[Any]:
    return [penstock.Queue.create(name, capacity="1MiB")]


def store(name: str) -> list[Any]:
    return [penstock.Store.create(name, capacity="1MiB")]


def trajectory(name: str) -> list[Any]:
    reader = TrajectoryReader.create(name, capacity="1MiB")
    return [reader, TrajectoryWriter.attach(name)]


def ring(name: str) -> list[Any]:
    return [atropos.ZeroCopySHMBuffer(name, size=4, entry_size=8, create=True)]


def tiered(name: str) -> list[Any]:
    if not _core.has_redis():
        pytest.skip("this build is without hiredis")
    return [penstock.Store.create(name, capacity="1MiB", second_tier="unix:/nowhere/at-all")]


HANDLES: dict[str, Callable[[str], list[Any]]] = {
    "broadcast": broadcast,
    "queue": queue,
    "store": store,
    "trajectory": trajectory,
    "ring": ring,
    "tiered": tiered,
}


def attached_to(name: str) -> list[tuple[int, bool]]:
    return [(one["slot"], one["alive"]) for one in _core.inspect_segment(name)["participants"]]


def end(handles: list[Any]) -> None:
    for handle in handles:
        handle.close()


@pytest.mark.parametrize("kind", HANDLES)
def test_open_closed_and_in_a_forked_child(name: str, kind: str) -> None:
    handles = HANDLES[kind](name)
    before = attached_to(name)
    for handle in handles:
        assert type(handle).__name__ in repr(handle)
        assert name in repr(handle)
        assert "closed" not in repr(handle)
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            text = " ".join(repr(handle) for handle in handles)
            os.write(writer, f"{text} | {attached_to(name)}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    text, _, there = os.read(reader, 10_000).decode().partition(" | ")
    os.close(reader)
    if kind != "ring":
        assert text.count("made by the parent process") == len(handles)
    assert there == str(before)  # the child has attached to nothing
    end(handles)
    for handle in handles:
        assert "closed" in repr(handle)


def test_while_another_thread_is_inside(name: str) -> None:
    """Also while that thread holds the turn on the handle."""
    with penstock.Queue.create(name, capacity="1MiB") as queue:
        thread = threading.Thread(target=lambda: queue.get(timeout=WITHIN))
        thread.start()
        eventually(lambda: queue.stats().waits > 0)
        for _ in range(1000):
            assert name in repr(queue)
        queue.put(1)
        thread.join()


def test_results_of_handles_have_a_repr_in_every_state(name: str) -> None:
    with (
        penstock.Store.create(name, capacity="1MiB") as store,
        TrajectoryReader.create(name + "-t", sequences=1, capacity="1MiB") as trainer,
        TrajectoryWriter.attach(name + "-t") as writer,
    ):
        reservation = store.reserve("key", nbytes=3)
        assert "3 bytes" in repr(reservation)
        reservation.abort()
        assert "over" in repr(reservation)
        rollout = writer.begin(timeout=WITHIN)
        group = TrajectoryGroup([[1, 2]])
        rollout.put(group)
        assert "version 0" in repr(rollout)
        assert "1 sequences" in repr(group)
        batch = trainer.next_batch(timeout=WITHIN)
        given = [rollout, group, batch, store.handle, reservation]
        batch.ack()
        assert "done with" in repr(batch)
    for one in given:
        assert repr(one).startswith("<penstock.")


STRICT = """
    import ctypes, os, sys
    from test_repr import HANDLES
    handles = HANDLES[sys.argv[1]](sys.argv[2])
    handles += [handle.handle for handle in handles if hasattr(handle, "handle")]
    words = [b""] * len(handles)
    def look():
        for at, handle in enumerate(handles):
            words[at] = repr(handle).encode()
    for _ in range(5):
        look()
    strict = ctypes.CDLL(None).prctl(22, 1, 0, 0, 0)  # read and write, and no other system call
    os.write(1, b"strict\\n" if strict == 0 else b"no seccomp here\\n")
    ACT
    os.write(1, b"done\\n")
"""


def said_under_seccomp(act: str, *arguments: str) -> list[str]:
    """The output of a process that runs `act` where all system calls but read and write kill it."""
    script = textwrap.dedent(STRICT).replace("ACT", act)
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=os.path.dirname(__file__),
        stdout=subprocess.PIPE,
        # Otherwise a thread of NumPy's keeps the process alive when its main thread is killed.
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdout is not None
        lines = []
        try:
            while len(lines) < 2 and select.select([process.stdout], [], [], WITHIN)[0]:
                if not (line := os.read(process.stdout.fileno(), 100)):
                    break
                lines += line.decode().splitlines()
        finally:
            process.kill()
    _core.remove_if_abandoned(arguments[1], True)
    if lines[0] != "strict":
        pytest.skip(lines[0])
    return lines


@pytest.mark.full
@pytest.mark.parametrize("kind", [kind for kind in HANDLES if kind != "tiered"])
def test_it_makes_no_system_call(name: str, kind: str) -> None:
    assert said_under_seccomp("look()", kind, name) == ["strict", "done"]


def test_the_check_for_system_calls_can_fail(name: str) -> None:
    assert said_under_seccomp("os.getppid()", "queue", name) == ["strict"]
