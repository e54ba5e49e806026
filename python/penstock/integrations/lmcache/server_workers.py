"""A worker of LMCache's protocol: its registration, its processes, and the slots that it writes and
reads until its commits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from ... import _core
from .server_slots import Slot
from .server_writers import Link, Process, has_mapped

__all__ = ["Layout", "RequestKey", "ServedCache", "Unknown", "Worker", "Writing", "ticket_of"]

T = TypeVar("T")


class RequestKey(Protocol):
    """LMCache's IPCCacheServerKey."""

    model_name: str
    world_size: int
    worker_id: int | None
    token_ids: Sequence[int]
    start: int
    end: int
    request_id: str
    cache_salt: str


class ServedCache(Protocol):
    """A worker's KV cache that this process has mapped; see server_copies.py."""

    layout: Layout
    segments: set[str]

    def has_blocks(self, table: list[list[int]], chunks: int) -> bool: ...
    def chunks_of(self, table: list[list[int]], chunks: int) -> list[int]: ...
    def gather(
        self, table: list[list[int]], chunks: list[int], rooms: list[memoryview]
    ) -> None: ...
    def scatter(
        self, table: list[list[int]], chunks: list[memoryview], skip_tokens: int
    ) -> None: ...


class Unknown(LookupError):
    """The instance is not registered (any more)."""


@dataclass(frozen=True)
class Layout:
    """Layout of a worker's chunk in its slot."""

    shape: tuple[int, ...]
    dtype: str  # torch's name of the dtype
    nbytes: int

    def describe(self, slot: Slot | _core.StoreView) -> dict[str, Any]:
        """What a worker needs to find the slot in the pool, and a tensor in it."""
        return {
            "offset": slot.offset,
            "length": slot.nbytes,
            "shape": list(self.shape),
            "dtype": self.dtype,
        }


@dataclass
class Writing:
    """One PREPARE_STORE that has no commit yet."""

    request_id: str
    slots: dict[bytes, Slot]  # by key
    cached: list[_core.StoreView]
    is_whole: bool  # every chunk is cached, or has a slot here

    def end(self) -> None:
        for view in self.cached:
            view.release()
        self.cached = []


def ticket_of(key: RequestKey) -> tuple[Any, ...]:
    """Identifies the prepare that a commit belongs to."""
    return (key.request_id, key.model_name, key.worker_id, key.start, key.end, key.cache_salt)


@dataclass
class Worker:
    """One registration. Used under the server's lock."""

    instance_id: int
    model_name: str
    world_size: int
    layout: Layout
    links: list[Link] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)  # empty: they can't be seen
    seen: float = field(default_factory=time.monotonic)
    has_pinged: bool = False
    cache: ServedCache | None = None  # the server's mapping of its KV cache, if the server copies
    is_looked_for: bool = False  # since it has opened the pool
    takes_bytes: bool = False  # it can't open the pool, and sends and receives pickles
    writes: dict[tuple[Any, ...], list[Writing]] = field(default_factory=dict)
    reads: dict[tuple[Any, ...], list[list[_core.StoreView]]] = field(default_factory=dict)

    def is_like(self, layout: Layout) -> bool:
        """Whether it copies by itself, and with this layout."""
        return self.cache is None and self.layout == layout

    def is_dead(self) -> bool:
        """By the kernel; False if its processes can't be seen."""
        return bool(self.processes) and not any(one.is_alive() for one in self.processes)

    def may_use_pool(self, pool: str) -> bool:
        """Whether it may still read and write its slots."""
        return not self.processes or any(
            one.is_alive() and has_mapped(one.pid, pool) for one in self.processes
        )

    def open_writes(self) -> Iterator[Writing]:
        for several in self.writes.values():
            yield from several

    def pop_write(self, key: RequestKey) -> Writing | None:
        """Removes and returns the oldest prepare with this key."""
        return _pop_oldest(self.writes, key)

    def pop_read(self, key: RequestKey) -> list[_core.StoreView] | None:
        """The same for retrieves."""
        return _pop_oldest(self.reads, key)

    def owns_any(self) -> bool:
        return any(self.writes.values()) or any(self.reads.values())

    def slot_sizes(self) -> list[int]:
        """Bytes of each slot that it may still write."""
        return [slot.nbytes for one in self.open_writes() for slot in one.slots.values()]

    def identify(self) -> bool:
        """Finds the processes that have opened the pool by its names. False: none yet."""
        known = {(one.pid, one.started) for one in self.processes}
        for link in list(self.links):
            found = link.mappers()
            for process in found:
                if (process.pid, process.started) in known:
                    process.close()
                else:
                    self.processes.append(process)
            if found:
                link.remove()
                self.links.remove(link)
        return not self.links

    def drop_links(self) -> None:
        """Removes its names, which have served; also if its process can't be seen."""
        for link in self.links:
            link.remove()
        self.links = []

    def settle(self, end: Callable[[Slot], None]) -> None:
        """It uses no slot any more: releases its resources."""
        for writing in self.open_writes():
            for slot in writing.slots.values():
                end(slot)
            writing.end()
        for tickets in self.reads.values():
            for views in tickets:
                for view in views:
                    view.release()
        self.writes.clear()
        self.reads.clear()
        for process in self.processes:
            process.close()
        self.processes = []


def _pop_oldest(tickets: dict[tuple[Any, ...], list[T]], key: RequestKey) -> T | None:
    ticket = ticket_of(key)
    several = tickets.get(ticket, [])
    oldest = several.pop(0) if several else None
    if not several:
        tickets.pop(ticket, None)
    return oldest
