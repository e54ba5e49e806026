"""A peer that is killed is noticed at once by those that wait for it, in every concept; and waits
that sleep for long are ended by Cancel, close() and the end of the process as before.

Each wait has just begun when its peer is killed, so that a look every 80 ms would notice it some 80
ms later.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from peers import WITHIN, Peer, eventually, run_script

import penstock
from penstock import Broadcast, Queue, _core

TIMES = 7
# Seconds.
SOON = 0.04  # half a slice
PARKED = 0.3  # after some slices a wait sleeps for long
SAFETY_NET = 2.0  # the longest sleep

MakePeer = Callable[..., Peer]


class Killer:
    """Kills the peer when ``waits()`` has grown: when the wait has begun."""

    def __init__(self, peer: Peer, waits: Callable[[], int]) -> None:
        before = waits()

        def kill() -> None:
            eventually(lambda: waits() > before)
            death = os.pidfd_open(peer.pid)
            peer.signal(signal.SIGKILL)
            # A killed process has to run once more before it is dead.
            assert select.select([death], [], [], WITHIN)[0]
            self._killed = time.perf_counter()
            os.close(death)

        self._thread = threading.Thread(target=kill)
        self._thread.start()

    def seconds_since(self) -> float:
        """Since the death; below 0 if it was noticed before the killer ran again."""
        now = time.perf_counter()
        self._thread.join()
        return now - self._killed


def reader_of_a_dead_writer(name: str, peer: Peer) -> float:
    handle = peer.call("create", "w", name, readers=1)
    with Broadcast.attach(handle, rank=0) as reader:
        killer = Killer(peer, lambda: reader.stats().waits)
        with pytest.raises(penstock.PeerDied):
            reader.recv(timeout=WITHIN)
        return killer.seconds_since()


def writer_of_a_dead_reader(name: str, peer: Peer) -> float:
    with Broadcast.create(name, readers=1, capacity="64KiB") as writer:
        peer.call("attach", "r", name, rank=0)
        with contextlib.suppress(penstock.Timeout):
            while True:
                writer.send_bytes(bytes(1000), timeout=0)
        killer = Killer(peer, lambda: writer.stats().waits)
        with pytest.raises(penstock.PeerDied):
            writer.send_bytes(bytes(1000), timeout=WITHIN)
        return killer.seconds_since()


def consumer_after_a_dead_one(name: str, peer: Peer) -> float:
    """It gets the message that the dead one had taken."""
    with Queue.create(name) as queue:
        peer.call("make", "q", "Queue.attach", name)
        queue.put("kept")
        peer.call("make", "batch", "q.get_many", timeout=WITHIN)
        peer.call("batch.__enter__")
        killer = Killer(peer, lambda: queue.stats().waits)
        assert queue.get(timeout=WITHIN) == "kept"
        return killer.seconds_since()


CONCEPTS = [reader_of_a_dead_writer, writer_of_a_dead_reader, consumer_after_a_dead_one]


@pytest.mark.parametrize("concept", CONCEPTS)
def test_a_death_is_noticed_at_once(
    name: str, peer: MakePeer, concept: Callable[[str, Peer], float]
) -> None:
    spans = [concept(f"{name}-{number}", peer()) for number in range(TIMES)]
    print([f"{span * 1e3:.1f} ms" for span in spans])
    assert statistics.median(spans) < SOON, spans


# ---- what else ends a long sleep


@pytest.fixture
def reader(name: str, peer: MakePeer) -> Iterator[penstock.BroadcastReader]:
    """Its process has a watcher, which watches its writer."""
    handle = peer().call("create", "w", name, readers=1)
    with Broadcast.attach(handle, rank=0) as reader:
        with pytest.raises(penstock.Timeout):
            reader.recv(timeout=PARKED)
        yield reader


def seconds_until_it_ends(wait: Callable[[], object], end: Callable[[], object]) -> float:
    """From ``end()``, when the wait has been asleep for a while, to the wait's end in a thread."""
    ended: list[float] = []

    def run() -> None:
        with contextlib.suppress(penstock.Cancelled, penstock.Closed):
            wait()
        ended.append(time.perf_counter())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PARKED)  # shorter, and its sleep might not be a long one
    assert not ended
    start = time.perf_counter()
    end()
    thread.join(WITHIN)
    return ended[0] - start


def test_close_from_another_thread(reader: penstock.BroadcastReader) -> None:
    assert seconds_until_it_ends(lambda: reader.recv(timeout=WITHIN), reader.close) < SAFETY_NET / 2


def test_cancel_from_another_thread(reader: penstock.BroadcastReader) -> None:
    cancel = _core.Cancel()

    def wait() -> None:
        _core.run_cancellable(cancel, lambda: reader.recv(timeout=WITHIN))

    assert seconds_until_it_ends(wait, cancel.cancel) < SAFETY_NET / 2


def test_a_signal(reader: penstock.BroadcastReader) -> None:
    sent: list[float] = []

    def interrupt() -> None:
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(PARKED, interrupt)

    def wait_and_be_told() -> None:
        timer.start()
        reader.recv(timeout=WITHIN)

    with pytest.raises(KeyboardInterrupt):
        wait_and_be_told()
    assert time.perf_counter() - sent[0] < SAFETY_NET / 2
    timer.join()


@pytest.mark.parametrize(("value", "threads"), [("0", 1), ("1", 2)])
def test_a_process_may_do_without_the_thread(name: str, value: str, threads: int) -> None:
    with Broadcast.create(name, readers=1):
        outcome = run_script(
            """
            import os, sys, penstock
            with penstock.Broadcast.attach(sys.argv[1], rank=0) as reader:
                try:
                    reader.recv(timeout=float(sys.argv[2]))
                except penstock.Timeout:
                    print(len(os.listdir("/proc/self/task")))
            """,
            name,
            str(PARKED),
            env=os.environ | {"PENSTOCK_WATCHER": value, "OPENBLAS_NUM_THREADS": "1"},
        )
    assert (outcome.stdout.strip(), outcome.stderr) == (str(threads), "")


def test_the_end_of_a_process_with_parked_daemon_threads(name: str) -> None:
    with Broadcast.create(name, readers=4):
        outcome = run_script(
            """
            import sys, threading, time, penstock
            def wait(rank):
                with penstock.Broadcast.attach(sys.argv[1], rank=rank) as reader:
                    reader.recv()
            threads = [threading.Thread(target=wait, args=(i,), daemon=True) for i in range(4)]
            for thread in threads:
                thread.start()
            threads[0].join(float(sys.argv[2]))
            print(time.monotonic())
            """,
            name,
            str(PARKED),
        )
        ended = time.monotonic()
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert ended - float(outcome.stdout) < SAFETY_NET / 2
