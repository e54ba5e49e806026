"""Several threads on one handle: nothing is lost or doubled, waiting for the handle is like any
other wait, and close() ends all of it."""

# ruff: noqa: PT012 (what raises is a loop, or the end of a block)

from __future__ import annotations

import signal
import threading
import time
from collections import Counter

import pytest
from peers import WITHIN, eventually, run_script

import penstock
from penstock import Broadcast


class Task(threading.Thread):
    """A thread that keeps its outcome."""

    def __init__(self, function, *args, **kwargs) -> None:
        super().__init__()
        self._function, self._args, self._kwargs = function, args, kwargs
        self.value = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.value = self._function(*self._args, **self._kwargs)
        except BaseException as error:
            self.error = error

    def outcome(self):
        self.join(WITHIN)
        assert not self.is_alive(), "the thread still runs"
        if self.error is not None:
            raise self.error
        return self.value


def test_many_threads_send_and_receive_on_two_handles(pair):
    """Four senders and four receivers: each message exactly once, and each sender's in order."""
    writer, reader = pair
    count = 1500

    def send(sender: int) -> None:
        for i in range(count):
            writer.send((sender, i), timeout=WITHIN)

    def receive() -> list[tuple[int, int]]:
        received = []
        while True:
            message = reader.recv(timeout=WITHIN)
            if message is None:
                return received
            received.append(message)

    receivers = [Task(receive) for _ in range(4)]
    senders = [Task(send, sender) for sender in range(4)]
    for sender in senders:
        sender.outcome()
    for _ in receivers:
        writer.send(None, timeout=WITHIN)
    received = [receiver.outcome() for receiver in receivers]
    everything = Counter(message for part in received for message in part)
    assert everything == Counter((sender, i) for sender in range(4) for i in range(count))
    for part in received:
        for sender in range(4):
            numbers = [i for who, i in part if who == sender]
            assert numbers == sorted(numbers)


def test_threads_wait_without_the_gil(pair):
    writer, reader = pair
    receiver = Task(reader.recv, timeout=WITHIN)
    eventually(lambda: reader.stats().waits > 0)
    writer.send("this thread went on")
    assert receiver.outcome() == "this thread went on"


def test_a_thread_that_waits_for_its_turn_times_out(pair):
    writer, reader = pair
    first = Task(reader.recv, timeout=WITHIN)
    eventually(lambda: reader.stats().waits > 0)
    with pytest.raises(penstock.Timeout, match="thread"):
        reader.recv(timeout=0)
    started = time.monotonic()
    with pytest.raises(penstock.Timeout):
        reader.recv(timeout=0.1)
    assert time.monotonic() - started >= 0.1
    writer.send("for the first")
    assert first.outcome() == "for the first"


def test_no_thread_is_starved_by_busy_ones(pair):
    """Others send as fast as the ring permits, and each of our messages gets its turn in a few
    milliseconds; it was up to fifteen seconds before long waiters went first."""
    writer, reader = pair
    ends = threading.Event()

    def send() -> None:
        while not ends.is_set():
            writer.send_bytes(bytes(1000), timeout=WITHIN)

    def receive() -> None:
        while reader.recv_bytes(timeout=WITHIN) != b"end":
            pass

    receiver = Task(receive)
    busy = [Task(send) for _ in range(3)]
    for _ in range(200):
        writer.send_bytes(b"patient", timeout=2)
    ends.set()
    for sender in busy:
        sender.outcome()
    writer.send_bytes(b"end", timeout=WITHIN)
    receiver.outcome()


@pytest.mark.parametrize("waiters", [1, 3])
def test_close_ends_the_waits_of_receivers(pair, waiters):
    _, reader = pair
    tasks = [Task(reader.recv) for _ in range(waiters)]
    eventually(lambda: reader.stats().waits > 0)
    reader.close()
    for task in tasks:
        with pytest.raises(penstock.Closed, match="closed by this process"):
            task.outcome()


def test_close_ends_the_wait_of_a_sender(pair):
    writer, reader = pair

    def fill() -> None:
        while True:
            writer.send_bytes(bytes(1000))

    task = Task(fill)
    eventually(writer.blocked_by)
    writer.close()
    with pytest.raises(penstock.Closed, match="closed by this process"):
        task.outcome()
    with pytest.raises(penstock.Closed, match="everything was received"):
        while True:
            reader.recv(timeout=0)


def test_close_ends_wait_ready(name):
    writer = Broadcast.create(name, readers=1)
    task = Task(writer.wait_ready)
    writer.close()
    with pytest.raises(penstock.Closed):
        task.outcome()


def test_close_from_many_threads_at_once(name):
    for _ in range(20):
        writer = Broadcast.create(name, readers=1)
        reader = Broadcast.attach(name, rank=0)
        tasks = [Task(handle.close) for handle in (writer, reader) for _ in range(4)]
        for task in tasks:
            task.outcome()
        assert writer.closed
        assert reader.closed


def test_state_can_be_asked_for_while_others_wait(pair):
    writer, reader = pair
    receiver = Task(reader.recv, timeout=WITHIN)
    eventually(lambda: reader.stats().waits > 0)
    assert reader.stats().messages == 0
    assert "rank 0" in repr(reader)
    assert writer.readers()[0].alive
    writer.send(1)
    receiver.outcome()


# Ctrl-C. The signal comes from a thread that has seen the main thread wait.


def interrupt_when(is_so) -> Task:
    def interrupt() -> float:
        eventually(is_so)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return time.monotonic()

    return Task(interrupt)


# 60 ms is the promise; the rest is for busy machines.
SOON = 1.0


def test_ctrl_c_gets_out_of_recv(pair):
    writer, reader = pair
    interrupter = interrupt_when(lambda: reader.stats().waits > 0)
    with pytest.raises(KeyboardInterrupt):
        reader.recv()
    assert time.monotonic() - interrupter.outcome() < SOON
    writer.send("still usable")
    assert reader.recv(timeout=0) == "still usable"


def test_ctrl_c_gets_out_of_send(pair):
    writer, reader = pair
    interrupter = interrupt_when(writer.blocked_by)
    sent = 0
    with pytest.raises(KeyboardInterrupt):
        while True:
            writer.send_bytes(sent.to_bytes(1000, "little"))
            sent += 1
    assert time.monotonic() - interrupter.outcome() < SOON
    for i in range(sent):
        assert int.from_bytes(reader.recv_bytes(timeout=0), "little") == i
    writer.send("still usable", timeout=0)
    assert reader.recv(timeout=0) == "still usable"


def test_ctrl_c_gets_out_of_a_loan(pair):
    writer, _ = pair
    interrupter = interrupt_when(writer.blocked_by)
    with pytest.raises(KeyboardInterrupt):
        while True:
            with writer.loan(1000):
                pass
    assert time.monotonic() - interrupter.outcome() < SOON


def test_ctrl_c_gets_out_of_wait_ready(name):
    with Broadcast.create(name, readers=1) as writer:
        ready = threading.Event()
        interrupter = interrupt_when(ready.is_set)
        with pytest.raises(KeyboardInterrupt):
            ready.set()
            writer.wait_ready()
        assert time.monotonic() - interrupter.outcome() < SOON


def test_ctrl_c_gets_out_of_attach(name):
    ready = threading.Event()
    interrupter = interrupt_when(ready.is_set)
    with pytest.raises(KeyboardInterrupt):
        ready.set()
        Broadcast.attach(name, rank=0, timeout=None)
    assert time.monotonic() - interrupter.outcome() < SOON


def test_ctrl_c_gets_out_of_waiting_for_ones_turn(pair):
    writer, reader = pair
    holder = Task(reader.recv, timeout=WITHIN)
    eventually(lambda: reader.stats().waits > 0)
    ready = threading.Event()
    interrupter = interrupt_when(ready.is_set)
    with pytest.raises(KeyboardInterrupt):
        ready.set()
        reader.recv()
    assert time.monotonic() - interrupter.outcome() < SOON
    writer.send("for the holder")
    assert holder.outcome() == "for the holder"


@pytest.fixture
def on_alarm():
    """Set the handler of SIGUSR1 for the length of the test."""
    before = signal.getsignal(signal.SIGUSR1)

    def handle(function) -> None:
        signal.signal(signal.SIGUSR1, lambda *_: function())

    yield handle
    signal.signal(signal.SIGUSR1, before)


def signal_when(is_so) -> Task:
    def send() -> None:
        eventually(is_so)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    return Task(send)


def test_a_signal_handler_runs_during_a_wait_and_the_wait_goes_on(pair, on_alarm):
    writer, reader = pair
    on_alarm(lambda: writer.send("from the handler"))
    sender = signal_when(lambda: reader.stats().waits > 0)
    assert reader.recv(timeout=WITHIN) == "from the handler"
    sender.outcome()


def test_a_signal_handler_is_refused_on_the_handle_that_waits(pair, on_alarm):
    _, reader = pair
    on_alarm(reader.recv)
    sender = signal_when(lambda: reader.stats().waits > 0)
    with pytest.raises(penstock.Busy, match="signal handler"):
        reader.recv(timeout=WITHIN)
    sender.outcome()


def test_a_signal_handler_may_close_the_handle_that_waits(pair, on_alarm):
    _, reader = pair
    on_alarm(reader.close)
    sender = signal_when(lambda: reader.stats().waits > 0)
    with pytest.raises(penstock.Closed):
        reader.recv(timeout=WITHIN)
    sender.outcome()
    assert reader.closed


# The end of the interpreter


@pytest.mark.parametrize("wait", ["reader.recv()", "blocked()", "writer.wait_ready()"])
def test_daemon_threads_that_wait_do_not_disturb_the_end(name, wait):
    outcome = run_script(
        f"""
        import sys, threading, penstock
        name = sys.argv[1]
        writer = penstock.Broadcast.create(name, readers=2, capacity="64KiB")
        reader = penstock.Broadcast.attach(name, rank=0)

        def blocked():
            while True:
                writer.send_bytes(bytes(1000))

        def work():
            {wait}

        for _ in range(3):
            threading.Thread(target=work, daemon=True).start()
        print("end")
        """,
        name,
    )
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "end\n", "")


def test_handles_left_open_are_closed_at_the_end(name):
    """Peers get Closed, not PeerDied; and nothing stays in /dev/shm."""
    with Broadcast.create(name, readers=1) as writer:
        outcome = run_script(
            """
            import sys, penstock
            keep = [
                penstock.Broadcast.attach(sys.argv[1], rank=0),
                penstock.Broadcast.create(sys.argv[1] + "-left-open", readers=1),
            ]
            keep.append(keep)  # a cycle: not freed before the end
            """,
            name,
        )
        assert (outcome.returncode, outcome.stderr) == (0, "")
        assert writer.readers()[0].life == "vacant"
        writer.send("nobody is missed", timeout=0)
        assert writer.stats().reader_deaths == 0
