"""vLLM's MessageQueue over Broadcast: objects arrive as pickle would carry them, in order, and are
the receiver's own; waits end in time."""

from __future__ import annotations

import collections
import dataclasses
import enum
import gc
import logging
import multiprocessing
import pickle
import random
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from peers import WITHIN, eventually, needs_a_mount, state_of, with_own_shm

import penstock
from penstock.integrations.vllm import shm_broadcast
from penstock.integrations.vllm.shm_broadcast import Handle, MessageQueue, ShmRingBuffer

MIB = 1 << 20


class Status(enum.Enum):
    SUCCESS = 1


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Output:
    tokens: list[int]
    mask: Any = None


@pytest.fixture
def queue() -> Iterator[tuple[MessageQueue, MessageQueue]]:
    """A writer and its reader in this process."""
    writer = MessageQueue(1, 1)
    reader = MessageQueue.create_from_handle(writer.export_handle(), 0)
    writer.wait_until_ready()
    reader.wait_until_ready()
    yield writer, reader
    reader.close()
    writer.close()


def through(queue: tuple[MessageQueue, MessageQueue], value: Any) -> Any:
    queue[0].enqueue(value)
    return queue[1].dequeue(timeout=WITHIN)


VALUES = [
    None, True, 0, -(2**80), 1.5, "über", b"\0", bytearray(b"ab"), (), ((),), [()], [1, [2]],
    {1: "a"}, {"a", "b"}, 1 + 2j, Status.SUCCESS, Point(1, 2), Output([1, 2]), np.float32(2.5), len,
    ("execute_model", (Output([1]),), {"x": None}, 0), collections.OrderedDict(a=1), range(3),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:40])
def test_a_value_arrives_as_pickle_carries_it(queue: Any, value: Any) -> None:
    received = through(queue, value)
    assert received == value
    assert type(received) is type(value)


def test_references_within_an_object_are_kept(queue: Any) -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    received = through(queue, loop)
    assert received[1] is received
    shared = [1]
    first, second = through(queue, [shared, shared])
    assert first is second


ARRAYS = {
    "small": lambda: np.arange(10, dtype=np.int32),
    "large": lambda: np.arange(3 * MIB, dtype=np.int64),
    "read-only": lambda: np.frombuffer(bytes(range(200)), np.uint8),
    "large, read-only": lambda: np.frombuffer(bytes(MIB), np.uint8),
    "fortran": lambda: np.asfortranarray(np.arange(200_000.0).reshape(400, 500)),
    "strided": lambda: np.arange(200_000)[::3],
    "scalar": lambda: np.array(7),
    "empty": lambda: np.zeros((0, 3)),
    "structured": lambda: np.zeros(9, [("a", "i4"), ("b", "f8")]),
    "long double": lambda: np.arange(3, dtype=np.longdouble),
    "objects": lambda: np.array([None, "a"], dtype=object),
    "dates": lambda: np.array(["2026-01-01"], "M8[D]"),
}


@pytest.mark.parametrize("make", ARRAYS.values(), ids=ARRAYS.keys())
def test_an_array_arrives_as_pickle_carries_it(queue: Any, make: Any) -> None:
    sent = make()
    pickled = pickle.loads(pickle.dumps(sent, 5))
    received = through(queue, {"array": [sent]})["array"][0]
    assert type(received) is np.ndarray
    assert received.dtype == sent.dtype
    assert received.shape == sent.shape
    np.testing.assert_array_equal(received, sent)
    assert received.flags.writeable == pickled.flags.writeable
    assert received.flags.f_contiguous == pickled.flags.f_contiguous


TENSORS = {
    "small": lambda t: t.arange(10.0),
    "large": lambda t: t.randn(1024, 1024),
    "bfloat16": lambda t: t.randn(512, 512, dtype=t.bfloat16),
    "float8": lambda t: t.randn(32, 32).to(t.float8_e4m3fn),
    "empty": lambda t: t.empty(0, 8),
    "scalar": lambda t: t.tensor(3.14),
    "transposed": lambda t: t.randn(64, 64).t(),
    "with gradient": lambda t: t.randn(8, 8, requires_grad=True),
    "conjugate": lambda t: t.randn(4, dtype=t.complex64).conj(),
    "parameter": lambda t: t.nn.Parameter(t.randn(4), requires_grad=False),
}


@pytest.mark.parametrize("make", TENSORS.values(), ids=TENSORS.keys())
def test_a_tensor_arrives_as_pickle_carries_it(queue: Any, make: Any) -> None:
    torch = pytest.importorskip("torch")
    sent = make(torch)
    received = through(queue, {"tensor": sent, "meta": Output([1])})["tensor"]
    alone = through(queue, sent)
    for one in (received, alone):
        assert type(one) is type(sent)
        assert (one.dtype, one.shape) == (sent.dtype, sent.shape)
        assert one.requires_grad == sent.requires_grad
        assert torch.equal(one.detach().to(torch.complex64), sent.detach().to(torch.complex64))
        if one.numel() and not one.requires_grad:
            one.view(-1)[0] = 1.0  # writable


@pytest.mark.parametrize("nbytes", [100, 70_000, 8 * MIB, 30 * MIB])
@pytest.mark.parametrize("wrap", [lambda a: a, lambda a: Output([], a)], ids=["typed", "pickled"])
def test_what_is_enqueued_may_change_at_once(queue: Any, nbytes: int, wrap: Any) -> None:
    """vLLM 0.32 sends large messages from the caller's memory: 20 of 20 were wrong."""
    writer, reader = queue
    array = np.zeros(nbytes, np.uint8)
    for number in range(1, 6):
        array[:] = number
        writer.enqueue(wrap(array))
        array[:] = 0
        received = reader.dequeue(timeout=WITHIN)
        received = received if isinstance(received, np.ndarray) else received.mask
        assert received.min() == received.max() == number


@pytest.mark.parametrize("nbytes", [1000, MIB - 2, MIB, 24 * MIB])
def test_what_is_received_is_not_overwritten_by_later_messages(queue: Any, nbytes: int) -> None:
    writer, reader = queue
    first = through(queue, Output([1], np.full(nbytes // 2, 17, np.uint16))).mask
    for number in range(20):
        writer.enqueue(np.full(300_000, number, np.uint16))
        np.testing.assert_array_equal(reader.dequeue(timeout=WITHIN), number)
    np.testing.assert_array_equal(first, 17)
    first[0] = 42


def test_small_and_large_messages_keep_their_order(queue: Any) -> None:
    writer, reader = queue
    chance = random.Random(1)
    sizes = [chance.choice([10, 5000, 700_000, 5 * MIB]) for _ in range(60)]

    def send() -> None:
        for number, size in enumerate(sizes):
            writer.enqueue((number, np.full(size, number, np.uint8)), timeout=WITHIN)

    thread = threading.Thread(target=send)
    thread.start()
    for number, size in enumerate(sizes):
        got, array = reader.dequeue(timeout=WITHIN)
        assert (got, len(array), array[-1]) == (number, size, number)
    thread.join()


def test_an_object_that_cannot_be_pickled_is_not_sent(queue: Any) -> None:
    writer, reader = queue
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        writer.enqueue([lambda: None])
    writer.enqueue("next")
    assert reader.dequeue(timeout=WITHIN) == "next"


class Unloadable:
    def __reduce__(self) -> Any:
        return int, ("no number",)


def test_an_object_that_cannot_be_unpickled_is_gone(queue: Any) -> None:
    writer, reader = queue
    writer.enqueue(Unloadable())
    writer.enqueue("next")
    with pytest.raises(ValueError, match="no number"):
        reader.dequeue(timeout=WITHIN)
    assert reader.dequeue(timeout=WITHIN) == "next"


# Timeouts


def test_a_dequeue_ends_after_its_timeout(queue: Any) -> None:
    _, reader = queue
    for timeout in (0, -1, 0.05):
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            reader.dequeue(timeout=timeout)
        assert max(0, timeout) <= time.monotonic() - begin < WITHIN


def test_back_pressure_holds_for_messages_of_every_size(queue: Any) -> None:
    writer, reader = queue
    count = 0
    with pytest.raises(TimeoutError, match="reader 0"):  # noqa: PT012
        while True:
            writer.enqueue(bytes(100_000), timeout=0.05)
            count += 1
    assert count < 24
    reader.dequeue(timeout=WITHIN)
    writer.enqueue("there is room again", timeout=WITHIN)


@pytest.mark.parametrize("indefinite", [False, True])
def test_a_long_wait_is_logged_unless_it_is_indefinite(
    queue: Any, indefinite: bool, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(shm_broadcast, "VLLM_RINGBUFFER_WARNING_INTERVAL", 0.001)
    caplog.set_level(logging.INFO)
    with pytest.raises(TimeoutError):
        queue[1].dequeue(timeout=0.02, indefinite=indefinite)
    said = "No available shared memory broadcast block found in 0 seconds"
    assert (said in caplog.text) is not indefinite
    assert (f"the writer (pid {multiprocessing.current_process().pid}," in caplog.text) is (
        not indefinite
    )


def test_the_log_of_a_blocked_writer_names_the_reader(
    peer: Any, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(shm_broadcast, "VLLM_RINGBUFFER_WARNING_INTERVAL", 0.05)
    caplog.set_level(logging.INFO)
    writer = MessageQueue(1, 1)
    other = peer()
    other.call("do", "vllm_queues:attach", "q", writer.export_handle(), 0)
    with other.stopped():
        with pytest.raises(TimeoutError):  # noqa: PT012
            while True:
                writer.enqueue(bytes(100_000), timeout=0.2)
        assert f"reader 0 (pid {other.pid}" in caplog.text
        assert "stopped" in caplog.text
    writer.close()


def test_the_deadline_of_a_call(monkeypatch: Any) -> None:
    monkeypatch.setattr(shm_broadcast, "SHM_READER_RECHECK_INTERVAL_MS", 7)
    of = MessageQueue.ReadTimeoutWithWarnings
    assert of(timeout=None, should_warn=False).timeout_ms() == 7
    assert of(timeout=None, should_warn=True).timeout_ms() == 7
    assert not of(timeout=1, should_warn=True).should_warn()
    with pytest.raises(TimeoutError):
        of(timeout=-1, should_warn=False).timeout_ms()


# Threads


def test_two_threads_on_one_reader_get_each_object_once(queue: Any) -> None:
    """vLLM's readers may hang, or return wrong bytes."""
    writer, reader = queue
    got: list[tuple[int, int]] = []
    count = 600

    def take() -> None:
        while True:
            number, array = reader.dequeue(timeout=WITHIN)
            if number < 0:
                return
            got.append((number, int(array[-1]) if len(array) else 0))

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(count):
        writer.enqueue((number, np.full(number * 50, number % 251, np.uint8)))
    for _ in threads:
        writer.enqueue((-1, np.zeros(0)))
    for thread in threads:
        thread.join(WITHIN)
    assert sorted(got) == [(number, number % 251 if number else 0) for number in range(count)]


def test_an_output_thread_may_enqueue_beside_the_main_one(queue: Any) -> None:
    writer, reader = queue
    thread = threading.Thread(
        target=lambda: [writer.enqueue(("thread", n), timeout=WITHIN) for n in range(500)]
    )
    thread.start()
    for number in range(500):
        writer.enqueue(("main", number), timeout=WITHIN)
    thread.join()
    got = [reader.dequeue(timeout=WITHIN) for _ in range(1000)]
    for who in ("main", "thread"):
        assert [number for whose, number in got if whose == who] == list(range(500))


# Handles, other processes


def test_a_handle_has_vllms_fields_and_can_be_pickled(queue: Any) -> None:
    handle = queue[0].export_handle()
    assert [field.name for field in dataclasses.fields(Handle)] == [
        "local_reader_ranks", "buffer_handle", "local_subscribe_addr", "local_notify_addr",
        "remote_subscribe_addr", "remote_addr_ipv6", "tensor_arena_handle",
    ]  # fmt: skip
    copy = pickle.loads(pickle.dumps(handle))
    assert copy == handle
    assert dataclasses.replace(handle, remote_addr_ipv6=True).buffer_handle == handle.buffer_handle
    assert handle.local_reader_ranks == [0]
    assert handle.remote_subscribe_addr is None


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_handle_reaches_other_processes(peer: Any, method: str) -> None:
    writer = MessageQueue(2, 2, local_reader_ranks=[3, 5])
    others = [peer(method) for _ in range(2)]
    for other, rank in zip(others, (3, 5), strict=True):
        other.call("do", "vllm_queues:attach", "q", writer.export_handle(), rank)
        other.start("q.wait_until_ready")
    writer.wait_until_ready()
    for other in others:
        other.result()
        other.start("do", "vllm_queues:sums", "q", 3, WITHIN)
    for size in (10, 100_000, 9 * MIB):
        writer.enqueue(np.ones(size, np.uint8))
    for other in others:
        assert other.result() == [10, 100_000, 9 * MIB]
    writer.close()


def test_a_worker_replies_through_a_queue_of_its_own(peer: Any) -> None:
    """The executor's pattern: one broadcast, a reply of each worker."""
    requests = MessageQueue(2, 2)
    workers = [peer() for _ in range(2)]
    replies = []
    for rank, worker in enumerate(workers):
        worker.call("do", "vllm_queues:attach", "q", requests.export_handle(), rank)
        handle = worker.call("do", "vllm_queues:create", "out", 1, 1)
        replies.append(MessageQueue.create_from_handle(handle, 0))
        worker.start("q.wait_until_ready")
    requests.wait_until_ready()
    for worker, reply in zip(workers, replies, strict=True):
        worker.result()
        worker.start("out.wait_until_ready")
        reply.wait_until_ready()
        worker.result()
    for number in range(20):
        requests.enqueue(("execute_model", (Output([number]),), {}, 0))
        for worker, reply in zip(workers, replies, strict=True):
            method, args, _, _ = worker.call("q.dequeue", indefinite=True)
            worker.call("out.enqueue", (method, args[0].tokens))
            assert reply.dequeue(timeout=WITHIN) == ("execute_model", [number])
    for one in (requests, *replies):
        one.close()


def test_messages_wait_for_a_rank_that_attaches_later() -> None:
    writer = MessageQueue(1, 1)
    writer.enqueue("early")
    reader = MessageQueue.create_from_handle(writer.export_handle(), 0)
    reader.wait_until_ready()  # the writer never called it
    assert reader.dequeue(timeout=WITHIN) == "early"
    writer.close()
    reader.close()


def test_a_queue_without_readers_sends_nothing() -> None:
    writer = MessageQueue(0, 0)
    writer.wait_until_ready()
    assert writer.broadcast_object("kept") == "kept"
    assert (writer.buffer, writer.current_idx) == (None, -1)
    assert writer.export_handle().buffer_handle is None
    writer.shutdown()


def test_readers_on_other_machines_are_refused_in_words() -> None:
    with pytest.raises(penstock.Error, match="other machines") as raised:
        MessageQueue(2, 1, connect_ip="127.0.0.1")
    assert isinstance(raised.value, NotImplementedError)
    writer = MessageQueue(1, 1)
    with pytest.raises(NotImplementedError, match="rank -1 is on another machine"):
        MessageQueue.create_from_handle(writer.export_handle(), -1)
    writer.close()


def test_a_handle_of_the_other_kind_is_refused_in_words() -> None:
    writer = MessageQueue(1, 1)
    handle = writer.export_handle()
    assert handle.buffer_handle is not None
    with pytest.raises(penstock.Incompatible, match="PENSTOCK_VLLM=1"):
        ShmRingBuffer(*handle.buffer_handle)
    theirs = Handle([0], (1, MIB, 10, "psm_0123"), "ipc:///tmp/a", "ipc:///tmp/b")
    with pytest.raises(penstock.Incompatible, match="vLLM's own MessageQueue"):
        MessageQueue.create_from_handle(theirs, 0)
    writer.close()


def test_only_one_reader_has_a_rank(queue: Any) -> None:
    with pytest.raises(penstock.Busy, match=r"rank 0 .* has a reader"):
        MessageQueue.create_from_handle(queue[0].export_handle(), 0)


# Chunks, and the ring


def test_chunks_are_lent_and_read_in_place() -> None:
    writer = MessageQueue(1, 1, max_chunk_bytes=MIB, max_chunks=2)
    reader = MessageQueue.create_from_handle(writer.export_handle(), 0)
    writer.wait_until_ready()
    with writer.acquire_write(timeout=WITHIN) as chunk:
        assert len(chunk) == MIB
        chunk[:3] = b"abc"
    with pytest.raises(RuntimeError, match="dropped"), writer.acquire_write():
        raise RuntimeError("dropped")
    with reader.acquire_read(timeout=WITHIN) as chunk:
        assert bytes(chunk[:3]) == b"abc"
    writer.enqueue({"an": "object"})
    with pytest.raises(RuntimeError, match="failed"), reader.acquire_read():
        raise RuntimeError("failed")
    with writer.buffer.get_metadata(1) as flags:
        assert bytes(flags) == b"\1\1"  # read all the same
    with pytest.raises(TimeoutError), reader.acquire_read(timeout=0.01):
        pass
    with pytest.raises(AssertionError, match="Only writers"), reader.acquire_write():
        pass
    with pytest.raises(AssertionError, match="Only readers"), writer.acquire_read():
        pass
    writer.close()
    reader.close()


def test_the_ring_tells_its_geometry_and_its_flags(queue: Any) -> None:
    writer, reader = queue
    ring = pickle.loads(pickle.dumps(writer.buffer))
    assert ring.handle() == writer.buffer.handle() == (1, 24 * MIB, 10, ring.shared_memory.name)
    assert (ring.is_creator, writer.buffer.is_creator) == (False, True)
    assert (writer.current_idx, reader.current_idx) == (0, 0)
    with writer.buffer.get_metadata(0) as flags:
        assert bytes(flags) == b"\0\0"
    writer.enqueue(1)
    with writer.buffer.get_metadata(0) as flags:
        assert bytes(flags) == b"\1\0"
    reader.dequeue(timeout=WITHIN)
    assert (writer.current_idx, reader.current_idx) == (1, 1)
    with pytest.raises(NotImplementedError), writer.buffer.get_data(0):
        pass


def test_a_side_does_only_its_part(queue: Any) -> None:
    writer, reader = queue
    with pytest.raises(AssertionError, match="Only writers can enqueue"):
        reader.enqueue(1)
    with pytest.raises(RuntimeError, match="Only readers can dequeue"):
        writer.dequeue()
    assert writer.broadcast_object("x") == reader.broadcast_object() == "x"


def test_check_shm_free_space(tmp_path: Any, monkeypatch: Any) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        shm_broadcast, "check_cgroup_memory_available", lambda *args: asked.append(args)
    )
    shm_broadcast.check_shm_free_space(1, str(tmp_path), allocation_name="a test")
    shm_broadcast.check_shm_free_space(1 << 60, str(tmp_path / "missing"))
    assert asked == [(1, "a test"), (1 << 60, "shared-memory allocation")]
    with pytest.raises(RuntimeError, match=f"Insufficient space in {tmp_path} for a test: .*MiB"):
        shm_broadcast.check_shm_free_space(1 << 60, str(tmp_path), allocation_name="a test")


def test_small_functions() -> None:
    assert shm_broadcast.from_bytes_big(shm_broadcast.to_bytes_big(258, 4)) == 258
    shm_broadcast.memory_fence()


# Costs


def test_a_queue_takes_a_twentieth_of_the_memory_and_gives_back_what_a_large_message_took(
    queue: Any,
) -> None:
    """vLLM's default queue has 240 MiB."""
    writer = queue[0]._writer
    before = writer.stats().reserved_bytes
    assert before < 240 * MIB / 20
    through(queue, np.zeros(64 * MIB, np.uint8))
    assert writer.stats().reserved_bytes > 64 * MIB

    def gave_back() -> bool:
        through(queue, "a later message")
        return writer.stats().reserved_bytes <= before

    eventually(gave_back)


@needs_a_mount
def test_dockers_64_mb_are_enough_for_eight_workers() -> None:
    """vLLM's queues have 2 GiB, of which any page may be one too many."""
    done = with_own_shm(
        """
        from penstock.integrations.vllm.shm_broadcast import MessageQueue
        import numpy as np

        queues = [MessageQueue(8, 8, max_chunk_bytes=16 << 20), MessageQueue(7, 7)]
        queues += [MessageQueue(1, 1) for _ in range(8)]
        reader = MessageQueue.create_from_handle(queues[2].export_handle(), 0)
        queues[2].enqueue(np.ones(16 << 20, np.uint8))
        print(reader.dequeue(timeout=10).sum() >> 20)
        try:
            queues[2].enqueue(np.ones(100 << 20, np.uint8))
        except MemoryError as error:
            print("/dev/shm" in str(error))
        queues[2].enqueue("goes on")
        print(reader.dequeue(timeout=10))
        try:
            while True:
                queues.append(MessageQueue(1, 1))
        except RuntimeError as error:
            print(str(error)[:48])
        """,
        mount="size=64m",
    )
    said = "Insufficient space in /dev/shm for ShmRingBuffer"
    assert done.stdout.splitlines() == ["16", "True", "goes on", said], done.stderr


def test_an_idle_reader_uses_no_processor(peer: Any) -> None:
    """vLLM's spins for a second after each message."""
    writer = MessageQueue(1, 1)
    other = peer()
    other.call("do", "vllm_queues:attach", "q", writer.export_handle(), 0)
    writer.enqueue(1)
    assert other.call("q.dequeue", timeout=WITHIN) == 1
    assert other.call("do", "vllm_queues:seconds_of_idling", "q", 1.0) < 0.05
    other.start("q.dequeue", timeout=WITHIN)
    eventually(lambda: state_of(other.pid) == "S")
    writer.enqueue(2)
    assert other.result() == 2
    writer.close()


@pytest.mark.full
def test_a_reader_does_not_grow_with_its_messages(peer: Any) -> None:
    """vLLM 0.32's grows by 14 bytes for each."""
    writer = MessageQueue(1, 1)
    other = peer()
    other.call("do", "vllm_queues:attach", "q", writer.export_handle(), 0)
    sizes = []
    for count in (5_000, 40_000):
        other.start("do", "vllm_queues:memory_after", "q", count)
        for number in range(count):
            writer.enqueue(("execute_model", number), timeout=WITHIN)
        sizes.append(other.result())
    assert sizes[1] - sizes[0] < 4 * 40_000
    writer.close()


def test_a_reader_in_a_reference_cycle_is_collected() -> None:
    writer = MessageQueue(1, 1)
    reader: Any = MessageQueue.create_from_handle(writer.export_handle(), 0)
    reader.cycle = reader
    gone = weakref.ref(reader)
    del reader
    gc.collect()
    assert gone() is None
    writer.close()


# The arena


def held_after_another(writer: MessageQueue, reader: MessageQueue) -> int:
    """Bytes in large messages after another, at which the writer takes back what is free."""
    writer.enqueue(np.zeros(MIB, np.uint8))
    reader.dequeue(timeout=WITHIN)
    assert writer._writer is not None
    return writer._writer.stats().held_bytes


def test_large_tensors_of_an_arena_stay_in_shared_memory(monkeypatch: Any) -> None:
    torch = pytest.importorskip("torch")
    writer = MessageQueue(1, 1, enable_shm_tensor_arena=True)
    reader = MessageQueue.create_from_handle(writer.export_handle(), 0)
    assert writer.tensor_arena == reader.tensor_arena is not None
    sent = {
        "huge": torch.randn(2048, 2048),
        "parameter": torch.nn.Parameter(torch.randn(2048, 1024), requires_grad=False),
        "array": np.arange(2 * MIB),
        "small": torch.arange(5),
        "strided": torch.randn(3000, 3000).t(),
        "text": Output([1]),
    }
    writer.enqueue(sent)
    got = reader.dequeue(timeout=WITHIN)
    for name in ("huge", "parameter", "small", "strided"):
        assert type(got[name]) is type(sent[name])
        assert torch.equal(got[name], sent[name])
    np.testing.assert_array_equal(got["array"], sent["array"])
    for name in ("array", "small", "strided"):  # its own
        got[name][0] = 1
    assert got["text"] == sent["text"]
    view = got["huge"][5:7]
    del got
    assert held_after_another(writer, reader) >= 16 * MIB
    assert torch.equal(view, sent["huge"][5:7])
    del view
    assert held_after_another(writer, reader) < 16 * MIB
    for other in ([1, "a"], "b", {"c": 1.5}):
        assert through((writer, reader), other) == other
    through((writer, reader), np.arange(3))[0] = 5
    monkeypatch.setattr(writer.tensor_arena.__class__, "total_bytes", MIB)  # an arena that is full
    writer.enqueue(sent["huge"])
    reader.dequeue(timeout=WITHIN)[0, 0] = 1.0
    writer.close()
    reader.close()


def test_on_a_cpu_a_model_may_write_into_what_came_by_an_arena(monkeypatch: Any) -> None:
    torch = pytest.importorskip("torch")
    platform = SimpleNamespace(is_cpu=lambda: True)
    monkeypatch.setitem(sys.modules, "vllm.platforms", SimpleNamespace(current_platform=platform))
    writer = MessageQueue(1, 1, enable_shm_tensor_arena=True)
    readers = [MessageQueue.create_from_handle(writer.export_handle(), 0)]
    sent = torch.randn(2048, 2048)
    got = through((writer, readers[0]), sent)
    assert torch.equal(got, sent)
    got[0, 0] = 1.0
    assert held_after_another(writer, readers[0]) < 16 * MIB
    writer.close()
    readers[0].close()
