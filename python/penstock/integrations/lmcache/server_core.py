"""What the worker protocol asks for, over a Store: sessions of requests, workers, and what each of
them writes and reads. It knows no wire and no lmcache; see server_handlers.py.

Every answer says what is so now. A store is True when each of its chunks is in the pool, a look-up
counts what is there and keeps it for its request, a retrieve has pins of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from ... import _core
from ...errors import AlreadyExists, Busy, NoSpace, TooLarge
from ...store import Store
from . import server_slots as slots
from .keys import KEY_PREFIX, Namespace, chunk_hashes
from .server_slots import Slot, Staged
from .server_writers import (
    Link,
    Process,
    Wake,
    can_write,
    forget_links,
    has_mapped,
    is_seen,
    namespace,
    owners_of,
    pool_file,
    wait_for_death,
)

__all__ = ["ChunkServer", "Layout", "RequestKey", "Unknown"]

CHUNK_PREFIX: Final = b"lm1:"
T = TypeVar("T")

_LOG: Final = logging.getLogger("penstock.lmcache")
_SHORT: Final = 0.2  # seconds between two looks at what others may let go of
_LONGEST_PAUSE: Final = 1.0  # seconds between two looks at what becomes late
_WATCHES: Final = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # seconds: looks for a mapping


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


class _Session:
    """One request, from its first look-up on: what is kept for it, and its hashes."""

    def __init__(self) -> None:
        self.tokens: tuple[int, ...] = ()
        self.hashes: list[bytes] = []
        self.chunks: int | None = None  # what its look-up found
        self.held: dict[tuple[int, int], _core.StoreView] = {}  # by chunk and rank
        self.seen = time.monotonic()

    def let_go(self) -> bool:
        """Its chunks may be evicted. False: it kept none."""
        had, self.held = self.held, {}
        for view in had.values():
            view.release()
        return bool(had)


@dataclass
class _Writing:
    """One PREPARE_STORE that has no commit yet."""

    request_id: str
    slots: dict[bytes, Slot]  # by key
    cached: list[_core.StoreView]
    is_whole: bool  # every chunk is cached, or has a slot here

    def end(self) -> None:
        for view in self.cached:
            view.release()
        self.cached = []


@dataclass
class _Worker:
    """One registration."""

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
    writes: dict[tuple[Any, ...], list[_Writing]] = field(default_factory=dict)
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

    def open_writes(self) -> Iterator[_Writing]:
        for several in self.writes.values():
            yield from several

    def owns_any(self) -> bool:
        return any(self.writes.values()) or any(self.reads.values())


class ChunkServer:
    """The state of one server. Any thread; its store is used by this process alone.

    ``pool`` is the store's name. ``silence``: seconds without a PING after which a worker whose
    process can't be seen is unregistered; ``session_seconds``: of a request that says nothing more;
    ``release_after``: seconds after which the slots of such a worker are used again, None: never.
    """

    def __init__(
        self,
        store: Store,
        chunk_tokens: int,
        *,
        silence: float = 120.0,
        session_seconds: float = 600.0,
        release_after: float | None = None,
    ) -> None:
        self.chunk_tokens = chunk_tokens
        self._store = store
        self._silence = silence
        self._session_seconds = session_seconds
        self._release_after = release_after
        self._lock = threading.RLock()
        self._sessions: dict[str, _Session] = {}  # the one used last at the end
        self._workers: dict[int, _Worker] = {}
        self._ranks: dict[tuple[str, int, int], Layout] = {}  # of model, world size and rank
        self._aside: list[tuple[_Worker, float]] = []  # gone, and may still use the pool
        self._strangers: set[int] = set()  # whose last PING was answered False
        self._writing: dict[bytes, _Worker] = {}  # by key
        self._ended = threading.Event()
        forget_links(store.name)
        self._life = slots.Life(store)
        self._living = slots.living(store)
        self._leftovers = list(slots.leftovers(store))
        self._review_leftovers()
        self._reviewed = time.monotonic()
        self._wake = Wake()
        self._watcher = threading.Thread(target=self._watch, name="penstock-lmcache", daemon=True)
        self._watcher.start()

    # Workers

    def register(
        self, instance_id: int, model_name: str, world_size: int, layout: Layout
    ) -> tuple[str, int]:
        """The name under /dev/shm of the pool for this worker, and its bytes."""
        with self._lock:
            worker = self._workers.get(instance_id)
            if worker is not None and (worker.is_dead() or not worker.is_like(layout)):
                self._part_with(worker)
                worker = None
            if worker is None:
                worker = _Worker(instance_id, model_name, world_size, layout)
                self._workers[instance_id] = worker
            worker.seen = time.monotonic()
            self._strangers.discard(instance_id)
            try:
                link = Link(self._store.name)
            except OSError:  # another user's pool, or a file system without them
                return pool_file(self._store.name)
            worker.links.append(link)
            worker.is_looked_for = False
        threading.Thread(
            target=self._look_for, args=(worker,), name="penstock-lmcache-look", daemon=True
        ).start()
        return link.name, link.pool_bytes()

    def register_served(
        self, instance_id: int, model_name: str, world_size: int, cache: ServedCache
    ) -> None:
        """A worker that opens no pool: the server copies between its cache and the pool."""
        worker = _Worker(instance_id, model_name, world_size, cache.layout, cache=cache)
        worker.processes = owners_of(cache.segments)
        with self._lock:
            if instance_id in self._workers:
                self._part_with(self._workers[instance_id])
            self._workers[instance_id] = worker
            self._strangers.discard(instance_id)
        self._wake.set()

    def unregister(self, instance_id: int) -> None:
        """It says that it goes. What it may still be writing stays set aside."""
        with self._lock:
            worker = self._workers.get(instance_id)
            if worker is not None:
                self._part_with(worker)

    def ping(self, instance_id: int | None) -> bool:
        """False: that worker is not registered, every second time: a worker that is told so, and
        then that the server is well, registers anew."""
        if instance_id is None:
            return True
        with self._lock:
            worker = self._workers.get(instance_id)
            if worker is not None:
                worker.seen = time.monotonic()
                worker.has_pinged = True
                return True
            if instance_id in self._strangers:
                self._strangers.discard(instance_id)
                return True
            if len(self._strangers) < 10_000:
                self._strangers.add(instance_id)
            return False

    # Store

    def prepare_store(self, key: RequestKey, instance_id: int) -> dict[str, Any]:
        """Slots for what is not there; none and no list of them: it can't be stored now."""
        with self._lock:
            worker = self._seen_worker(instance_id)
            keys = self._keys(key, worker)
            writing = _Writing(key.request_id, {}, [], is_whole=True)
            indices: list[int] = []
            try:
                for index, chunk in enumerate(keys):
                    view = slots.find(self._store, chunk)
                    if view is not None:
                        writing.cached.append(view)
                        continue
                    slot = self._slot_for(worker, chunk, key.request_id)
                    if slot is None:
                        writing.is_whole = False
                        continue
                    writing.slots[chunk] = slot
                    self._writing[chunk] = worker
                    indices.append(index)
            except BaseException:
                self._drop(writing)
                raise
            if not writing.slots:
                writing.end()
                return {"slots": [], "chunk_indices": []} if writing.is_whole else {}
            worker.writes.setdefault(_ticket(key), []).append(writing)
            return {
                "slots": [_described(slot, worker.layout) for slot in writing.slots.values()],
                "chunk_indices": indices,
            }

    def commit_store(
        self, key: RequestKey, instance_id: int, chunks: Sequence[Any] | None = None
    ) -> bool:
        """Publishes what was prepared; or `chunks`, each as bytes, of one that can't write it."""
        with self._lock:
            worker = self._worker(instance_id)
            self._drop_links(worker)
            tickets = worker.writes.get(_ticket(key), [])
            writing = tickets.pop(0) if tickets else None
            if not tickets:
                worker.writes.pop(_ticket(key), None)
            if chunks is not None:
                worker.takes_bytes = True
                if writing is not None:
                    self._drop(writing)
                return self._put_all(self._keys(key, worker), chunks, worker)
            if writing is None:
                return False
            is_stored = writing.is_whole
            for chunk, slot in writing.slots.items():
                if slot.is_claimed:
                    self._writing.pop(chunk, None)
                is_stored &= slot.publish()
            writing.end()
            return is_stored

    # Retrieve

    def prepare_retrieve(self, key: RequestKey, instance_id: int) -> dict[str, Any] | None:
        """Slots of all that was asked for, pinned until the commit; None: not all is there."""
        with self._lock:
            worker = self._seen_worker(instance_id)
            views = self._pin_all(self._keys(key, worker))
            if views is None:
                return None
            worker.reads.setdefault(_ticket(key), []).append(views)
            return {"slots": [_described(view, worker.layout) for view in views]}

    def bytes_for(self, key: RequestKey, instance_id: int) -> list[bytes] | None:
        """Copies of what was prepared, for a worker that may not see the pool; None: it does."""
        with self._lock:
            worker = self._worker(instance_id)
            if worker.processes and not worker.takes_bytes:
                return None
            chunks: list[bytes] = []
            for view in worker.reads[_ticket(key)][-1]:
                again = self._store._get_ref(*view.ref)
                assert again is not None, "it is pinned"
                with again as data:
                    chunks.append(bytes(data))
            return chunks

    def commit_retrieve(self, key: RequestKey, instance_id: int) -> bool:
        """Lets go. False: there was nothing prepared."""
        with self._lock:
            worker = self._worker(instance_id)
            self._drop_links(worker)
            tickets = worker.reads.get(_ticket(key), [])
            views = tickets.pop(0) if tickets else None
            if not tickets:
                worker.reads.pop(_ticket(key), None)
            for view in views or ():
                view.release()
            return views is not None

    # Copies by the server itself

    def store_served(self, key: RequestKey, instance_id: int, blocks: list[list[int]]) -> bool:
        """Copies what is not there out of the worker's cache; whether all of it is there then.

        A chunk without any tokens is not stored, and no failure.
        """
        with self._lock:
            worker, cache = self._served(instance_id)
            keys = self._keys(key, worker)
            if not cache.has_blocks(blocks, len(keys)):
                raise ValueError(f"the block table of a store has not the blocks of {len(keys)}")
            staged, is_whole = self._stage_all(cache.chunks_of(blocks, len(keys)), keys, worker)
        try:
            if staged:
                cache.gather(blocks, list(staged), [one.room for one in staged.values()])
        except BaseException:
            for one in staged.values():
                one.give_back()
            raise
        for one in staged.values():
            is_whole &= one.publish()
        return is_whole

    def retrieve_served(
        self, key: RequestKey, instance_id: int, blocks: list[list[int]], skip_tokens: int
    ) -> bool:
        """Copies all that was asked for into the worker's cache. False: not all is there."""
        with self._lock:
            worker, cache = self._served(instance_id)
            keys = self._keys(key, worker)
            if not cache.has_blocks(blocks, len(keys)):
                raise ValueError(f"the block table of a load has not the blocks of {len(keys)}")
            views = self._pin_all(keys)
        if views is None:
            return False
        with ExitStack() as held:
            cache.scatter(blocks, [held.enter_context(view) for view in views], skip_tokens)
        return True

    # Requests

    def lookup(self, key: RequestKey) -> None:
        """Counts the first chunks that are there for every rank, and keeps them for the request."""
        with self._lock:
            session = self._session(key.request_id)
            session.let_go()
            ranks = range(key.world_size) if key.worker_id is None else [key.worker_id]
            names = self._names_of_all(key, ranks, session)
            count = len(names[0][0]) if names else 0
            session.chunks = 0
            for chunk in range(count):
                found = {}
                for rank, candidates in zip(ranks, names, strict=True):
                    view = self._find_any(one[chunk] for one in candidates)
                    if view is None:
                        break
                    found[chunk, rank] = view
                if len(found) < len(names):
                    for view in found.values():
                        view.release()
                    break
                session.held.update(found)
                session.chunks += 1

    def found(self, request_id: str) -> int:
        """What the request's look-up found, in chunks; 0 for one that is not known."""
        with self._lock:
            session = self._sessions.get(request_id)
            return 0 if session is None else session.chunks or 0

    def free_lookup(self, key: RequestKey) -> None:
        """What a look-up keeps of that range is kept no more."""
        with self._lock:
            session = self._sessions.get(key.request_id)
            if session is None:
                return
            first, end = key.start // self.chunk_tokens, -(-key.end // self.chunk_tokens)
            for chunk, rank in list(session.held):
                if first <= chunk < end and key.worker_id in (None, rank):
                    session.held.pop((chunk, rank)).release()

    def end_session(self, request_id: str) -> None:
        """Forgets the request. What workers still read and write of it is theirs."""
        with self._lock:
            session = self._sessions.pop(request_id, None)
            if session is not None:
                session.let_go()

    def clear(self) -> int:
        """Forgets every chunk; what is read or written goes on. How many there were."""
        with self._lock:
            for session in self._sessions.values():
                session.let_go()
            return slots.clear(self._store, CHUNK_PREFIX)

    def status(self) -> dict[str, Any]:
        """For people, and LMCache's own status pages."""
        with self._lock:
            aside = [
                slot.nbytes
                for worker, _ in self._aside
                for writing in worker.open_writes()
                for slot in writing.slots.values()
            ]
            aside += [one.nbytes for one in self._leftovers]
            return {
                "pool": self._store.name,
                "workers": len(self._workers),
                "sessions": len(self._sessions),
                "set_aside": len(aside),
                "set_aside_bytes": sum(aside),
            }

    def close(self) -> None:
        """Ends: what may still be written stays kept, for the next server of the pool."""
        self._ended.set()
        self._wake.set()
        self._watcher.join()
        with self._lock:
            for session in self._sessions.values():
                session.let_go()
            for worker in list(self._workers.values()):
                self._part_with(worker)
            for worker, _ in self._aside:
                self._settle(worker, Slot.leave)
            for leftover in self._leftovers:
                leftover.leave()
            self._sessions.clear()
            self._aside.clear()
            self._leftovers.clear()
            self._life.close()
            self._wake.close()

    # How

    def _worker(self, instance_id: int) -> _Worker:
        worker = self._workers.get(instance_id)
        if worker is None:
            raise Unknown(f"no worker is registered as instance {instance_id}")
        worker.seen = time.monotonic()
        return worker

    def _served(self, instance_id: int) -> tuple[_Worker, ServedCache]:
        worker = self._worker(instance_id)
        if worker.cache is None:
            raise Unknown(f"instance {instance_id} copies by itself")
        return worker, worker.cache

    def _stage_all(
        self, chunks: Sequence[int], keys: list[bytes], worker: _Worker
    ) -> tuple[dict[int, Staged], bool]:
        """Room for those that are not there; and whether that is all that is missing."""
        staged: dict[int, Staged] = {}
        is_whole = True
        for chunk in chunks:
            if self._has(keys[chunk]):
                continue
            one = self._stage(keys[chunk], worker.layout.nbytes)
            if one is not None:
                staged[chunk] = one
            else:
                is_whole &= self._has(keys[chunk])
        return staged, is_whole

    def _has(self, key: bytes) -> bool:
        view = slots.find(self._store, key)
        if view is not None:
            view.release()
        return view is not None

    def _stage(self, key: bytes, nbytes: int) -> Staged | None:
        """None: others write it, or there is no room."""
        writer = {"server": self._life.name, "chunk": key}
        try:
            return self._with_room(lambda: slots.stage(self._store, key, nbytes, writer))
        except (AlreadyExists, Busy, NoSpace, TooLarge):
            return None

    def _seen_worker(self, instance_id: int) -> _Worker:
        """It is about to be given something: by now it has opened the pool, if it can."""
        worker = self._worker(instance_id)
        if worker.links and not worker.is_looked_for:
            self._identify(worker)
            worker.is_looked_for = True
        return worker

    def _identify(self, worker: _Worker) -> bool:
        """Which processes have opened the pool by its names. False: none yet."""
        known = {(one.pid, one.started) for one in worker.processes}
        for link in list(worker.links):
            found = link.mappers()
            for process in found:
                if (process.pid, process.started) in known:
                    process.close()
                else:
                    worker.processes.append(process)
            if found:
                link.remove()
                worker.links.remove(link)
        self._wake.set()
        return not worker.links

    def _drop_links(self, worker: _Worker) -> None:
        """It has copied: its names have served, also where its process can't be seen."""
        for link in worker.links:
            link.remove()
        worker.links = []

    def _session(self, request_id: str) -> _Session:
        session = self._sessions.pop(request_id, None) or _Session()
        self._sessions[request_id] = session
        session.seen = time.monotonic()
        return session

    def _keys(self, key: RequestKey, worker: _Worker) -> list[bytes]:
        """Of the range, for that worker's rank and layout."""
        if key.worker_id is None:
            raise ValueError("a worker's key has a worker_id")
        size = self.chunk_tokens
        if key.start % size or key.end % size or not 0 <= key.start <= key.end:
            raise ValueError(f"the range {key.start} to {key.end} is not of whole chunks of {size}")
        if key.end > len(key.token_ids):
            raise ValueError(f"the range ends at {key.end}, of {len(key.token_ids)} tokens")
        self._ranks[key.model_name, key.world_size, key.worker_id] = worker.layout
        hashes = self._hashes(key, self._session(key.request_id))
        wanted = hashes[key.start // size : key.end // size]
        return _names_of(key, key.worker_id, worker.layout, wanted)

    def _hashes(self, key: RequestKey, session: _Session) -> list[bytes]:
        """Of the whole chunks up to the range's end; worked out once for a request."""
        chunks = min(key.end, len(key.token_ids)) // self.chunk_tokens
        tokens = tuple(key.token_ids[: chunks * self.chunk_tokens])
        if session.tokens[: len(tokens)] != tokens:
            session.tokens, session.hashes = tokens, chunk_hashes(tokens, self.chunk_tokens)
        return session.hashes[:chunks]

    def _names(self, key: RequestKey, rank: int, session: _Session) -> list[list[bytes]]:
        """What the request's chunks may be called for a rank: for each layout that it may have."""
        known = self._ranks.get((key.model_name, key.world_size, rank))
        layouts = {
            worker.layout
            for worker in self._workers.values()
            if (worker.model_name, worker.world_size) == (key.model_name, key.world_size)
        }
        if known in layouts:
            layouts = {known}
        hashes = self._hashes(key, session)
        return [_names_of(key, rank, layout, hashes) for layout in layouts if layout is not None]

    def _names_of_all(
        self, key: RequestKey, ranks: Iterable[int], session: _Session
    ) -> list[list[list[bytes]]]:
        """For each rank; nothing if one has not even the first chunk: a request may claim to have
        any number of them."""
        names: list[list[list[bytes]]] = []
        for rank in ranks:
            candidates = self._names(key, rank, session)
            view = self._find_any(one[0] for one in candidates if one)
            if view is None:
                return []
            view.release()
            names.append(candidates)
        return names

    def _find_any(self, keys: Iterator[bytes]) -> _core.StoreView | None:
        found = (slots.find(self._store, key) for key in keys)
        return next((view for view in found if view is not None), None)

    def _pin_all(self, keys: list[bytes]) -> list[_core.StoreView] | None:
        views: list[_core.StoreView] = []
        for key in keys:
            view = slots.find(self._store, key)
            if view is None:
                for one in views:
                    one.release()
                return None
            views.append(view)
        return views

    def _slot_for(self, worker: _Worker, chunk: bytes, request_id: str) -> Slot | None:
        """None: others write it, or there is no room."""
        holder = self._writing.get(chunk)
        if holder is not None and holder is not worker and holder.is_dead():
            self._part_with(holder)
        elif holder is worker:
            self._withdraw_earlier(worker, chunk, request_id)
        try:
            return self._reserve(chunk, worker)
        except (AlreadyExists, Busy, NoSpace, TooLarge):
            return None

    def _withdraw_earlier(self, worker: _Worker, chunk: bytes, request_id: str) -> None:
        """An earlier try of that worker has no right to the chunk any more: of the same request, or
        of one that has ended. It may still be writing: its slot stays its own until it commits."""
        for writing in worker.open_writes():
            slot = writing.slots.get(chunk)
            is_over = writing.request_id == request_id or writing.request_id not in self._sessions
            if slot is not None and is_over:
                self._withdraw(chunk, slot)

    def _withdraw(self, chunk: bytes, slot: Slot) -> None:
        if slot.is_claimed:
            self._writing.pop(chunk, None)
            slot.withdraw()

    def _reserve(self, chunk: bytes, worker: _Worker) -> Slot:
        writer = {
            "server": self._life.name,
            "chunk": chunk,
            "namespace": namespace(),
            "processes": [one.to_record() for one in worker.processes],
        }
        nbytes = worker.layout.nbytes
        return self._with_room(lambda: slots.reserve(self._store, chunk, nbytes, writer))

    def _with_room(self, act: Callable[[], T]) -> T:
        while True:
            with suppress(NoSpace):
                return act()
            if not self._let_oldest_go():
                raise NoSpace(f"all of '{self._store.name}' is being read and written")

    def _let_oldest_go(self) -> bool:
        """What was looked up first, and not asked for since, makes room: a retrieve that comes late
        is told that it is not there. False: no request keeps any."""
        return any(session.let_go() for session in self._sessions.values())

    def _put_all(self, keys: list[bytes], chunks: Sequence[Any], worker: _Worker) -> bool:
        """Every chunk is in the pool."""
        is_stored = len(chunks) >= len(keys)
        for key, data in zip(keys, chunks, strict=False):
            is_stored &= self._has(key) or self._put(key, data, worker)
        return is_stored

    def _put(self, key: bytes, data: Any, worker: _Worker) -> bool:
        if len(data) != worker.layout.nbytes:
            return False
        staged = self._stage(key, len(data))
        if staged is None:
            return self._has(key)
        staged.room[:] = data
        return staged.publish()

    def _drop(self, writing: _Writing) -> None:
        """Of a store that no worker was told of, or that wrote elsewhere."""
        for chunk, slot in writing.slots.items():
            self._withdraw(chunk, slot)
            slot.give_back()
        writing.slots = {}
        writing.end()

    # Who is gone

    def _part_with(self, worker: _Worker) -> None:
        """It is no worker any more. Others may store at once what it was storing; memory that it
        may still use is set aside."""
        self._workers.pop(worker.instance_id, None)
        self._identify(worker)
        for link in worker.links:
            link.remove()
        worker.links = []
        for writing in worker.open_writes():
            for chunk, slot in writing.slots.items():
                self._withdraw(chunk, slot)
        if worker.owns_any() and worker.may_use_pool(self._store.name):
            self._aside.append((worker, time.monotonic()))
            _LOG.warning(
                "worker %d is gone and may still write: %s is set aside",
                worker.instance_id,
                _told(worker),
            )
        else:
            self._settle(worker, Slot.give_back)

    def _settle(self, worker: _Worker, end: Callable[[Slot], None]) -> None:
        """It uses nothing more."""
        for writing in worker.open_writes():
            for slot in writing.slots.values():
                end(slot)
            writing.end()
        for tickets in worker.reads.values():
            for views in tickets:
                for view in views:
                    view.release()
        worker.writes.clear()
        worker.reads.clear()
        for process in worker.processes:
            process.close()
        worker.processes = []

    def _look_for(self, worker: _Worker) -> None:
        """After the answer to a registration: the process that opens the worker's name is it."""
        for pause in _WATCHES:
            if self._ended.wait(pause):
                return
            with self._lock:
                is_registered = self._workers.get(worker.instance_id) is worker
                if not is_registered or self._identify(worker):
                    return

    def _watch(self) -> None:
        """Sleeps until a worker dies; once in a while looks at what has only become late."""
        while not self._ended.is_set():
            with self._lock:
                processes = [one for worker in self._workers.values() for one in worker.processes]
                pause = _SHORT if self._aside or self._leftovers else _LONGEST_PAUSE
            wait_for_death(processes, pause, self._wake.reader)
            self._wake.take()
            try:
                self._review()
            except Exception:  # of one; without this thread no death would be seen any more
                _LOG.exception("the workers of '%s' could not be looked at", self._store.name)

    def _review(self) -> None:
        found = self._new_leftovers()
        with self._lock:
            self._leftovers += found
            self._forgive_own_sleep()
            self._review_workers()
            self._review_aside()
            self._review_leftovers()
            self._review_sessions()

    def _forgive_own_sleep(self) -> None:
        """A server that was stopped has heard of nobody meanwhile: that is no silence of theirs."""
        before, self._reviewed = self._reviewed, time.monotonic()
        slept = self._reviewed - before - _LONGEST_PAUSE
        if slept > 0:
            for worker in self._workers.values():
                worker.seen += slept
            for session in self._sessions.values():
                session.seen += slept

    def _new_leftovers(self) -> list[slots.Leftover]:
        """Of another server of the pool, which was alive at the last look."""
        before, self._living = self._living, slots.living(self._store)
        if before <= self._living:
            return []
        return list(slots.leftovers(self._store, {one.name for one in self._leftovers}))

    def _review_workers(self) -> None:
        now = time.monotonic()
        for worker in list(self._workers.values()):
            is_late = worker.has_pinged and now - worker.seen > self._silence
            if worker.is_dead() or (is_late and not worker.processes):
                self._part_with(worker)

    def _may_release(self, since: float) -> bool:
        """What has been set aside for so long, of a worker that can't be seen."""
        return self._release_after is not None and time.monotonic() - since > self._release_after

    def _review_aside(self) -> None:
        for entry in list(self._aside):
            worker, since = entry
            is_unseen = not worker.processes and self._may_release(since)
            if is_unseen or not worker.may_use_pool(self._store.name):
                self._aside.remove(entry)
                self._settle(worker, Slot.give_back)

    def _review_leftovers(self) -> None:
        for leftover in list(self._leftovers):
            is_unseen = not is_seen(leftover.writer) and self._may_release(leftover.since)
            if is_unseen or not can_write(leftover.writer, self._store.name):
                self._leftovers.remove(leftover)
                leftover.give_back()

    def _review_sessions(self) -> None:
        limit = time.monotonic() - self._session_seconds
        for request_id, session in list(self._sessions.items()):
            if session.seen > limit:
                break
            self.end_session(request_id)


def _names_of(key: RequestKey, rank: int, layout: Layout, hashes: Sequence[bytes]) -> list[bytes]:
    """One group: the protocol's workers write one object a chunk."""
    arranged = f"lmcache {layout.shape} {layout.dtype}"
    names = Namespace(key.model_name, key.world_size, rank, 0, key.cache_salt, arranged)
    return [CHUNK_PREFIX + name.removeprefix(KEY_PREFIX) for name in names.keys(hashes)]


def _ticket(key: RequestKey) -> tuple[Any, ...]:
    """Which prepare a commit belongs to."""
    return (key.request_id, key.model_name, key.worker_id, key.start, key.end, key.cache_salt)


def _described(slot: Slot | _core.StoreView, layout: Layout) -> dict[str, Any]:
    return {
        "offset": slot.offset,
        "length": slot.nbytes,
        "shape": list(layout.shape),
        "dtype": layout.dtype,
    }


def _told(worker: _Worker) -> str:
    sizes = [slot.nbytes for one in worker.open_writes() for slot in one.slots.values()]
    return f"{sum(sizes)} bytes in {len(sizes)} slots"
