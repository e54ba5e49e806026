"""Queues of arrays: Penstock's and its peers, from a producer's and a consumer's view.

A link is made by the driver before it forks its producers; ``open_producer()`` runs in each of
them. Producers put whole arrays, the consumer calls ``use(array)`` for each.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from processes import scratch_folder

import penstock

Array = np.ndarray[Any, np.dtype[np.int32]]
Use = Callable[[Any], None]  # an array, or another value of the link
PATIENCE = 30.0


@dataclass(frozen=True)
class QueuePlace:
    """The case: tokens an array, and the number of producers."""

    name: str
    tokens: int
    producers: int

    @property
    def nbytes(self) -> int:
        return 4 * self.tokens


class PenstockCopy:
    """``put`` and ``get``: the consumer owns what it gets."""

    name = "penstock"

    def __init__(self, place: QueuePlace) -> None:
        self._title = f"{place.name}.{type(self).__name__}"
        self._queue = penstock.Queue.create(self._title, capacity="64MiB", slots=1024)

    def open_producer(self) -> None:
        self._queue = penstock.Queue.attach(self._title, role="producer")

    def put(self, array: Any) -> None:
        self._queue.put(array, PATIENCE)

    def take(self, count: int, use: Use) -> None:
        for _ in range(count):
            use(self._queue.get(PATIENCE))

    def close(self) -> None:
        self._queue.close()


class PenstockViews(PenstockCopy):
    """``put`` and ``get_many``: the consumer reads in shared memory."""

    name = "penstock, views"

    def take(self, count: int, use: Use) -> None:
        while count > 0:
            with self._queue.get_many(max_items=min(count, 64), timeout=PATIENCE) as batch:
                count -= len(batch)
                for array in batch:
                    use(array)


class MultiprocessingQueue:
    name = "multiprocessing.Queue"

    def __init__(self, place: QueuePlace) -> None:
        self._queue = multiprocessing.get_context("fork").Queue(1024)

    def open_producer(self) -> None:
        pass

    def put(self, array: Any) -> None:
        self._queue.put(array.copy())  # its thread pickles it later: copy it

    def take(self, count: int, use: Use) -> None:
        for _ in range(count):
            use(self._queue.get(timeout=PATIENCE))

    def close(self) -> None:
        self._queue.close()
        self._queue.join_thread()


class FasterFifo:
    name = "faster-fifo"

    def __init__(self, place: QueuePlace) -> None:
        import faster_fifo

        self._queue = faster_fifo.Queue(max_size_bytes=64 << 20)

    def open_producer(self) -> None:
        pass

    def put(self, array: Any) -> None:
        self._queue.put(array, timeout=PATIENCE)

    def take(self, count: int, use: Use) -> None:
        while count > 0:
            batch = self._queue.get_many(timeout=PATIENCE, max_messages_to_get=min(count, 64))
            count -= len(batch)
            for array in batch:
                use(array)

    def close(self) -> None:
        self._queue.close()


class ZeroMq:
    """PUSH and PULL over ipc://, the array's bytes as one frame."""

    name = "zeromq push/pull"

    def __init__(self, place: QueuePlace) -> None:
        import zmq

        self._zmq = zmq
        self._address = f"ipc://{scratch_folder()}/{place.name}.push"
        self._driver = os.getpid()
        self._socket: Any = None

    def _open(self, kind: int) -> Any:
        socket = self._zmq.Context().socket(kind)
        socket.set_hwm(1024)
        socket.setsockopt(self._zmq.LINGER, 0)
        socket.setsockopt(self._zmq.RCVTIMEO, int(PATIENCE * 1000))
        return socket

    def open_producer(self) -> None:
        self._socket = self._open(self._zmq.PUSH)
        self._socket.connect(self._address)

    def open_consumer(self) -> None:
        self._socket = self._open(self._zmq.PULL)
        self._socket.bind(self._address)

    def put(self, array: Any) -> None:
        self._socket.send(array)

    def take(self, count: int, use: Use) -> None:
        for _ in range(count):
            use(np.frombuffer(self._socket.recv(), dtype=np.int32))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


class TorchQueue:
    """torch.multiprocessing.Queue: each tensor in its own file in shared memory."""

    name = "torch queue"
    DEPTH = 1024

    def __init__(self, place: QueuePlace) -> None:
        import torch
        import torch.multiprocessing

        self._torch = torch
        self._queue = torch.multiprocessing.get_context("fork").Queue(self.DEPTH)

    def open_producer(self) -> None:
        self._torch.set_num_threads(1)

    def put(self, array: Any) -> None:
        self._queue.put(self._torch.from_numpy(array.copy()))

    def take(self, count: int, use: Use) -> None:
        for _ in range(count):
            use(self._queue.get(timeout=PATIENCE).numpy())

    def close(self) -> None:
        self._queue.close()
        self._queue.join_thread()


class PythonRing:
    """A typical handwritten ring: slots in shared memory, two indices, lists of tokens. One
    producer and one consumer, both polling; correct on x86 only as far as its indices are not
    torn."""

    name = "ring in Python"
    SLOTS = 256

    def __init__(self, place: QueuePlace) -> None:
        self._tokens = place.tokens
        size = 16 + self.SLOTS * (8 + place.nbytes)
        self._memory = SharedMemory(f"{place.name}.ring", create=True, size=size)
        self._indices = np.ndarray((2,), dtype=np.uint64, buffer=self._memory.buf)
        self._driver = os.getpid()

    def open_producer(self) -> None:
        pass

    def _slot(self, index: int) -> tuple[Any, Array]:
        at = 16 + index % self.SLOTS * (8 + 4 * self._tokens)
        length = np.ndarray((1,), dtype=np.int64, buffer=self._memory.buf, offset=at)
        tokens = np.ndarray((self._tokens,), dtype=np.int32, buffer=self._memory.buf, offset=at + 8)
        return length, tokens

    def put(self, array: Any) -> None:
        tokens = array.tolist()  # a trajectory comes as a list
        written = int(self._indices[1])
        while written - int(self._indices[0]) == self.SLOTS:
            os.sched_yield()
        length, place = self._slot(written)
        length[0] = len(tokens)
        place[:] = tokens
        self._indices[1] = written + 1

    def take(self, count: int, use: Use) -> None:
        for _ in range(count):
            read = int(self._indices[0])
            while int(self._indices[1]) == read:
                os.sched_yield()
            length, place = self._slot(read)
            tokens = place[: int(length[0])].tolist()
            self._indices[0] = read + 1
            use(np.array(tokens, dtype=np.int32))

    def close(self) -> None:
        del self._indices
        self._memory.close()
        if os.getpid() == self._driver:
            self._memory.unlink()


KINDS: tuple[type[Any], ...] = (
    PenstockCopy,
    PenstockViews,
    MultiprocessingQueue,
    FasterFifo,
    ZeroMq,
    TorchQueue,
)


def build_links(place: Any, kinds: Sequence[type[Any]], only: Sequence[str]) -> Iterator[Any]:
    """The links whose packages are installed; ``only`` these, if it names any."""
    for kind in kinds:
        if not only or kind.name in only:
            with contextlib.suppress(ImportError):
                yield kind(place)


def build_queue_links(place: QueuePlace, only: Sequence[str]) -> Iterator[Any]:
    """The ring for one producer only, its limit."""
    kinds = (*KINDS, PythonRing) if place.producers == 1 else KINDS
    return build_links(place, kinds, only)
