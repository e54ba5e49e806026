"""vLLM's ``shm_broadcast`` over Penstock's Broadcast: the same names, signatures and results.

    writer = MessageQueue(n_reader=2, n_local_reader=2)
    reader = MessageQueue.create_from_handle(writer.export_handle(), rank=0)   # in each reader
    writer.wait_until_ready()                                                  # and in each reader
    writer.enqueue(obj);  reader.dequeue(timeout=1.0)

Large buffers travel by the same channel and in order; ``enqueue`` copies whatever the size; a dead
peer ends every wait by PeerDied, which names it, and ``shutdown()`` by RuntimeError("cancelled").
The constants are read at each call, from this module.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pickle
import shutil
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ... import BroadcastReader, BroadcastWriter, _core
from ...errors import Cancelled, PeerDied, Timeout, UnsupportedType
from . import conversations, group_queues, leftovers, messages, rings
from .arena import SLOT_BYTES, SLOTS, TensorArena
from .events import heeding
from .handles import Handle, NoRemoteReaders, SegmentHandle, SharedSegment, items_of
from .patience import Patience
from .peers import dead_reader, waited_for
from .spin_condition import SpinCondition
from .tensors import rebuild_tensor as _rebuild_tensor  # noqa: F401 (by the names of vLLM's)
from .tensors import reduce_tensor as _reduce_tensor  # noqa: F401

__all__ = [
    "LONG_WAIT_TIME_LOG_MSG",
    "SHM_NOTIFY_POLL_INTERVAL_S",
    "SHM_PATH",
    "SHM_READER_RECHECK_INTERVAL_MS",
    "SPINLOOP_EXT_ENABLED",
    "SPINLOOP_TIMEOUT_SECONDS",
    "VLLM_RINGBUFFER_WARNING_INTERVAL",
    "Handle",
    "MessageQueue",
    "ShmRingBuffer",
    "SpinCondition",
    "check_cgroup_memory_available",
    "check_shm_free_space",
    "from_bytes_big",
    "memory_fence",
    "to_bytes_big",
]

logger = logging.getLogger("vllm.penstock.shm_broadcast")

#: Seconds between two log lines of a call that waits.
VLLM_RINGBUFFER_WARNING_INTERVAL: float = int(
    os.environ.get("VLLM_RINGBUFFER_WARNING_INTERVAL", "60")
)
#: vLLM's readers look so often, as they may lose a notification. Here: bounds ``timeout_ms()``.
SHM_READER_RECHECK_INTERVAL_MS = 5000
SHM_NOTIFY_POLL_INTERVAL_S = 2.0  # of vLLM from 0.33 on; not used here
SPINLOOP_EXT_ENABLED = False  # waits are Penstock's own
SPINLOOP_TIMEOUT_SECONDS = 0.1
SHM_PATH = "/dev/shm"
LONG_WAIT_TIME_LOG_MSG = (
    "No available shared memory broadcast block found in %d seconds. This typically happens when "
    "some processes are hanging or doing some time-consuming work (e.g. compilation, weight/kv "
    "cache quantization)."
)

_LOOK_SECONDS = 0.05  # between two looks for dead readers by a writer that finds room
_fence = threading.Lock()

from_bytes_big = functools.partial(int.from_bytes, byteorder="big")


def to_bytes_big(value: int, size: int) -> bytes:
    """``value`` in ``size`` bytes, the highest first."""
    return value.to_bytes(size, "big")


def memory_fence() -> None:
    """A full fence of this thread, for code of vLLM's that keeps flags in shared memory itself."""
    _fence.acquire()
    _fence.release()


def check_cgroup_memory_available(required_bytes: int, allocation_name: str) -> None:
    """vLLM's function of that name, where vLLM is; it logs."""
    if "vllm" in sys.modules:
        with contextlib.suppress(ImportError):
            from vllm.utils.cpu_resource_utils import check_cgroup_memory_available as check

            check(required_bytes, allocation_name)


def check_shm_free_space(
    required_bytes: int,
    shm_path: str = SHM_PATH,
    *,
    allocation_name: str = "shared-memory allocation",
) -> None:
    """Raises RuntimeError if ``shm_path``, where it exists, has less free than required."""
    if os.path.isdir(shm_path):
        free = shutil.disk_usage(shm_path).free
        if free < required_bytes:
            raise RuntimeError(
                f"Insufficient space in {shm_path} for {allocation_name}: "
                f"{required_bytes / (1 << 20):.0f} MiB required, {free / (1 << 20):.0f} MiB free. "
                f"Increase {shm_path} (e.g. --shm-size or --ipc=host)."
            )
    check_cgroup_memory_available(required_bytes, allocation_name)


class ShmRingBuffer:
    """The ring of one MessageQueue: its geometry, and which messages are read.

    Without a ``name`` it makes a ring, of which this process is the writer; with one it names a
    ring that is there. Can be pickled. Any thread may use it.
    """

    data_offset = 0

    def __init__(
        self, n_reader: int, max_chunk_bytes: int, max_chunks: int, name: str | None = None
    ) -> None:
        self.n_reader = n_reader
        self.metadata_size = 1 + n_reader
        self.max_chunk_bytes = max_chunk_bytes
        self.max_chunks = max_chunks
        self.total_bytes_of_buffer = (max_chunk_bytes + self.metadata_size) * max_chunks
        self.metadata_offset = max_chunk_bytes * max_chunks
        self.is_creator = name is None
        self.writer: BroadcastWriter | None = None
        self.signals = 0  # messages of the handshake, which are in no chunk
        if name is None:
            check_shm_free_space(rings.CAPACITY, allocation_name="ShmRingBuffer")
            name = rings.new_name()
            self.writer = rings.create(name, n_reader)
        self.shared_memory = SharedSegment(name, rings.CAPACITY)

    def handle(self) -> tuple[int, int, int, str]:
        """The arguments with which another process makes its own."""
        return (self.n_reader, self.max_chunk_bytes, self.max_chunks, self.shared_memory.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return (ShmRingBuffer, self.handle())

    @contextmanager
    def get_metadata(self, current_idx: int) -> Iterator[memoryview]:
        """A copy of the flags of the chunk's latest message: written, and of each reader: read.

        Of the writer alone; writing to it changes nothing.
        """
        flags = bytearray(self.metadata_size)
        writer = self._of_writer("the flags")
        sent = writer.stats().messages - self.signals
        latest = sent - 1 - (sent - 1 - current_idx) % self.max_chunks
        if latest >= 0:
            flags[0] = 1
            for one in writer.readers():
                flags[1 + one.rank] = one.messages - self.signals > latest
        yield memoryview(flags)

    def get_data(self, current_idx: int) -> contextlib.AbstractContextManager[memoryview]:
        """Not possible: a message has no fixed place. Use a queue's ``acquire_write`` and
        ``acquire_read``."""
        raise NotImplementedError(
            f"chunk {current_idx} has no fixed place in a ring of Penstock's: use acquire_write() "
            "and acquire_read() of its MessageQueue"
        )

    def _of_writer(self, what: str) -> BroadcastWriter:
        if self.writer is None:
            raise NotImplementedError(f"{what} of a ring are had from its writer alone")
        return self.writer


class MessageQueue:
    """One writer, and a reader for each rank; every reader gets every object, in order.

    Any thread may use either side: objects are sent one at a time, and each received object goes to
    one thread. In a forked child it can't be used: attach there by the handle.
    """

    buffer: Any  #: ShmRingBuffer; None without local readers
    tensor_arena: TensorArena | None
    handle: Handle
    _writer: BroadcastWriter | None
    _reader: BroadcastReader | None
    _receive: Callable[[float | None], Any] | None  # of a reader: the next message
    _spin_condition: Any  # SpinCondition; None without local readers

    def __init__(
        self,
        n_reader: int,
        n_local_reader: int,
        local_reader_ranks: list[int] | None = None,
        max_chunk_bytes: int = 24 << 20,
        max_chunks: int = 10,
        connect_ip: str | None = None,
        enable_shm_tensor_arena: bool = False,
    ) -> None:
        """Makes the queue; this process is its writer.

        With ``enable_shm_tensor_arena`` tensors of 8 MiB or more stay in shared memory at the
        readers, read-only. Raises NoRemoteReaders if some readers are not local, and RuntimeError
        if /dev/shm has no room.
        """
        if local_reader_ranks is None:
            local_reader_ranks = list(range(n_local_reader))
        else:
            assert len(local_reader_ranks) == n_local_reader
        if n_reader > n_local_reader:
            raise NoRemoteReaders(
                f"{n_reader - n_local_reader} of {n_reader} readers are on other machines, to "
                "which this version of Penstock does not send: unset PENSTOCK_VLLM for engines of "
                "several machines"
            )
        self._begin(is_writer=True)
        self.n_local_reader = n_local_reader
        self.n_remote_reader = n_reader - n_local_reader
        if n_local_reader > 0:
            self.buffer = ShmRingBuffer(n_local_reader, max_chunk_bytes, max_chunks)
            self._writer = self.buffer.writer
            assert self._writer is not None
            leftovers.track(self._writer.name)
            self._leave_when_collected(self._writer)
            self._spin_condition = SpinCondition(False, self._writer)
            if enable_shm_tensor_arena:
                name = self.buffer.shared_memory.name
                self.tensor_arena = TensorArena(n_local_reader, SLOT_BYTES, SLOTS, name)
        self.handle = self._handle_of(local_reader_ranks)
        logger.debug("vLLM message queue communication handle: %s", self.handle)

    def _begin(self, is_writer: bool) -> None:
        self.shutting_down = False
        self.local_reader_rank = -1
        self.local_socket = None  # there is no second channel
        self.remote_socket = None
        self.tensor_arena = None
        self.buffer = None
        self._is_writer = is_writer
        self._is_local_reader = False
        self._is_remote_reader = False
        self._writer = None
        self._reader = None
        self._receive = None
        self._spin_condition = None
        self._is_ready = False
        self._early: deque[Any] = deque()  # received by wait_until_ready()
        self._leaving: Callable[[], Any] = lambda: None
        self._lost: PeerDied | None = None  # a writer can't go on without a reader
        self._beside: Callable[[], PeerDied | None] | None = None  # of a reader that awaits answers
        self._is_beside_known = False
        self._looked = 0.0

    def _leave_when_collected(self, side: BroadcastReader | BroadcastWriter) -> None:
        self._leaving = weakref.finalize(self, leftovers.leave, side, os.getpid(), self._is_writer)

    def _handle_of(self, local_reader_ranks: list[int]) -> Handle:
        if self.buffer is None:
            return Handle(local_reader_ranks=local_reader_ranks)
        address = f"penstock:{self.buffer.shared_memory.name}"
        return Handle(
            local_reader_ranks=local_reader_ranks,
            buffer_handle=SegmentHandle(self.buffer.handle()),
            local_subscribe_addr=address,
            local_notify_addr=address,
            tensor_arena_handle=None if self.tensor_arena is None else self.tensor_arena.handle(),
        )

    def export_handle(self) -> Handle:
        """What ``create_from_handle`` takes; can be pickled."""
        return self.handle

    @staticmethod
    def create_from_handle(handle: Handle, rank: int) -> MessageQueue:
        """Attach as the reader of ``rank``.

        Raises Incompatible for a handle of vLLM's own class, NotFound if the writer is gone, Busy
        if the rank has a reader, and NoRemoteReaders for a rank that is not local.
        """
        self = MessageQueue.__new__(MessageQueue)
        self._begin(is_writer=False)
        self.handle = handle
        if rank not in handle.local_reader_ranks:
            raise NoRemoteReaders(
                f"rank {rank} is on another machine than the writer, whose local readers are "
                f"{handle.local_reader_ranks}: this version of Penstock does not reach it"
            )
        self.buffer = ShmRingBuffer(*items_of(handle.buffer_handle, "MessageQueue"))
        self.local_reader_rank = handle.local_reader_ranks.index(rank)
        self._reader = rings.attach(self.buffer.shared_memory.name, self.local_reader_rank)
        self._leave_when_collected(self._reader)
        self._receive = self._reader.recv
        self._is_local_reader = True
        self._spin_condition = SpinCondition(True, self._reader)
        if handle.tensor_arena_handle is not None:
            self.tensor_arena = TensorArena(*handle.tensor_arena_handle)
            self._receive = functools.partial(self.tensor_arena.receive, self._reader)
        return self

    @property
    def current_idx(self) -> int:
        """The chunk of the next message, as vLLM counts them; -1 without local readers."""
        side = self._writer or self._reader
        if side is None:
            return -1
        count: int = side.stats().messages - (1 if self._is_ready else 0)
        return count % int(self.buffer.max_chunks)

    # --- the handshake, and the end --------------------------------------------------------------

    def wait_until_ready(self) -> None:
        """Wait until all readers have attached and the writer knows. Every process calls it.

        Raises PeerDied if one dies meanwhile, and RuntimeError("cancelled") after ``shutdown()``.
        """
        if self._writer is not None:
            writer = self._writer
            self._until_done(writer.wait_ready, None)
            self._send(messages.READY, None)
            self.buffer.signals += 1
            self._is_ready = True
            conversations.asks_others(writer)
        elif self._receive is not None and not self._is_ready:
            message = self._until_done(self._receive, None)
            self._is_ready = True
            if message != messages.READY:
                self._early.append(message)

    def shutdown(self) -> None:
        """Ends every wait on this queue in this process, now and later, by
        RuntimeError("cancelled"); calls that need no wait work as before. Any thread."""
        self.shutting_down = True
        if self._spin_condition is not None:
            self._spin_condition.cancel()

    def close(self) -> None:
        """Leave: readers get what was sent, then Closed. Done also when the queue is collected, and
        when the process ends."""
        self.shutdown()
        self._leaving()

    # --- objects ---------------------------------------------------------------------------------

    def enqueue(self, obj: Any, timeout: float | None = None) -> None:
        """Send an object, which may change as soon as this returns. Waits while the slowest reader
        leaves no room, for ``timeout`` seconds at most.

        Raises TimeoutError, PeerDied, RuntimeError("cancelled"), MemoryError (/dev/shm is full), or
        what pickle raises; then nothing was sent.
        """
        assert self._is_writer, "Only writers can enqueue"
        writer = self._writer
        if writer is None:
            return
        self._look_for_the_dead(writer)
        if self.tensor_arena is not None:
            message = self.tensor_arena.message_of(obj, writer)
        else:
            message = messages.message_of(obj)
        try:
            self._send(message, timeout)
        except UnsupportedType:  # a dtype that the typed codec does not know
            self._send(messages.pickled_message_of(obj), timeout)

    def dequeue(
        self, timeout: float | None = None, indefinite: Any = False, cancel: Any = None
    ) -> Any:
        """The next object, for which it waits ``timeout`` seconds at most. ``indefinite``: a long
        wait is expected, and is not logged. ``cancel``, an Event, ends the wait by
        RuntimeError("cancelled"); it may be the second argument, as in vLLM of 2025.

        The object is the caller's own, except large tensors of an arena. Raises TimeoutError,
        PeerDied or Closed (the writer is gone and everything was received), RuntimeError
        ("cancelled"), or what pickle raises; then the object is gone.
        """
        if self._receive is None:
            raise RuntimeError("Only readers can dequeue")
        receive, warns = heeding(cancel, indefinite, self._receive)
        started = time.monotonic()
        left = timeout
        message = self._take_early()
        while message == messages.READY:
            message = self._until_done(receive, left, warns)
            if message == messages.READY:
                self._is_ready = True
                left = None if timeout is None else timeout - (time.monotonic() - started)
        return messages.decode(message)

    @staticmethod
    def recv(socket: Any, timeout: float | None) -> Any:
        """From vLLM's second channel, within ``timeout`` seconds: what readers on other machines
        call. Raises NoRemoteReaders."""
        raise NoRemoteReaders(
            "a socket is where readers on other machines receive, to which this version of "
            "Penstock does not send; local readers use dequeue()"
        )

    def broadcast_object(self, obj: Any = None) -> Any:
        """``enqueue`` in the writer, which returns the object; ``dequeue`` in readers."""
        if self._is_writer:
            self.enqueue(obj)
            return obj
        return self.dequeue()

    def _take_early(self) -> Any:
        try:
            return self._early.popleft() if self._early else messages.READY
        except IndexError:  # another thread took it
            return messages.READY

    def _send(self, message: Any, timeout: float | None) -> None:
        assert self._writer is not None
        send = self._writer.send_bytes if type(message) is bytes else self._writer.send
        self._until_done(functools.partial(send, message), timeout)

    def _look_for_the_dead(self, writer: BroadcastWriter) -> None:
        """Raises PeerDied: the engine must learn of a death also where its writer finds room."""
        if self._lost is None:
            now = time.monotonic()
            if now - self._looked < _LOOK_SECONDS:
                return
            self._looked = now
            self._lost = dead_reader(writer)
        if self._lost is not None:
            died = PeerDied(*self._lost.args)
            died.rank = self._lost.rank
            raise died

    # --- chunks ----------------------------------------------------------------------------------

    @contextmanager
    def acquire_write(self, timeout: float | None = None) -> Iterator[memoryview]:
        """Room of ``max_chunk_bytes``, sent at the end of the block; dropped if it raises."""
        assert self._is_writer, "Only writers can acquire write"
        assert self._writer is not None
        writer, nbytes = self._writer, self.buffer.max_chunk_bytes
        self._look_for_the_dead(writer)

        def enter(seconds: float | None) -> tuple[Any, memoryview]:
            loan = writer.loan(nbytes, seconds)
            return loan, loan.__enter__()

        with _entered(self._until_done(enter, timeout)) as room:
            yield room

    @contextmanager
    def acquire_read(
        self, timeout: float | None = None, indefinite: Any = False, cancel: Any = None
    ) -> Iterator[memoryview]:
        """The bytes of the next message, in place; it is read at the end of the block, also if that
        raises. Of an object they are its pickle. It waits as ``dequeue`` does."""
        assert self._is_local_reader, "Only readers can acquire read"
        assert self._reader is not None
        reader = self._reader

        def enter(seconds: float | None) -> tuple[Any, Any]:
            view = reader.recv_view(seconds)
            return view, view.__enter__()

        attempt, warns = heeding(cancel, indefinite, enter)
        started = time.monotonic()
        while True:
            left = None if timeout is None else timeout - (time.monotonic() - started)
            with _entered(self._until_done(attempt, left, warns)) as message:
                if type(message) is tuple and message == messages.READY:
                    self._is_ready = True
                    continue
                yield _bytes_of(message)
                return

    # --- waiting ---------------------------------------------------------------------------------

    class ReadTimeoutWithWarnings(Patience):
        """The deadline of one call, and when its next warning is due."""

        def __init__(self, timeout: float | None, should_warn: bool) -> None:
            super().__init__(timeout, VLLM_RINGBUFFER_WARNING_INTERVAL if should_warn else None)

        def timeout_ms(self) -> int:
            """The next wait: at most the recheck interval. TimeoutError if no ms is left."""
            most = SHM_READER_RECHECK_INTERVAL_MS
            if self._warns_after is not None:
                most = min(most, int(self._warns_after * 1000))
            if self.timeout is None:
                return most
            left = int((self.deadline - time.monotonic()) * 1000)
            if left <= 0:
                raise TimeoutError
            return min(most, left)

    def _until_done(
        self,
        attempt: Callable[[float | None], Any],
        timeout: float | None,
        warns: bool = True,
    ) -> Any:
        """The result of ``attempt(seconds)``, repeated until the deadline; each Timeout before it
        is logged."""
        interval = VLLM_RINGBUFFER_WARNING_INTERVAL
        cancelled = self._spin_condition.cancelled
        started = time.monotonic()
        seconds = None if timeout is None else max(0.0, timeout)
        if warns and (seconds is None or seconds > interval):
            seconds = interval
        patience: Patience | None = None
        while True:
            if self._is_ready and self._reader is not None:
                seconds = self._until_next_look(self._reader, seconds)
            try:
                return _core.run_cancellable(cancelled, functools.partial(attempt, seconds))
            except Cancelled:
                raise RuntimeError("cancelled") from None
            except PeerDied as died:
                self._lost = died
                raise
            except Timeout:
                if patience is None:
                    patience = Patience(timeout, interval if warns else None, started)
                if patience.should_warn():
                    self._warn(interval, patience)
                if patience.is_over():
                    raise
                if self._beside is not None and (death := self._beside()) is not None:
                    raise death from None
            seconds = patience.seconds()

    def _until_next_look(self, reader: BroadcastReader, seconds: float | None) -> float | None:
        """At most that long may a reader wait before it looks for deaths beside its writer's."""
        if not self._is_beside_known:
            self._beside = conversations.deaths_beside(reader)
            self._is_beside_known = True
        if self._beside is None:
            return seconds
        look = conversations.LOOK_SECONDS
        return look if seconds is None else min(seconds, look)

    def _warn(self, interval: float, patience: Patience) -> None:
        side = self._writer or self._reader
        assert side is not None
        logger.info(
            LONG_WAIT_TIME_LOG_MSG + " For %.0f s this process waits for %s.",
            interval,
            patience.elapsed(),
            waited_for(side),
        )

    # --- process groups --------------------------------------------------------------------------

    @staticmethod
    def create_from_process_group_single_reader(
        pg: Any,
        max_chunk_bytes: int,
        max_chunks: int,
        reader_rank: int = 0,
        blocking: bool = False,
    ) -> tuple[MessageQueue, list[Handle]]:
        """A queue of each rank's own, read by the global rank ``reader_rank``: every rank of the
        group calls it.

        Returns this rank's queue and, on the reader's rank, the handles of all; else []. With
        ``blocking`` it waits until the reader has attached.
        """
        return group_queues.single_reader(
            MessageQueue, pg, max_chunk_bytes, max_chunks, reader_rank, blocking
        )

    @staticmethod
    def create_from_process_group(
        pg: Any,
        max_chunk_bytes: int,
        max_chunks: int,
        writer_rank: int = 0,
        external_writer_handle: Handle | None = None,
        blocking: bool = True,
    ) -> MessageQueue:
        """A queue from ``writer_rank`` to all other ranks: every rank of the group calls it.

        With an ``external_writer_handle`` that rank is a reader of that queue, like the others.
        ``blocking``: returns when all have attached. If the writer's rank fails, all ranks raise.
        """
        return group_queues.one_writer(
            MessageQueue,
            pg,
            max_chunk_bytes,
            max_chunks,
            writer_rank,
            external_writer_handle,
            blocking,
        )


@contextmanager
def _entered(block: tuple[Any, Any]) -> Iterator[Any]:
    """Ends a block that has begun elsewhere."""
    manager, value = block
    try:
        yield value
    except BaseException as error:
        manager.__exit__(type(error), error, error.__traceback__)
        raise
    manager.__exit__(None, None, None)


def _bytes_of(message: Any) -> memoryview:
    if isinstance(message, memoryview):
        return message
    value = message[0]
    return memoryview(value if len(message) > 1 else pickle.dumps(value))
