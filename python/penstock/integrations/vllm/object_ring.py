"""vLLM's SingleWriterShmRingBuffer over a Store: chunks that one process writes and others read.

A chunk has an address and an id, as there, and is an object of the Store under both, so that an
old handle never leads to another chunk. Its memory is reserved before it is promised, may be larger
than 2 GiB, and stays readable until the last reader that is reading it has finished.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ... import Store
from ...errors import Incompatible, NoSpace, NotFound
from .chunks import Chunks
from .handles import SharedSegment
from .leftovers import leave, remove_abandoned, track

__all__ = ["SingleWriterShmRingBuffer"]

_SECRET = "secret"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
_FULL = "Not enough space in the data buffer, try calling free_buf() to free up space"
_MOST_OBJECTS = 1 << 14  # 256 KiB each in 4 GiB, the size of vLLM's cache by default


class SingleWriterShmRingBuffer:
    """A ring of ``data_buffer_size`` bytes. With ``create`` this process is its writer, and the
    only one that allocates and frees; others attach by the name.

    A chunk can be written in the first ``access_buf`` block after its allocation, at whose end it
    becomes visible; afterwards it is read-only in all processes. One thread of the writer at a
    time; any thread of a reader.
    """

    ID_NBYTES = 4
    ID_MAX = 1 << 31  # ids wrap there
    SIZE_NBYTES = 4
    MD_SIZE = ID_NBYTES + SIZE_NBYTES  # of each chunk, counted as vLLM counts
    AUTH_SECRET_BYTES = 32
    DATA_OFFSET = AUTH_SECRET_BYTES

    def __init__(self, data_buffer_size: int, name: str | None = None, create: bool = False):
        """Raises FileExistsError if the name is taken, FileNotFoundError if there is no such ring,
        and Incompatible if vLLM's own ring has the name."""
        self.data_buffer_size = data_buffer_size
        self.is_writer = create
        self.monotonic_id_start = 0
        self.monotonic_id_end = 0
        self.data_buffer_start = 0
        self.data_buffer_end = 0
        self.metadata: dict[int, int] = {}  #: id to address, oldest first; of the writer alone
        self._chunks = Chunks(data_buffer_size)
        self._ids: dict[int, int] = {}  # address to id
        self._staged: dict[int, Any] = {}  # id to reservation, until it is written
        # Chunks from before clear(), readable until their addresses are used again.
        self._stale = Chunks(data_buffer_size)
        self._stale_ids: dict[int, int] = {}
        if create:
            self._create(name or f"vllm-objects-{os.getpid()}-{secrets.token_hex(8)}")
        else:
            self._attach(name or "")
        self._leaving = weakref.finalize(self, leave, self._store, os.getpid(), create)

    def _create(self, name: str) -> None:
        remove_abandoned()
        size = self.data_buffer_size
        self._store = Store.create(
            _segment_of(name),
            # Beyond the ring's size for what rounding and gaps cost; reserved only when used.
            capacity=size + size // 4 + (1 << 20),
            objects=min(_MOST_OBJECTS, max(1024, size // 64)),
            eviction="none",
            granule=_granule_of(size),
        )
        track(self._store.name)
        self._secret = secrets.token_bytes(self.AUTH_SECRET_BYTES)
        self._store.put_bytes(_SECRET, self._secret, meta=size)
        self.shared_memory = SharedSegment(name, size + self.DATA_OFFSET)

    def _attach(self, name: str) -> None:
        try:
            self._store = Store.attach(_segment_of(name))
        except NotFound:
            if os.path.exists(os.path.join("/dev/shm", name.lstrip("/"))):
                raise Incompatible(
                    f"'{name}' is a ring of vLLM's own, to which Penstock's can't attach: set "
                    "PENSTOCK_VLLM=1 in every process of this engine, or in none"
                ) from None
            raise
        with self._store.get(_SECRET) as secret:
            self._secret = bytes(secret)
        size = self._store.meta(_SECRET)
        assert size >= self.data_buffer_size, f"'{name}' has {size} bytes only"
        self.shared_memory = SharedSegment(name, size + self.DATA_OFFSET)

    def handle(self) -> tuple[int, str]:
        """The arguments with which another process attaches."""
        return (self.data_buffer_size, self.shared_memory.name)

    def get_auth_secret(self) -> bytes:
        """The secret with which handles are signed."""
        assert not self._store.closed, "Buffer has been closed"
        return self._secret

    def close(self) -> None:
        """Leave. The memory goes with the last process that leaves. Idempotent."""
        if hasattr(self, "_leaving"):  # it was made
            for staged in self._staged.values():
                staged.abort()
            self._staged.clear()
            self._leaving()

    def __del__(self) -> None:
        self.close()

    def int2byte(self, integer: int) -> bytes:
        """An id in ID_NBYTES bytes, as vLLM writes it."""
        return integer.to_bytes(self.ID_NBYTES, "little", signed=True)

    def byte2int(self, byte_data: bytes) -> int:
        """The reverse of ``int2byte``."""
        return int.from_bytes(byte_data, "little", signed=True)

    # --- the writer ------------------------------------------------------------------------------

    def allocate_buf(self, size: int) -> tuple[int, int]:
        """Room for ``size`` bytes: its address and id. Raises MemoryError."""
        assert self.is_writer, "Only the writer can allocate buffers."
        assert size > 0, "Size must be greater than 0"
        assert not self._store.closed, "Buffer has been closed"
        nbytes = size + self.MD_SIZE
        address = self._chunks.take(nbytes)
        if address is None:
            raise MemoryError(_FULL)
        self._drop_stale(self._stale.overlapping(address, nbytes))
        number = self.monotonic_id_end
        try:
            self._staged[number] = self._reserve(address, number, size)
        except BaseException:
            self._chunks.remove(address)
            raise
        self.metadata[number] = address
        self._ids[address] = number
        self.monotonic_id_end = (number + 1) % self.ID_MAX
        self._note_bounds()
        return address, number

    def _reserve(self, address: int, number: int, size: int) -> Any:
        key, meta = _key(address, number), size + self.MD_SIZE
        try:
            return self._store.reserve(key, size, meta=meta)
        except NoSpace:
            self._drop_stale([start for start, _ in self._stale.pieces()])
        try:
            return self._store.reserve(key, size, meta=meta)
        except NoSpace as error:
            raise MemoryError(f"{_FULL}: {error}") from error

    def free_buf(
        self, is_free_fn: Callable[[int, memoryview], bool], nbytes: int | None = None
    ) -> Iterable[int]:
        """Frees chunks that ``is_free_fn(id, data)`` says are free, oldest first, until ``nbytes``
        bytes are (None: all); returns their ids. A chunk that is not free blocks no other."""
        assert self.is_writer, "Only the writer can free buffers."
        wanted = self.data_buffer_size if nbytes is None else nbytes
        freed: list[int] = []
        total = 0
        for number, address in list(self.metadata.items()):
            if total >= wanted:
                break
            with self._view_of(address, number) as (data, size):
                is_free = is_free_fn(number, data)
            if is_free:
                self._free(number, address)
                freed.append(number)
                total += size
        self._note_bounds()
        return freed

    def _free(self, number: int, address: int) -> None:
        staged = self._staged.pop(number, None)
        if staged is None:
            self._store.delete(_key(address, number))
        else:
            staged.abort()
        self._chunks.remove(address)
        del self.metadata[number], self._ids[address]

    def clear(self) -> None:
        """Frees all chunks. Ids go on; a chunk can be read until its address is used again."""
        assert self.is_writer, "Only the writer can clear the buffer."
        for staged in self._staged.values():
            staged.abort()
        for address, nbytes in self._chunks.pieces():
            number = self._ids[address]
            if number not in self._staged:
                self._stale.add(address, nbytes)
                self._stale_ids[address] = number
        self._staged.clear()
        self._chunks.clear()
        self.metadata.clear()
        self._ids.clear()
        self._note_bounds()

    def _drop_stale(self, addresses: list[int]) -> None:
        for address in addresses:
            self._stale.remove(address)
            self._store.delete(_key(address, self._stale_ids.pop(address)))

    def _note_bounds(self) -> None:
        """Sets the bounds as vLLM does: from the oldest chunk to behind the newest one."""
        oldest = next(iter(self.metadata), None)
        if oldest is None:
            self.monotonic_id_start = self.monotonic_id_end
            self.data_buffer_start = self.data_buffer_end = 0
            return
        newest = self.metadata[next(reversed(self.metadata))]
        self.monotonic_id_start = oldest
        self.data_buffer_start = self.metadata[oldest]
        self.data_buffer_end = newest + self._chunks.length(newest)

    # --- access ----------------------------------------------------------------------------------

    @contextmanager
    def access_buf(self, address: int) -> Iterator[tuple[memoryview, tuple[int, int]]]:
        """The data at an address, and (id, size with metadata); (-1, 0) if there is none."""
        assert not self._store.closed, "Buffer has been closed"
        place = address % self.data_buffer_size
        number = self._ids.get(place) if self.is_writer else self._look_up(place)
        if number is None:
            yield memoryview(b""), (-1, 0)
        elif number in self._staged:
            staged = self._staged[number]
            yield staged.room, (number, staged.nbytes + self.MD_SIZE)
            del self._staged[number]
            staged.commit()
        else:
            with self._view_of(place, number) as (data, size):
                yield data, (number, size)

    @contextmanager
    def view(self, address: int, number: int) -> Iterator[memoryview | None]:
        """The data of that id at that address, pinned for the block; None if it is not there."""
        assert not self._store.closed, "Buffer has been closed"
        found = self._store.get(_key(address, number), None)
        if found is None:
            yield None
        else:
            with found as data:
                yield data

    def holds(self, address: int, number: int) -> bool:
        """Whether that id is at that address, and can be read."""
        return _key(address, number) in self._store

    @contextmanager
    def _view_of(self, address: int, number: int) -> Iterator[tuple[memoryview, int]]:
        if number in self._staged:
            staged = self._staged[number]
            yield staged.room, staged.nbytes + self.MD_SIZE
            return
        with self.view(address, number) as data:
            yield (memoryview(b""), 0) if data is None else (data, data.nbytes + self.MD_SIZE)

    def _look_up(self, address: int) -> int | None:
        """The id at an address, for a reader that was given none: looks at all keys."""
        prefix = f"{address}."
        for key in self._store.keys():  # noqa: SIM118 (a Store is no dict)
            if isinstance(key, str) and key.startswith(prefix):
                return int(key[len(prefix) :])
        return None

    # --- acknowledgements: a count in the Store, which any process raises and lowers -------------

    def expect(self, address: int, number: int, count: int) -> int:
        """Asks for ``count`` more acknowledgements before the chunk is free; returns how many of
        them could be noted."""
        key = _key(address, number)
        return next((done for done in range(count) if not self._store.retain(key)), count)

    def acknowledge(self, address: int, number: int) -> None:
        """One reader has read the chunk."""
        self._store.release(_key(address, number))

    def is_expected(self, address: int, number: int) -> bool:
        """Whether acknowledgements are missing."""
        return self._store.look(_key(address, number)).is_retained


def _key(address: int, number: int) -> str:
    return f"{address}.{number}"


def _granule_of(size: int) -> int | None:
    """Large rings hold large objects: a coarse granule keeps the heap's tables small."""
    return 16384 if size >= 1 << 30 else 4096 if size >= 64 << 20 else None


def _segment_of(name: str) -> str:
    """The segment of a ring's name, which need not be a name that Penstock takes."""
    if _NAME.fullmatch(name):
        return name
    return f"vllm-objects-{hashlib.sha256(name.encode()).hexdigest()[:32]}"
