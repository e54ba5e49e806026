"""A worker of LMCache's protocol: what it registered with, which processes it is, and what it
writes and reads until it says that it has.
"""

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
    """The instance is not registered, or is no more."""


@dataclass(frozen=True)
class Layout:
    """How one chunk of a worker lies in its slot."""

    shape: tuple[int, ...]
    dtype: str  # torch's name
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
    """Which prepare a commit belongs to."""
    return (key.request_id, key.model_name, key.worker_id, key.start, key.end, key.cache_salt)


@dataclass
class Worker:
    """One registration. Under the server's lock."""

    instance_id: int
    model_name: str
    world_size: int
    layout: Layout
    links: list[Link] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)  # empty: it can't be seen
    seen: float = field(default_factory=time.monotonic)
    has_pinged: bool = False
    cache: ServedCache | None = None  # the server's own view of its KV cache, where it copies
    is_looked_for: bool = False  # since it has opened the pool
    takes_bytes: bool = False  # it can't open the pool, and sends and gets pickles
    writes: dict[tuple[Any, ...], list[Writing]] = field(default_factory=dict)
    reads: dict[tuple[Any, ...], list[list[_core.StoreView]]] = field(default_factory=dict)

    def is_like(self, layout: Layout) -> bool:
        """Whether it copies by itself, and so."""
        return self.cache is None and self.layout == layout

    def is_dead(self) -> bool:
        """The kernel's word; False where it can't be seen."""
        return bool(self.processes) and not any(one.is_alive() for one in self.processes)

    def may_use_pool(self, pool: str) -> bool:
        """Whether it may still read and write what it was given."""
        return not self.processes or any(
            one.is_alive() and has_mapped(one.pid, pool) for one in self.processes
        )

    def open_writes(self) -> Iterator[Writing]:
        for several in self.writes.values():
            yield from several

    def pop_write(self, key: RequestKey) -> Writing | None:
        """The oldest that was prepared with this key, and is this caller's from now on."""
        return _pop_oldest(self.writes, key)

    def pop_read(self, key: RequestKey) -> list[_core.StoreView] | None:
        """The same of what it reads."""
        return _pop_oldest(self.reads, key)

    def owns_any(self) -> bool:
        return any(self.writes.values()) or any(self.reads.values())

    def slot_sizes(self) -> list[int]:
        """Bytes of each slot that it may still write."""
        return [slot.nbytes for one in self.open_writes() for slot in one.slots.values()]

    def identify(self) -> bool:
        """Which processes have opened the pool by its names. False: none yet."""
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
        """Its names have served, also where its process can't be seen."""
        for link in self.links:
            link.remove()
        self.links = []

    def settle(self, end: Callable[[Slot], None]) -> None:
        """It uses nothing more."""
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
