"""A small baseline: a ring of pickled objects in shared memory, with one writer, in plain Python.

It represents handwritten code in engines that hands each object to their workers once. Only the
writer knows the keys; a reader gets an object's position and number. The oldest is removed when
room is needed, once every reader has counted itself off. It polls, is correct on x86 only, and a
reader that dies with the lock blocks all others.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import struct
from collections import deque
from multiprocessing.shared_memory import SharedMemory
from typing import Any

_HEADER = struct.Struct("<iii")  # number, size of everything, readers that are done
_DONE = struct.Struct("<i")
_DONE_AT = 8


class Ring:
    """Made before the fork, used on both sides."""

    def __init__(self, name: str, size: int, readers: int) -> None:
        self._memory = SharedMemory(name, create=True, size=size)
        self._maker = os.getpid()
        self._size = size
        self._readers = readers
        self._lock = multiprocessing.get_context("fork").Lock()
        # Private to the writer: addresses only grow, and are reduced when memory is accessed.
        self._places: dict[str, tuple[int, int]] = {}
        self._oldest: deque[tuple[int, str]] = deque()  # address and key
        self._end = 0
        self._number = 0

    def put(self, key: str, value: Any) -> tuple[int, int]:
        """Its position and number. MemoryError while the oldest is unread."""
        if key in self._places:
            return self._places[key]
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        about = pickle.dumps((type(value).__name__, len(data)), pickle.HIGHEST_PROTOCOL)
        size = _HEADER.size + len(about) + len(data)
        address = self._make_room(size)
        view = self._view(address, size)
        view[_HEADER.size : _HEADER.size + len(about)] = about
        view[-len(data) :] = data
        self._number += 1
        _HEADER.pack_into(view, 0, self._number, size, 0)
        self._end = address + size
        self._oldest.append((address, key))
        self._places[key] = (address, self._number)
        return self._places[key]

    def get(self, address: int, number: int) -> Any:
        """The object, and this reader counted off."""
        found, size, _ = _HEADER.unpack_from(self._memory.buf, address % self._size)
        if found != number:
            raise ValueError(f"object {number} has gone")
        view = self._view(address, size)
        _, nbytes = pickle.loads(view[_HEADER.size :])  # reads no further than it must
        data = bytearray(view[-nbytes:])
        with self._lock:
            (done,) = _DONE.unpack_from(view, _DONE_AT)
            _DONE.pack_into(view, _DONE_AT, done + 1)
        return pickle.loads(data)

    def _view(self, address: int, size: int) -> memoryview:
        start = address % self._size
        return self._memory.buf[start : start + size]

    def _make_room(self, size: int) -> int:
        """The address of that many bytes in one piece."""
        address = self._end
        left = self._size - address % self._size
        if size > left:
            address += left
        while self._oldest and address + size - self._oldest[0][0] > self._size:
            self._drop_oldest()
        if size > self._size:
            raise MemoryError(f"{size} bytes are more than the ring has")
        return address

    def _drop_oldest(self) -> None:
        address, key = self._oldest[0]
        (done,) = _DONE.unpack_from(self._memory.buf, address % self._size + _DONE_AT)
        if done < self._readers:
            raise MemoryError(f"{key!r} is still to be read")
        self._oldest.popleft()
        del self._places[key]

    def close(self) -> None:
        self._memory.close()
        if os.getpid() == self._maker:
            self._memory.unlink()
