"""vLLM's ``shm_object_storage`` over Penstock's Store: the same names, signatures and results.

The writer puts objects under keys, and hands out addresses, ids and signatures; each reader gets an
object with these, and that is its acknowledgement. An object that all readers have read as often as
it was handed out may make room for others, oldest first; one that some reader never read blocks
only itself, and one that is touched also those that are younger. There is no lock: a reader that
dies holds up no other.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import threading
from dataclasses import dataclass
from typing import Any

from .handles import SegmentHandle, items_of
from .object_ring import SingleWriterShmRingBuffer
from .object_serde import MsgpackSerde, ObjectSerde

__all__ = [
    "MsgpackSerde",
    "ObjectSerde",
    "ShmObjectStorageHandle",
    "SingleWriterShmObjectStorage",
    "SingleWriterShmRingBuffer",
]

logger = logging.getLogger("vllm.penstock.shm_object_storage")

_INVALID = "Invalid SHM handle signature for cache key."


@dataclass
class ShmObjectStorageHandle:
    """What ``create_from_handle`` takes; can be pickled for a child process."""

    max_object_size: int
    n_readers: int
    ring_buffer_handle: tuple[int, str]
    serde_class: type[ObjectSerde]
    reader_lock: Any


class SingleWriterShmObjectStorage:
    """Objects in a ring, as its writer or one of its readers has them.

    Any thread may use it. ``reader_lock`` is what vLLM's readers share; here it only says that this
    side acknowledges what it gets, and is never taken.
    """

    flag_bytes = 4  # in front of each object; counted as vLLM counts

    def __init__(
        self,
        max_object_size: int,
        n_readers: int,
        ring_buffer: SingleWriterShmRingBuffer,
        serde_class: type[ObjectSerde] = MsgpackSerde,
        reader_lock: Any = None,
    ) -> None:
        """Raises ValueError for a reader without a lock."""
        self.max_object_size = max_object_size
        self.n_readers = n_readers
        self.ring_buffer = ring_buffer
        self.serde_class = serde_class
        self.ser_de = serde_class()
        self.is_writer = ring_buffer.is_writer
        self._reader_lock = reader_lock
        if not self.is_writer and reader_lock is None:
            raise ValueError("Lock must be provided for readers.")
        # Of the writer alone.
        self.key_index: dict[str, tuple[int, int]] = {}  #: key to (address, id), oldest first
        self.id_index: dict[int, str] = {}
        self.writer_flag: dict[int, int] = {}  #: id to how often it was handed out
        self._owed: dict[int, int] = {}  # acknowledgements that the Store's count had no room for
        self._touched: set[int] = set()
        self._lock = threading.RLock()

    # --- the writer ------------------------------------------------------------------------------

    def put(self, key: str, value: Any) -> tuple[int, int]:
        """Store a value; its address and id.

        Raises ValueError if the key exists or the value is too large, and MemoryError if there is
        no room that may be freed.
        """
        with self._lock:
            if key in self.key_index:
                raise ValueError(f"Key '{key}' already exists in the storage.")
            data, data_bytes, metadata, md_bytes = self.ser_de.serialize(value)
            size = self.flag_bytes + data_bytes + md_bytes
            if size > self.max_object_size:
                raise ValueError(
                    f"Serialized object size ({size} bytes) exceeds max object size "
                    f"({self.max_object_size} bytes)"
                )
            address, number = self._allocate(size)
            try:
                with self.ring_buffer.access_buf(address) as (view, _):
                    view[: self.flag_bytes] = bytes(self.flag_bytes)
                    self.copy_to_buffer(data, data_bytes, metadata, md_bytes, view)
            except BaseException:
                self.ring_buffer.free_buf(lambda one, _: one == number)
                raise
            self.key_index[key] = (address, number)
            self.id_index[number] = key
            self.increment_writer_flag(number)
            return address, number

    def _allocate(self, size: int) -> tuple[int, int]:
        while True:
            try:
                return self.ring_buffer.allocate_buf(size)
            except MemoryError:  # noqa: PERF203 (each turn frees something)
                if not self._free_unused():
                    raise

    def copy_to_buffer(
        self,
        data: bytes | list[bytes],
        data_bytes: int,
        metadata: bytes,
        md_bytes: int,
        data_view: memoryview,
    ) -> None:
        """Writes metadata and data behind the flag."""
        begin = self.flag_bytes + md_bytes
        data_view[self.flag_bytes : begin] = metadata
        if not isinstance(data, bytes | list):
            raise ValueError(f"Unsupported data type for serialization: {type(data)}")
        for part in [data] if isinstance(data, bytes) else data:
            data_view[begin : begin + len(part)] = part
            begin += len(part)

    def is_cached(self, key: str) -> bool:
        """Whether the writer has an object of that key."""
        return key in self.key_index

    def get_cached(self, key: str) -> tuple[int, int]:
        """The address and id of the key, for every reader to get once more. Raises KeyError."""
        with self._lock:
            address, number = self.key_index[key]
            self.increment_writer_flag(number)
            self._touched.discard(number)
            return address, number

    def increment_writer_flag(self, id: int) -> None:
        """The object is handed out to all readers once more."""
        self.writer_flag[id] = self.writer_flag.get(id, 0) + 1
        self._owed[id] = self._owed.get(id, 0) + self.n_readers
        self._pay(id)

    def _pay(self, id: int) -> None:
        """Notes in the Store which acknowledgements are owed, as far as its count goes (65535)."""
        if owed := self._owed.get(id, 0):
            address, _ = self.key_index[self.id_index[id]]
            self._owed[id] = owed - self.ring_buffer.expect(address, id, owed)

    def release_touches(self) -> None:
        """Objects that were touched may be freed again."""
        with self._lock:
            self._touched.clear()

    def free_unused(self) -> None:
        """Frees twice the largest object's bytes of what all readers have read, oldest first, up to
        the oldest that is touched: what a request is about to use is no reason to drop the rest."""
        with self._lock:
            self._free_unused()

    def _free_unused(self) -> int:
        is_behind_a_touched_one = False

        def is_free(id: int, buf: memoryview) -> bool:
            nonlocal is_behind_a_touched_one
            is_behind_a_touched_one = is_behind_a_touched_one or id in self._touched
            return not is_behind_a_touched_one and self.default_is_free_check(id, buf)

        freed = list(self.ring_buffer.free_buf(is_free, 2 * self.max_object_size))
        for number in freed:
            del self.key_index[self.id_index.pop(number)]
            del self.writer_flag[number]
            self._owed.pop(number, None)
        return len(freed)

    def default_is_free_check(self, id: int, buf: memoryview) -> bool:
        """Whether all readers have acknowledged the object, and it is not touched."""
        if id in self._touched:
            return False
        self._pay(id)
        address, _ = self.key_index[self.id_index[id]]
        return not self._owed.get(id) and not self.ring_buffer.is_expected(address, id)

    def clear(self) -> None:
        """Forget all objects. Ids go on; what was handed out can be read until its memory is used.
        Does nothing in readers."""
        if self.is_writer:
            with self._lock:
                self.ring_buffer.clear()
                self.key_index.clear()
                self.id_index.clear()
                self.writer_flag.clear()
                self._owed.clear()
                self._touched.clear()

    # --- signatures ------------------------------------------------------------------------------

    def get_signature(self, key: str) -> list[int]:
        """The signature of the key's address and id, which readers ask for. Raises KeyError."""
        address, number = self.key_index[key]
        return list(self._make_signature(key, address, number))

    def verify_signature(
        self, key: str | None, address: int, monotonic_id: int, signature: list[int] | None
    ) -> None:
        """Raises ValueError unless the writer signed just this; in the writer also unless it is the
        key's present object."""
        if self.is_writer and (key is None or self.key_index.get(key) != (address, monotonic_id)):
            raise ValueError(_INVALID)
        if key is None or signature is None:
            raise ValueError("Missing SHM handle signature for cache key.")
        if not isinstance(key, str) or not _is_digest(signature):
            raise ValueError(_INVALID)
        signed = self._make_signature(key, address, monotonic_id)
        if not hmac.compare_digest(signed, bytes(signature)):
            raise ValueError(_INVALID)

    def _make_signature(self, key: str, address: int, monotonic_id: int) -> bytes:
        signed = hashlib.sha256(key.encode()).digest()
        signed += address.to_bytes(8, "little") + monotonic_id.to_bytes(4, "little")
        return hmac.digest(self.ring_buffer.get_auth_secret(), signed, "sha256")

    # --- readers ---------------------------------------------------------------------------------

    def get(
        self,
        address: int,
        monotonic_id: int,
        signature: list[int] | None = None,
        key: str | None = None,
    ) -> Any:
        """The object, the caller's own; in a reader the call is its acknowledgement.

        Raises ValueError for a wrong signature, which readers must give, and for an object that is
        not there any more.
        """
        if not self.is_writer:
            self.verify_signature(key, address, monotonic_id, signature)
        with self.ring_buffer.view(address, monotonic_id) as data:
            if data is None:
                raise _gone(address, monotonic_id)
            value = self.ser_de.deserialize(data[self.flag_bytes :])
        if self._reader_lock is not None:
            self.ring_buffer.acknowledge(address, monotonic_id)
        return value

    def touch(
        self,
        key: str,
        address: int = 0,
        monotonic_id: int = 0,
        signature: list[int] | None = None,
    ) -> None:
        """In the writer: keep the object, if there is one, until ``get_cached`` or
        ``release_touches``. In readers: raise ValueError unless ``get`` would find it."""
        if self._reader_lock is None:
            with self._lock:
                if key in self.key_index:
                    self._touched.add(self.key_index[key][1])
            return
        self.verify_signature(key, address, monotonic_id, signature)
        if not self.ring_buffer.holds(address, monotonic_id):
            raise _gone(address, monotonic_id)

    # --- both ------------------------------------------------------------------------------------

    def handle(self) -> ShmObjectStorageHandle:
        """What ``create_from_handle`` takes, in the readers' processes."""
        ring: Any = SegmentHandle(self.ring_buffer.handle())
        return ShmObjectStorageHandle(
            self.max_object_size, self.n_readers, ring, self.serde_class, self._reader_lock
        )

    @staticmethod
    def create_from_handle(handle: ShmObjectStorageHandle) -> SingleWriterShmObjectStorage:
        """A reader. Raises Incompatible for a handle of vLLM's own class."""
        ring = SingleWriterShmRingBuffer(*items_of(handle.ring_buffer_handle, "object storage"))
        return SingleWriterShmObjectStorage(
            handle.max_object_size, handle.n_readers, ring, handle.serde_class, handle.reader_lock
        )

    def close(self) -> None:
        """Leave. The memory goes with the last process that leaves. Idempotent."""
        self.ring_buffer.close()


def _gone(address: int, monotonic_id: int) -> ValueError:
    return ValueError(
        f"Data for address:id '{address}:{monotonic_id}' has been modified or is invalid."
    )


def _is_digest(signature: Any) -> bool:
    return (
        isinstance(signature, list)
        and len(signature) == hashlib.sha256().digest_size
        and all(type(byte) is int and 0 <= byte <= 255 for byte in signature)
    )
