"""A fork with open handles: their use in the child fails, destroying them there has no effect, and
the parent continues undisturbed."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from peers import WITHIN, eventually

import penstock
from penstock import Broadcast

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@contextlib.contextmanager
def forked(child: Callable[[], object]) -> Iterator[int]:
    """Run `child` in a forked process, which must end successfully by the end of the block."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(int(WITHIN))
            child()
            gc.collect()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    try:
        yield pid
    finally:
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_every_use_in_the_child_says_so(pair):
    writer, reader = pair

    def child() -> None:
        calls = [
            lambda: writer.send(1),
            lambda: writer.send_bytes(b""),
            lambda: writer.loan(1),
            lambda: writer.wait_ready(timeout=0),
            lambda: writer.readers(),
            lambda: writer.blocked_by(),
            lambda: writer.stats(),
            lambda: reader.recv(timeout=0),
            lambda: reader.recv_view(),
            lambda: reader.recv_bytes(timeout=0),
            lambda: reader.recv_bytes_into(bytearray(1), timeout=0),
            lambda: reader.stats(),
        ]
        for call in calls:
            with pytest.raises(penstock.WrongProcess, match="parent"):
                call()
        writer.close()  # no effect here
        reader.close()

    with forked(child):
        pass
    writer.send("unharmed")
    assert reader.recv(timeout=0) == "unharmed"


def test_destroying_handles_in_the_child_harms_no_other_process(name):
    writer = Broadcast.create(name, readers=1)
    reader = Broadcast.attach(name, rank=0)
    writer.send(np.arange(1000))
    writer.send_bytes(b"pending")
    view = reader.recv_view()
    array = view.__enter__()
    with pytest.raises(penstock.TooLarge):
        reader.recv_bytes_into(bytearray(1))  # leaves a message pending in the handle

    def child() -> None:
        nonlocal writer, reader, view, array
        del writer, reader, view, array
        gc.collect()

    with forked(child):
        pass
    np.testing.assert_array_equal(array, np.arange(1000))
    assert reader.recv(timeout=0) == b"pending"
    writer.send("unharmed")
    assert reader.recv(timeout=0) == "unharmed"
    view.__exit__(None, None, None)
    del array, view
    gc.collect()
    assert writer.readers()[0].lag_messages == 0
    writer.close()
    reader.close()


def test_a_loan_that_is_open_across_a_fork_stays_the_parents(pair):
    writer, reader = pair
    loan = writer.loan(5)
    buf = loan.__enter__()
    buf[:] = b"01234"

    def child() -> None:
        nonlocal loan, buf
        with pytest.raises(penstock.WrongProcess):
            loan.__exit__(None, None, None)
        del loan, buf
        gc.collect()

    with forked(child):
        pass
    loan.__exit__(None, None, None)
    assert reader.recv(timeout=0) == b"01234"


def test_a_child_attaches_anew(name):
    with Broadcast.create(name, readers=2) as writer, Broadcast.attach(name, rank=0) as reader:

        def child() -> None:
            with Broadcast.attach(name, rank=1) as own:
                assert own.recv(timeout=WITHIN) == "both"

        with forked(child):
            eventually(lambda: writer.readers()[1].life == "active")
            writer.send("both")
            assert reader.recv(timeout=WITHIN) == "both"
        assert writer.readers()[1].life == "vacant"


def test_the_parents_death_is_noticed_though_its_child_lives(name, peer):
    """A lock lives on in a forked child, unless its descriptor is closed there."""
    other = peer()
    handle = other.call("create", "w", name, readers=1)
    child = other.call("do", "test_fork:fork_a_sleeper")
    try:
        with Broadcast.attach(handle, rank=0) as reader:
            other.kill()
            with pytest.raises(penstock.PeerDied):
                reader.recv(timeout=WITHIN)
    finally:
        os.kill(child, signal.SIGKILL)


def fork_a_sleeper(_objects: object) -> int:
    """A child that outlives its parent."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(int(WITHIN))
        while True:
            signal.pause()
    return pid


def test_a_fork_while_other_threads_wait(pair):
    writer, reader = pair
    received: list[object] = []
    waiting = threading.Thread(target=lambda: received.append(reader.recv(timeout=WITHIN)))
    waiting.start()
    eventually(lambda: reader.stats().waits > 0)

    def child() -> None:
        with pytest.raises(penstock.WrongProcess):
            reader.recv(timeout=0)
        reader.close()

    with forked(child):
        pass
    writer.send("unharmed")
    waiting.join(WITHIN)
    assert received == ["unharmed"]


def test_async_twins_work_in_a_child_of_a_process_that_used_them(name):
    import asyncio

    async def receive(reader: penstock.BroadcastReader) -> None:
        with pytest.raises(penstock.Timeout):
            await reader.recv_async(timeout=0.01)

    with Broadcast.create(name, readers=2), Broadcast.attach(name, rank=0) as reader:
        asyncio.run(receive(reader))  # leaves an idle thread, which a child does not have

        def child() -> None:
            with Broadcast.attach(name, rank=1) as own:
                asyncio.run(receive(own))

        with forked(child):
            pass
