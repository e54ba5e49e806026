"""Handles: what one process gives another so that it can attach to a queue or an object store.

A handle of Penstock's that meets a class of vLLM's own, or the reverse, fails at attach, in words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ...errors import Error, Incompatible

__all__ = ["Handle", "NoRemoteReaders", "SegmentHandle", "SharedSegment", "items_of"]

_ONE_KIND = "set PENSTOCK_VLLM=1 in every process of this engine, or in none"


class NoRemoteReaders(Error, NotImplementedError):
    """Readers on other machines were asked for, which this version does not serve."""


@dataclass
class Handle:
    """What ``MessageQueue.create_from_handle`` takes; can be pickled, for any process.

    The same seven fields as vLLM's. Local readers need the first two; a queue with readers on other
    machines will fill ``remote_subscribe_addr`` and ``remote_addr_ipv6``.
    """

    local_reader_ranks: list[int] = field(default_factory=list)

    #: n_reader, max_chunk_bytes, max_chunks, and the segment's name
    buffer_handle: tuple[int, int, int, str] | None = None
    local_subscribe_addr: str | None = None
    local_notify_addr: str | None = None
    remote_subscribe_addr: str | None = None
    remote_addr_ipv6: bool = False
    tensor_arena_handle: tuple[int, int, int, str] | None = None


class SegmentHandle(tuple[Any, ...]):
    """A tuple that can't be unpacked, so that a class of vLLM's own refuses it in words:
    ``ShmRingBuffer(*handle)`` raises Incompatible. Penstock's classes use ``items_of()``."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        raise Incompatible(
            f"this handle names the Penstock segment '{self[-1]}', to which vLLM's own class can't "
            f"attach: {_ONE_KIND}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return SegmentHandle, (self[:],)


@dataclass(frozen=True)
class SharedSegment:
    """What Penstock's classes have as ``shared_memory``, where vLLM's have a SharedMemory."""

    name: str
    size: int


def items_of(handle: Any, what: str) -> tuple[Any, ...]:
    """The items of a handle of Penstock's. Raises Incompatible for one of vLLM's own classes."""
    if not isinstance(handle, SegmentHandle):
        raise Incompatible(
            f"this handle ({handle!r}) is of vLLM's own {what}, to which Penstock's can't attach: "
            f"{_ONE_KIND}"
        )
    return handle[:]
