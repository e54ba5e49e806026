"""PoolClient: access to the pool for an engine's worker or scheduler. It works in shared memory by
itself and asks no server.

The calls come in two phases, so that nothing is visible before its copy has ended, and nothing is
reused while it is still being copied; ``store()`` and ``retrieve()`` do both phases with the
registered cache.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterable
from dataclasses import replace

from ..._context import close_on_exit
from ..._exit import close_at_exit
from ..._repr import never_raises
from ..._threads import Countdown, take_in_thread
from ...errors import AlreadyExists, Closed, Incompatible, InvalidArgument, NotFound, WrongProcess
from ...handle import Handle, Owner
from ...store import Store
from .formats import KVCaches, KVFormat
from .gather import Blocks, BlockTable, PagedKV, block_tables, gone_chunks
from .keys import Tokens, chunk_hashes, keys_of
from .layout import EngineContext, ObjectGroup
from .registry import Registration, wait_for_pool
from .status import ChunkStatus, RetrieveResult, StoreResult
from .tickets import Plan, RetrieveTicket, StoreTicket, Wanted, longest_prefix

__all__ = ["PoolClient"]


class PoolClient:
    """One process's handle of a pool; made by ``attach()``. Any thread may use it.

    Tokens are a request's ids from its first on; only whole chunks count. ``cache_salt`` separates
    tenants: chunks stored with one salt are never found with another.
    """

    def __init__(self, store: Store, chunk_tokens: int) -> None:
        """Made by ``attach()``."""
        self._store = store
        self.chunk_tokens = chunk_tokens
        self._lock = threading.RLock()
        self._registration: Registration | None = None
        self._kv: PagedKV | None = None
        self._is_torch = False
        self._tickets: weakref.WeakSet[StoreTicket | RetrieveTicket] = weakref.WeakSet()
        close_at_exit(self)

    @classmethod
    def attach(
        cls,
        name: str | Handle,
        *,
        timeout: float | None = 0,
        owner: Owner | None = None,
        populate: bool = False,
    ) -> PoolClient:
        """Attach to a pool; waits until ``timeout`` for it to appear.

        ``populate`` maps the pool's memory into this process at once, which every process must do
        for itself: see ``populate()``.

        Another user's pool is refused at once, by PermissionDenied, unless ``owner`` names that
        user.

        Raises NotFound, Busy (no free slot), Incompatible, Corrupt or PermissionDenied.
        """
        countdown = Countdown(timeout)
        store = Store.attach(name, timeout=timeout, owner=owner, populate=populate)
        return cls._of_pool(store, countdown)

    @classmethod
    async def attach_async(
        cls,
        name: str | Handle,
        *,
        timeout: float | None = 0,
        owner: Owner | None = None,
        populate: bool = False,
    ) -> PoolClient:
        """``attach`` for tasks. A task that is cancelled is not attached."""
        countdown = Countdown(timeout)
        store = await Store.attach_async(name, timeout=timeout, owner=owner, populate=populate)
        return await take_in_thread(lambda: cls._of_pool(store, countdown), cls.close)

    @classmethod
    def _of_pool(cls, store: Store, countdown: Countdown) -> PoolClient:
        try:
            return cls(store, int(wait_for_pool(store, countdown.left())["chunk_tokens"]))
        except BaseException:
            store.close()
            raise

    def register(
        self,
        context: EngineContext,
        kv_caches: KVCaches | None = None,
        *,
        format: KVFormat | None = None,
        use_torch: bool = False,
        pinned: bool = False,
        populate: bool = False,
    ) -> None:
        """Register this engine. A second call with the same context only replaces the cache.

        ``kv_caches`` has the cache of each layer, for ``store()`` and ``retrieve()``: in the
        model's order, or as vLLM's dict of layer name to tensor. It must live until
        ``unregister()``. ``format`` says how a layer's blocks are arranged, if their shape does not
        tell. Without caches, ``use_torch`` makes the slots tensors. ``populate`` calls
        ``populate()`` afterwards. ``pinned`` pins the pool's memory in this process for the GPU,
        until ``close()``: copies of ``store()`` and ``retrieve()`` then need no staging, and do not
        block the caller. Slots to fill are private memory then, and copied in at the commit,
        because registered pages can't be moved. The pool must have been opened with ``populate``.

        Raises InvalidArgument for a cache that does not match the context, Incompatible for another
        chunk length than the pool's, AlreadyExists for another context than before or an id in use
        by a living process, NoSpace; with ``pinned`` NotFound without a CUDA device, and
        InvalidArgument for a pool whose memory comes and goes.
        """
        self._check_open()
        if context.chunk_tokens != self.chunk_tokens:
            raise Incompatible(
                f"the context has chunks of {context.chunk_tokens} tokens, and the pool "
                f"'{self._store.name}' of {self.chunk_tokens}"
            )
        kv = None if kv_caches is None else PagedKV(context, kv_caches, format)
        if pinned:
            self._store.register_cuda()
        with self._lock:
            current = self._current()
            if current is None:
                self._registration = Registration(self._store, context)
            elif current.context != context:
                raise AlreadyExists(
                    f"this client is registered as engine '{current.context.instance_id}' with "
                    "another context: unregister() first"
                )
            self._kv = kv
            self._is_torch = use_torch if kv is None else kv.is_torch
        if populate:
            self.populate()

    def populate(self, timeout: float | None = None) -> None:
        """Map the pool's memory into this process, as ``Store.populate()`` does.

        Each process has its own page tables, whatever the server's ``populate`` has done: without
        this call, a client's first store into each 32 MiB takes three to five times a later one;
        with both, the same time. Of a pool opened without ``populate`` it maps the memory in use.
        """
        self._store.populate(timeout)

    async def populate_async(self, timeout: float | None = None) -> None:
        """``populate`` for tasks. Memory mapped before a task was cancelled stays mapped."""
        await self._store.populate_async(timeout)

    def unregister(self) -> bool:
        """Unregister this engine. Open tickets end: their slots are aborted, or released.

        False: no engine was registered.
        """
        with self._lock:
            registration, self._registration = self._registration, None
            self._kv = None
            for ticket in list(self._tickets):
                if isinstance(ticket, StoreTicket):
                    ticket.end_as(ChunkStatus.NOT_REGISTERED)
                else:
                    with contextlib.suppress(WrongProcess):  # the parent's, or of a lost handle
                        ticket.commit()
            if registration is not None:
                registration.end()
            return registration is not None

    @property
    def is_registered(self) -> bool:
        """Whether this engine is registered, and was not unregistered by the server."""
        return self._current() is not None

    def lookup(self, tokens: Tokens, *, cache_salt: str = "", every_rank: bool = False) -> int:
        """How many of the first tokens are in the pool, for all object groups; whole chunks.

        ``every_rank``: for all ranks of the model, not only this one. Nothing is pinned: see
        ``hold()``. Raises NotFound if the engine is not registered; like every call, Closed after
        ``close()``.
        """
        plan = self._plan(tokens, cache_salt, every_rank=every_rank)
        if plan.refused is not None:
            raise NotFound(f"no engine is registered by this client of '{self._store.name}'")
        store = self._store
        return longest_prefix(Wanted(plan, lambda key: True if key in store else None)) * (
            self.chunk_tokens
        )

    def hold(
        self,
        tokens: Tokens,
        *,
        cache_salt: str = "",
        every_rank: bool = False,
        skip_first_n_tokens: int = 0,
    ) -> RetrieveTicket:
        """Look up chunks, and pin them until the ticket is committed.

        For a scheduler, whose workers retrieve meanwhile. Slots of rank r have the groups r ·
        groups, … with ``every_rank``. Chunks in the first ``skip_first_n_tokens`` are the engine's
        own, as for ``prepare_retrieve()``.
        """
        return self._retrieve_ticket(
            self._plan(tokens, cache_salt, skip_first_n_tokens, every_rank=every_rank)
        )

    def prepare_store(
        self,
        tokens: Tokens,
        *,
        cache_salt: str = "",
        skip_first_n_tokens: int = 0,
        blocks: Blocks | None = None,
        expires_after: float | None = None,
    ) -> StoreTicket:
        """Slots for the chunks that the pool does not have, as far as there is room.

        Chunks that lie in the first ``skip_first_n_tokens`` are skipped, and so are those of a
        sliding window whose ``blocks`` are gone. After ``expires_after`` seconds others may store
        the same, and the commit says EXPIRED; the slots stay this ticket's memory until its end.
        """
        plan = self._plan(tokens, cache_salt, skip_first_n_tokens, blocks)
        return self._store_ticket(plan, expires_after)

    def _store_ticket(
        self, plan: Plan, expires_after: float | None, in_place: bool = False
    ) -> StoreTicket:
        ticket = StoreTicket(self._store, plan, self._is_torch, expires_after, in_place)
        self._track(ticket)
        return ticket

    def commit_store(self, ticket: StoreTicket) -> StoreResult:
        """Make the slots visible; returns the outcome for each chunk. Only when the copies have
        ended."""
        self._current()
        return ticket.commit()

    def abort_store(self, ticket: StoreTicket) -> bool:
        """Discard the slots. False: the ticket had ended before."""
        return ticket.abort()

    def prepare_retrieve(
        self,
        tokens: Tokens,
        *,
        cache_salt: str = "",
        skip_first_n_tokens: int = 0,
        blocks: Blocks | None = None,
    ) -> RetrieveTicket:
        """Slots of the longest available prefix, pinned for this request alone.

        Chunks in the first ``skip_first_n_tokens`` are the engine's own: they are neither needed
        nor read, and count as available; so do those of a sliding window whose ``blocks`` are gone.
        """
        return self._retrieve_ticket(self._plan(tokens, cache_salt, skip_first_n_tokens, blocks))

    def commit_retrieve(self, ticket: RetrieveTicket) -> bool:
        """Release the slots, when the copies have ended. False: the ticket had ended before."""
        return ticket.commit()

    def store(
        self,
        tokens: Tokens,
        blocks: Blocks,
        *,
        cache_salt: str = "",
        skip_first_n_tokens: int = 0,
        expires_after: float | None = None,
    ) -> StoreResult:
        """Copy chunks that the pool does not have out of the registered cache, and commit them.

        ``blocks`` is the request's block table from token 0 on, or one for each object group; a
        negative id is a block that is gone. An exception on the way aborts all of it.
        """
        kv = self._kv
        if kv is None:
            return StoreResult(self._refuse_without_cache(tokens).all_are(_NOT_REGISTERED))
        tables = self._tables(kv, blocks)
        plan = self._plan(tokens, cache_salt, skip_first_n_tokens, tables)
        # No reference to a slot is left when the copies have ended.
        ticket = self._store_ticket(plan, expires_after, in_place=True)
        with ticket:
            try:
                for group, chunk in ticket.reserved:
                    take = ticket._reservation if kv.is_on_host else ticket.slot
                    kv.gather(group, chunk, tables[group], take(group, chunk))
            finally:
                kv.synchronize()  # an aborted slot is soon reused, too
            return self.commit_store(ticket)

    def retrieve(
        self,
        tokens: Tokens,
        blocks: Blocks,
        *,
        cache_salt: str = "",
        skip_first_n_tokens: int = 0,
    ) -> RetrieveResult:
        """Copy the longest available prefix into the registered cache.

        The first ``skip_first_n_tokens`` are not written, to the token. Slots are always released,
        and not before the copies have ended.
        """
        kv = self._kv
        if kv is None:
            return RetrieveResult(self._refuse_without_cache(tokens).all_are(_NOT_REGISTERED), 0)
        tables = self._tables(kv, blocks)
        ticket = self.prepare_retrieve(
            tokens, cache_salt=cache_salt, skip_first_n_tokens=skip_first_n_tokens, blocks=tables
        )
        with ticket:
            try:
                for group, chunk in ticket.hits:
                    skip = max(skip_first_n_tokens - chunk * self.chunk_tokens, 0)
                    take = ticket._view if kv.is_on_host else ticket.slot
                    kv.scatter(group, chunk, tables[group], take(group, chunk), skip)
            finally:
                kv.synchronize()
            return ticket.result()

    @property
    def name(self) -> str:
        """The name of the pool."""
        return self._store.name

    @property
    def closed(self) -> bool:
        """Whether this client was closed."""
        return self._store.closed

    def close(self) -> None:
        """Unregister, and leave."""
        if not self._store.closed:
            self.unregister()
            self._store.close()

    def __enter__(self) -> PoolClient:
        return self

    __exit__ = close_on_exit

    @never_raises
    def __repr__(self) -> str:
        registration = self._registration
        who = "nobody" if registration is None else f"'{registration.context.instance_id}'"
        state = "closed" if self.closed else f"{who} registered"
        return f"<penstock.PoolClient of '{self._store.name}', {state}>"

    def _check_open(self) -> None:
        if self.closed:
            error = Closed(f"this client of the pool '{self.name}' was closed")
            error.by = "self"
            raise error

    def _current(self) -> Registration | None:
        """The registration, if it is still valid; otherwise ends its open tickets."""
        with self._lock:
            registration = self._registration
            if registration is not None and not registration.is_valid:
                self.unregister()
                return None
            return registration

    def _plan(
        self,
        tokens: Tokens,
        cache_salt: str,
        skip_first_n_tokens: int = 0,
        blocks: Blocks | None = None,
        *,
        every_rank: bool = False,
    ) -> Plan:
        self._check_open()
        if skip_first_n_tokens < 0:
            raise InvalidArgument(f"skip_first_n_tokens is {skip_first_n_tokens}: 0 or more")
        hashes = chunk_hashes(tokens, self.chunk_tokens)
        registration = self._current()
        if registration is None:
            return Plan((), self.chunk_tokens, [hashes], refused=_NOT_REGISTERED)
        context = registration.context
        ranks = range(context.world_size) if every_rank else [context.kv_rank]
        groups = context.groups
        if every_rank:
            groups = tuple(_numbered(group for _ in ranks for group in context.groups))
        keys = [
            keys_of(secret, hashes)
            for rank in ranks
            for secret in registration.secrets(cache_salt, rank)
        ]
        first = min(skip_first_n_tokens // self.chunk_tokens, len(hashes))
        gone: list[frozenset[int]] = []
        if blocks is not None:
            tables = block_tables(blocks, len(groups))
            gone = [
                self._gone(group, table, first, len(hashes))
                for group, table in zip(groups, tables, strict=True)
            ]
        return Plan(groups, self.chunk_tokens, keys, first, gone)

    def _gone(self, group: ObjectGroup, table: BlockTable, first: int, end: int) -> frozenset[int]:
        count = end * (self.chunk_tokens // group.block_size)
        if len(table) >= count and (count == 0 or int(table[:count].min()) >= 0):
            return frozenset()  # all are cached, the common case
        gone = gone_chunks(group, self.chunk_tokens, table, end)
        needed = gone.intersection(range(first, end))
        if needed and group.num_chunks_in_sw is None:
            raise InvalidArgument(
                f"chunk {min(needed)} of object group {group.group_id} has not all its blocks: "
                "only a sliding window may leave some out"
            )
        return frozenset(gone)

    def _tables(self, kv: PagedKV, blocks: Blocks) -> list[BlockTable]:
        tables = block_tables(blocks, kv.groups)
        kv.check(tables)
        return tables

    def _refuse_without_cache(self, tokens: Tokens) -> Plan:
        plan = self._plan(tokens, "")
        if plan.refused is None:
            raise InvalidArgument("the engine was registered without its KV cache: give kv_caches")
        return plan

    def _retrieve_ticket(self, plan: Plan) -> RetrieveTicket:
        ticket = RetrieveTicket(self._store, plan)
        self._track(ticket)
        return ticket

    def _track(self, ticket: StoreTicket | RetrieveTicket) -> None:
        with self._lock:
            self._tickets.add(ticket)


_NOT_REGISTERED = ChunkStatus.NOT_REGISTERED


def _numbered(groups: Iterable[ObjectGroup]) -> Iterable[ObjectGroup]:
    """Objects with ids of their own, in order."""
    return (replace(group, group_id=number) for number, group in enumerate(groups))
