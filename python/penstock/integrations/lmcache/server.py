"""PoolServer: creates the pool, and lists its engines. Storing and retrieving need no server.

It may end or die, and another may take its place, while engines go on.
"""

from __future__ import annotations

from typing import Any

from ... import _core
from ..._context import close_on_exit, close_on_failure
from ..._repr import never_raises
from ...errors import AlreadyExists, Incompatible, NotFound
from ...handle import Owner
from ...state import StoreStats
from ...store import Eviction, Store
from .keys import KEY_PREFIX
from .layout import CHUNK_TOKENS, EngineContext
from .registry import POOL_KEY, forget, keys_with, pool_record, registered, wait_for_pool

__all__ = ["PoolServer"]

_ROUNDING = 64 << 10  # unit of a store's capacity


class PoolServer:
    """The owner of a KV pool; made by ``open()``. Any thread may use it."""

    def __init__(self, store: Store, chunk_tokens: int) -> None:
        """Made by ``open()``."""
        self._store = store
        self.chunk_tokens = chunk_tokens

    @classmethod
    def open(
        cls,
        name: str,
        *,
        capacity: int | str = "1GiB",
        chunk_tokens: int = CHUNK_TOKENS,
        participants: int = 64,
        eviction: Eviction = "sieve",
        persistent: bool = False,
        owner: Owner | None = None,
        **memory: Any,
    ) -> PoolServer:
        """Create the pool, or take over a pool of that name that engines or a server still use.

        A pool whose processes are all dead is replaced, and its chunks are lost; but not with
        ``persistent``: then an existing pool is taken over with its chunks, however its processes
        ended, and stays from then on, even after the last one leaves (``penstock gc --data``
        removes it). A pool that is ``persistent`` already is never replaced. A pool that is taken
        over keeps its ``participants``, ``eviction`` and ``memory``. Another user's pool is neither
        taken over nor replaced, unless ``owner`` names that user. ``memory``: ``populate`` (of a
        pool that is taken over it maps the memory in use), ``lock_memory``, ``huge_pages``,
        ``objects`` and ``granule`` of ``Store.create()``.

        Raises Incompatible if the existing pool has another capacity or chunk length; and what
        ``Store.create()`` raises, mostly NoSpace.
        """
        size = _core.parse_size(capacity) if isinstance(capacity, str) else capacity
        options = {
            "participants": participants,
            "eviction": eviction,
            "persistent": persistent,
            **memory,
        }
        fresh: Store | None = None
        store = _take_over(name, size, owner) if persistent else None
        while store is None:  # repeated if a process leaves between the two
            fresh = _create(name, size, owner, options)
            store = fresh or _take_over(name, size, owner)
        with close_on_failure(store):
            if persistent:
                store.persist()
            if memory.get("populate") and fresh is None:
                store.populate()
            _agree(store, chunk_tokens)
        return cls(store, chunk_tokens)

    @property
    def name(self) -> str:
        """The name, for ``PoolClient.attach()``."""
        return self._store.name

    def registrations(self) -> list[EngineContext]:
        """The engines that are registered and alive."""
        return list(registered(self._store))

    def unregister(self, instance_id: str) -> bool:
        """Unregister an engine: its next call gets NOT_REGISTERED. False: it was not registered."""
        return forget(self._store, instance_id)

    def clear(self) -> int:
        """Remove every chunk; present readers keep theirs. Returns how many there were."""
        return sum(self._store.delete(key) for key in keys_with(self._store, KEY_PREFIX))

    def stats(self) -> StoreStats:
        """Of the pool's store, with a few objects of the pool itself (in use, staged, retained)."""
        return self._store.stats()

    @property
    def closed(self) -> bool:
        """Whether this server was closed."""
        return self._store.closed

    def close(self) -> None:
        """Leave. Engines go on."""
        self._store.close()

    def __enter__(self) -> PoolServer:
        return self

    __exit__ = close_on_exit

    @never_raises
    def __repr__(self) -> str:
        return f"<penstock.PoolServer, chunks of {self.chunk_tokens} tokens, {self._store!r}>"


def _create(name: str, capacity: int, owner: Owner | None, options: dict[str, Any]) -> Store | None:
    """None: the name is in use, or the pool is kept."""
    try:
        return Store.create(name, capacity=capacity, owner=owner, **options)
    except AlreadyExists:
        return None


def _take_over(name: str, capacity: int, owner: Owner | None) -> Store | None:
    """Attaches to an existing pool, used or abandoned; None: there is none."""
    try:
        store = Store.attach(name, owner=owner)
    except NotFound:
        return None
    wanted = -(-capacity // _ROUNDING) * _ROUNDING
    if store.capacity != wanted:
        there = store.capacity
        store.close()
        raise Incompatible(
            f"the pool '{name}' is there with a capacity of {there} bytes, and {wanted} were asked "
            "for: ask for what it has, or end its engines and remove it (penstock gc --data)"
        )
    return store


def _agree(store: Store, chunk_tokens: int) -> None:
    """Creates or checks the pool's record, and keeps it from eviction."""
    wanted = pool_record(chunk_tokens)
    while not store.retain(POOL_KEY):
        store.put(POOL_KEY, wanted)
    found = wait_for_pool(store, 0)
    if found != wanted:
        store.release(POOL_KEY)
        raise Incompatible(f"the pool '{store.name}' has {found}, and {wanted} was asked for")
