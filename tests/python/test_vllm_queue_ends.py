"""How waits on vLLM's MessageQueue end without a message: shutdown() from another thread, and the
death of a peer, which is named. vLLM 0.32 notices no death, and its writer, its handshake and its
second channel are deaf to shutdown()."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peers import WITHIN, eventually, state_of

import penstock
from penstock.integrations.vllm.engine_errors import dead_of_this_engine
from penstock.integrations.vllm.leftovers import remove_abandoned
from penstock.integrations.vllm.shm_broadcast import MessageQueue

SOON = 0.1  # seconds from a death until the others know
BUSY = 2.0  # the same on a machine that may be busy with other tests
PATIENT = WITHIN


def fill(writer: MessageQueue) -> None:
    """Until the ring is full."""
    with contextlib.suppress(TimeoutError):
        while True:
            writer.enqueue(bytes(100_000), timeout=0.02)


class Waiter:
    """A call that waits in a thread, and how it ended."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.error: BaseException | None = None
        self.ended = 0.0
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        eventually(self._is_asleep)

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:
            self.error = error
        self.ended = time.monotonic()

    def _is_asleep(self) -> bool:
        if self.ended:
            return True
        stat = Path(f"/proc/self/task/{self._thread.native_id}/stat")
        try:
            return stat.read_text(encoding="ascii").rpartition(")")[2].split()[0] == "S"
        except OSError:  # it has just ended
            return True

    def end(self) -> BaseException | None:
        self._thread.join(WITHIN)
        assert not self._thread.is_alive()
        return self.error


def writer_that_is_full() -> tuple[list[MessageQueue], MessageQueue, Callable[[], Any]]:
    writer = MessageQueue(1, 1)
    reader = MessageQueue.create_from_handle(writer.export_handle(), 0)
    fill(writer)
    return [writer, reader], writer, lambda: writer.enqueue(bytes(100_000))


def writer_in_the_handshake() -> tuple[list[MessageQueue], MessageQueue, Callable[[], Any]]:
    writer = MessageQueue(1, 1)
    return [writer], writer, writer.wait_until_ready


def reader_in_the_handshake() -> tuple[list[MessageQueue], MessageQueue, Callable[[], Any]]:
    writer = MessageQueue(1, 1)
    reader = MessageQueue.create_from_handle(writer.export_handle(), 0)
    return [writer, reader], reader, reader.wait_until_ready


def reader_without_messages() -> tuple[list[MessageQueue], MessageQueue, Callable[[], Any]]:
    queues, reader, _ = reader_in_the_handshake()
    return queues, reader, lambda: reader.dequeue(indefinite=True)


def reader_of_an_arena() -> tuple[list[MessageQueue], MessageQueue, Callable[[], Any]]:
    writer = MessageQueue(1, 1, enable_shm_tensor_arena=True)
    reader = MessageQueue.create_from_handle(writer.export_handle(), 0)
    return [writer, reader], reader, reader.dequeue


def reader_of_chunks() -> tuple[list[MessageQueue], MessageQueue, Callable[[], Any]]:
    queues, reader, _ = reader_in_the_handshake()

    def read() -> None:
        with reader.acquire_read():
            pass

    return queues, reader, read


WAITS = [
    writer_that_is_full, writer_in_the_handshake,
    reader_in_the_handshake, reader_without_messages, reader_of_an_arena, reader_of_chunks,
]  # fmt: skip


@pytest.mark.parametrize("begin", WAITS)
def test_shutdown_from_another_thread_ends_every_wait(begin: Any) -> None:
    queues, queue, call = begin()
    waiters = [Waiter(call) for _ in range(2)]
    queue.shutdown()
    queue.shutdown()
    for waiter in waiters:
        error = waiter.end()
        assert isinstance(error, RuntimeError)
        assert str(error) == "cancelled"
    assert queue.shutting_down
    with pytest.raises(RuntimeError, match="cancelled"):  # and later ones
        call()
    for one in queues:
        one.close()


def test_after_shutdown_what_needs_no_wait_is_done() -> None:
    writer = MessageQueue(1, 1)
    reader = MessageQueue.create_from_handle(writer.export_handle(), 0)
    writer.enqueue(1)
    writer.shutdown()
    reader.shutdown()
    writer.enqueue(2)
    assert [reader.dequeue(), reader.dequeue(timeout=1)] == [1, 2]
    with pytest.raises(RuntimeError, match="cancelled"):
        reader.dequeue(timeout=1)
    writer.close()
    reader.close()


def test_a_queue_whose_other_side_was_shut_down_goes_on() -> None:
    writer = MessageQueue(2, 2)
    first, second = (MessageQueue.create_from_handle(writer.export_handle(), n) for n in range(2))
    first.shutdown()
    writer.enqueue("all the same")
    assert second.dequeue(timeout=WITHIN) == "all the same"
    for one in (writer, first, second):
        one.close()


@pytest.mark.parametrize("how", ["second", "named", "chunk"])
def test_an_event_ends_a_wait_too(how: str) -> None:
    """As in vLLM of 2025, where it was the second argument."""
    queues, reader, _ = reader_in_the_handshake()
    event = threading.Event()

    def wait() -> None:
        if how == "second":
            reader.dequeue(None, event)
        elif how == "named":
            reader.dequeue(cancel=event, indefinite=True)
        else:
            with reader.acquire_read(cancel=event):
                pass

    waiter = Waiter(wait)
    event.set()
    error = waiter.end()
    assert isinstance(error, RuntimeError)
    assert str(error) == "cancelled"
    with pytest.raises(TimeoutError):
        reader.dequeue(0.05, threading.Event())
    queues[0].enqueue("still of use")
    assert reader.dequeue(None, event) == "still of use"
    for one in queues:
        one.close()


# Deaths


@pytest.mark.parametrize("begin", ["vllm_queues:error_of_dequeuing", "q.wait_until_ready"])
def test_a_reader_learns_that_its_writer_was_killed(peer: Any, begin: str) -> None:
    writer, reader = peer(), peer()
    handle = writer.call("do", "vllm_queues:create", "q", 1, 1)
    reader.call("do", "vllm_queues:attach", "q", handle, 0)
    if begin == "q.wait_until_ready":
        reader.start(begin)
        writer.kill()
        with pytest.raises(penstock.PeerDied, match=f"pid {writer.pid}"):
            reader.result()
    else:
        reader.start("do", begin, "q", PATIENT)
        writer.kill()
        died = time.monotonic()
        name, text, moment = reader.result()
        assert name == "PeerDied"
        assert f"pid {writer.pid}" in text
        assert moment - died < BUSY


def test_a_reader_receives_what_a_writer_sent_before_it_was_killed(peer: Any) -> None:
    writer = peer()
    handle = writer.call("do", "vllm_queues:create", "q", 1, 1)
    reader = MessageQueue.create_from_handle(handle, 0)
    for number in range(3):
        writer.call("q.enqueue", np.full(200_000, number, np.uint8))
    writer.kill()
    assert [int(reader.dequeue(timeout=WITHIN)[0]) for _ in range(3)] == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(penstock.PeerDied, match=f"pid {writer.pid}"):
            reader.dequeue()
    reader.close()


def test_a_blocked_writer_learns_that_its_reader_was_killed(peer: Any) -> None:
    writer, reader = peer(), peer()
    handle = writer.call("do", "vllm_queues:create", "q", 1, 1)
    reader.call("do", "vllm_queues:attach", "q", handle, 0)
    writer.start("do", "vllm_queues:error_of_enqueuing", "q", 100_000, PATIENT)
    reader.signal(signal.SIGSTOP)
    eventually(lambda: state_of(reader.pid) == "T")
    reader.kill()
    died = time.monotonic()
    name, text, moment = writer.result()
    assert name == "PeerDied"
    assert f"reader 0 of '{handle.buffer_handle[3]}' (pid {reader.pid}" in text
    assert moment - died < BUSY
    with pytest.raises(penstock.PeerDied, match=f"pid {reader.pid}"):  # it can't go on without it
        writer.call("q.enqueue", "next")


def test_a_writer_that_finds_room_learns_it_too(peer: Any) -> None:
    writer = MessageQueue(2, 2)
    others = [peer() for _ in range(2)]
    for rank, other in enumerate(others):
        other.call("do", "vllm_queues:attach", "q", writer.export_handle(), rank)
    writer.wait_until_ready()
    others[1].kill()
    with pytest.raises(penstock.PeerDied, match=f"reader 1 .*pid {others[1].pid}") as raised:  # noqa: PT012
        end = time.monotonic() + SOON
        while time.monotonic() < end:
            writer.enqueue("there is room for this")
        writer.enqueue("there is room for this")
    assert raised.value.rank == 1
    writer.close()


def test_who_awaits_an_answer_learns_that_another_worker_was_killed(peer: Any) -> None:
    """The one that is to answer may itself wait for the dead one, and never does."""
    requests = MessageQueue(2, 2)
    workers = [peer() for _ in range(2)]
    for rank, worker in enumerate(workers):
        worker.call("do", "vllm_queues:attach", "q", requests.export_handle(), rank)
    handle = workers[0].call("do", "vllm_queues:create", "out", 1, 1)
    answers = MessageQueue.create_from_handle(handle, 0)
    unrelated = MessageQueue(1, 1)
    alone = MessageQueue.create_from_handle(unrelated.export_handle(), 0)
    workers[0].start("out.wait_until_ready")
    answers.wait_until_ready()
    workers[0].result()
    requests.wait_until_ready()
    unrelated.wait_until_ready()
    alone.wait_until_ready()
    with pytest.raises(TimeoutError):
        answers.dequeue(timeout=0.2)
    waiters = [Waiter(answers.dequeue), Waiter(lambda: alone.dequeue(timeout=1.0))]
    workers[1].kill()
    died = time.monotonic()
    errors = [waiter.end() for waiter in waiters]
    assert isinstance(errors[0], penstock.PeerDied)
    assert f"reader 1 of '{requests.buffer.shared_memory.name}' (pid {workers[1].pid}" in str(
        errors[0]
    )
    assert errors[0].rank == 1
    assert waiters[0].ended - died < BUSY
    assert isinstance(errors[1], TimeoutError)  # of another engine
    for one in (requests, answers, unrelated, alone):
        one.close()


def test_the_handshake_learns_that_a_reader_was_killed(peer: Any) -> None:
    writer = MessageQueue(2, 2)
    other = peer()
    other.call("do", "vllm_queues:attach", "q", writer.export_handle(), 0)
    waiter = Waiter(writer.wait_until_ready)
    other.kill()
    error = waiter.end()
    assert isinstance(error, penstock.PeerDied)
    assert f"pid {other.pid}" in str(error)
    writer.close()


def test_a_writer_that_ends_lets_its_readers_drain(peer: Any) -> None:
    writer = peer()
    handle = writer.call("do", "vllm_queues:create", "q", 1, 1)
    reader = MessageQueue.create_from_handle(handle, 0)
    writer.call("q.enqueue", "last")
    writer.end()
    assert reader.dequeue(timeout=WITHIN) == "last"
    with pytest.raises(penstock.Closed):
        reader.dequeue(timeout=WITHIN)
    with pytest.raises(penstock.Error):
        MessageQueue.create_from_handle(handle, 0)
    reader.close()


def test_nothing_is_left_of_an_engine_that_was_killed(peer: Any) -> None:
    writer, reader = peer(), peer()
    handle = writer.call("do", "vllm_queues:create", "q", 1, 1)
    reader.call("do", "vllm_queues:attach", "q", handle, 0)
    file = Path(f"/dev/shm/penstock.{handle.buffer_handle[3]}")
    living = MessageQueue(1, 1)
    assert file.exists()
    reader.kill()
    writer.kill()
    remove_abandoned()  # as the next queue on this machine does
    assert not file.exists()
    assert Path(f"/dev/shm/penstock.{living.buffer.shared_memory.name}").exists()
    living.close()


def test_the_dead_of_an_engine_are_found_while_another_process_of_it_lives(peer: Any) -> None:
    writer, reader = peer(), peer()
    handle = writer.call("do", "vllm_queues:create", "q", 2, 2)
    reader.call("do", "vllm_queues:attach", "q", handle, 0)
    assert dead_of_this_engine() == []
    reader.kill()
    (said,) = dead_of_this_engine()
    assert f"(pid {reader.pid}) died" in said
    writer.kill()
    assert dead_of_this_engine() == []  # which engine it was is not known any more
    remove_abandoned()


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("role", ["writer", "reader"])
def test_a_kill_at_a_random_moment_is_told_to_those_who_wait(peer: Any, role: str) -> None:
    """Engines of a writer and two readers at full speed, one of whose processes is killed. As many
    as PENSTOCK_TEST_KILLS says; each takes about a second."""
    chance = random.Random(7)
    late = []
    for _ in range(int(os.environ.get("PENSTOCK_TEST_KILLS", "20"))):
        writer, *readers = peer(), peer(), peer()
        handle = writer.call("do", "vllm_queues:create", "q", 2, 2)
        for rank, reader in enumerate(readers):
            reader.call("do", "vllm_queues:attach", "q", handle, rank)
            reader.start("do", "vllm_queues:error_of_dequeuing", "q", PATIENT)
        writer.start("do", "vllm_queues:error_of_enqueuing", "q", 3000, PATIENT)
        victim, others = (writer, readers) if role == "writer" else (readers[0], [writer])
        time.sleep(chance.uniform(0, 0.05))  # the random moment
        victim.kill()
        died = time.monotonic()
        for one in others:
            name, text, moment = one.result()
            assert name == "PeerDied"
            assert f"pid {victim.pid}" in text
            late.append(moment - died)
        for one in (writer, *readers):
            if one is not victim:
                one.kill()
        remove_abandoned()
    assert sorted(late)[len(late) // 2] < SOON
