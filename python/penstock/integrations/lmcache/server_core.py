"""The worker protocol over a Store: sessions of requests, workers, and what each of them writes and
reads. Independent of the wire and of lmcache; see server_handlers.py.

Every answer is about the present. A store is True if each of its chunks is in the pool; a look-up
counts the available chunks and keeps them for its request; a retrieve has pins of its own.

Its parts: server_workers.py, a worker; server_sessions.py, a request; server_pool.py, the chunks;
server_aside.py, slots that departed workers may still write.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final

from ...store import Store
from . import server_slots as slots
from .server_aside import SetAside
from .server_pool import ChunkPool
from .server_sessions import CHUNK_PREFIX, Session, Sessions
from .server_slots import Slot
from .server_workers import (
    Layout,
    RequestKey,
    ServedCache,
    Unknown,
    Worker,
    Writing,
    ticket_of,
)
from .server_writers import Link, Wake, forget_links, owners_of, pool_file, wait_for_death

__all__ = ["ChunkServer"]

_LOG: Final = logging.getLogger("penstock.lmcache")
_SHORT: Final = 0.2  # seconds between checks of what other processes may release
_LONGEST_PAUSE: Final = 1.0  # seconds between checks of deadlines
# seconds after a registration at which its mapping is looked for
_WATCHES: Final = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


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
        self._lock = threading.RLock()
        self._sessions = Sessions(chunk_tokens)
        self._workers: dict[int, Worker] = {}
        self._strangers: set[int] = set()  # instances whose last PING was answered False
        self._writing: dict[bytes, Worker] = {}  # by key
        self._ended = threading.Event()
        forget_links(store.name)
        self._life = slots.Life(store)
        self._pool = ChunkPool(store, self._life.name, self._sessions.let_oldest_go)
        self._aside = SetAside(store, release_after)
        self._aside.review()
        self._reviewed = time.monotonic()
        self._wake = Wake()
        self._watcher = threading.Thread(target=self._watch, name="penstock-lmcache", daemon=True)
        self._watcher.start()

    # Workers

    def register(
        self, instance_id: int, model_name: str, world_size: int, layout: Layout
    ) -> tuple[str, int]:
        """Returns the worker's own name of the pool under /dev/shm, and the pool's size."""
        with self._lock:
            worker = self._workers.get(instance_id)
            if worker is not None and (worker.is_dead() or not worker.is_like(layout)):
                self._part_with(worker)
                worker = None
            if worker is None:
                worker = Worker(instance_id, model_name, world_size, layout)
                self._workers[instance_id] = worker
            worker.seen = time.monotonic()
            self._strangers.discard(instance_id)
            try:
                link = Link(self._store.name)
            except OSError:  # another user's pool, or a file system without hard links
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
        """Registers a worker that opens no pool: the server copies between its cache and the
        pool."""
        worker = Worker(instance_id, model_name, world_size, cache.layout, cache=cache)
        worker.processes = owners_of(cache.segments)
        with self._lock:
            if instance_id in self._workers:
                self._part_with(self._workers[instance_id])
            self._workers[instance_id] = worker
            self._strangers.discard(instance_id)
        self._wake.set()

    def unregister(self, instance_id: int) -> None:
        """The worker leaves. Slots that it may still be writing stay set aside."""
        with self._lock:
            worker = self._workers.get(instance_id)
            if worker is not None:
                self._part_with(worker)

    def ping(self, instance_id: int | None) -> bool:
        """False, every second time, for an unregistered worker: told that, and then that the server
        is well, it registers anew."""
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
        """Slots for missing chunks; none, and no list of them, if they can't be stored now."""
        with self._lock:
            worker = self._seen_worker(instance_id)
            keys = self._sessions.keys(key, worker.layout)
            writing = Writing(key.request_id, {}, [], is_whole=True)
            indices: list[int] = []
            try:
                for index, chunk in enumerate(keys):
                    view = self._pool.find(chunk)
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
            worker.writes.setdefault(ticket_of(key), []).append(writing)
            return {
                "slots": [worker.layout.describe(slot) for slot in writing.slots.values()],
                "chunk_indices": indices,
            }

    def commit_store(
        self, key: RequestKey, instance_id: int, chunks: Sequence[Any] | None = None
    ) -> bool:
        """Publishes the prepared slots; `chunks` has the bytes of a worker that can't write them
        itself."""
        with self._lock:
            worker = self._worker(instance_id)
            worker.drop_links()  # it has copied, so it has opened the pool
            writing = worker.pop_write(key)
            if chunks is not None:
                worker.takes_bytes = True
                if writing is not None:
                    self._drop(writing)
                keys = self._sessions.keys(key, worker.layout)
                return self._pool.put_all(keys, chunks, worker.layout.nbytes)
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
        """Slots of all requested chunks, pinned until the commit; None: one is missing."""
        with self._lock:
            worker = self._seen_worker(instance_id)
            views = self._pool.pin_all(self._sessions.keys(key, worker.layout))
            if views is None:
                return None
            worker.reads.setdefault(ticket_of(key), []).append(views)
            return {"slots": [worker.layout.describe(view) for view in views]}

    def bytes_for(self, key: RequestKey, instance_id: int) -> list[bytes] | None:
        """Copies of the prepared chunks, for a worker that can't see the pool; None if it can."""
        with self._lock:
            worker = self._worker(instance_id)
            if worker.processes and not worker.takes_bytes:
                return None
            return [self._pool.copy_of(view) for view in worker.reads[ticket_of(key)][-1]]

    def commit_retrieve(self, key: RequestKey, instance_id: int) -> bool:
        """Releases the slots. False: nothing was prepared."""
        with self._lock:
            worker = self._worker(instance_id)
            worker.drop_links()  # it has copied, so it has opened the pool
            views = worker.pop_read(key)
            for view in views or ():
                view.release()
            return views is not None

    # Copies by the server itself

    def store_served(self, key: RequestKey, instance_id: int, blocks: list[list[int]]) -> bool:
        """Copies missing chunks out of the worker's cache; returns whether all are there then.

        A chunk without tokens is not stored, which is no failure.
        """
        with self._lock:
            worker, cache = self._served(instance_id)
            keys = self._sessions.keys(key, worker.layout)
            if not cache.has_blocks(blocks, len(keys)):
                raise ValueError(f"the block table of a store has not the blocks of {len(keys)}")
            chunks = cache.chunks_of(blocks, len(keys))
            staged, is_whole = self._pool.stage_missing(chunks, keys, worker.layout.nbytes)
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
        """Copies all requested chunks into the worker's cache. False: one is missing."""
        with self._lock:
            worker, cache = self._served(instance_id)
            keys = self._sessions.keys(key, worker.layout)
            if not cache.has_blocks(blocks, len(keys)):
                raise ValueError(f"the block table of a load has not the blocks of {len(keys)}")
            views = self._pool.pin_all(keys)
        if views is None:
            return False
        with ExitStack() as held:
            cache.scatter(blocks, [held.enter_context(view) for view in views], skip_tokens)
        return True

    # Requests

    def lookup(self, key: RequestKey) -> None:
        """Counts the first chunks available for every rank, and keeps them for the request."""
        with self._lock:
            session = self._sessions.use(key.request_id)
            session.let_go()
            ranks = range(key.world_size) if key.worker_id is None else [key.worker_id]
            names = self._candidates(key, ranks, session)
            count = len(names[0][0]) if names else 0
            session.chunks = 0
            for chunk in range(count):
                found = {}
                for rank, candidates in zip(ranks, names, strict=True):
                    view = self._pool.find_any(one[chunk] for one in candidates)
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
        """Chunks that the request's look-up found; 0 for an unknown request."""
        with self._lock:
            session = self._sessions.find(request_id)
            return 0 if session is None else session.chunks or 0

    def free_lookup(self, key: RequestKey) -> None:
        """Releases what a look-up keeps of that range."""
        with self._lock:
            session = self._sessions.find(key.request_id)
            if session is None:
                return
            first, end = key.start // self.chunk_tokens, -(-key.end // self.chunk_tokens)
            for chunk, rank in list(session.held):
                if first <= chunk < end and key.worker_id in (None, rank):
                    session.held.pop((chunk, rank)).release()

    def end_session(self, request_id: str) -> None:
        """Forgets the request. What workers still read and write for it stays theirs."""
        with self._lock:
            self._sessions.end(request_id)

    def clear(self) -> int:
        """Removes every chunk; reads and writes in progress go on. Returns how many there were."""
        with self._lock:
            self._sessions.let_all_go()
            return slots.clear(self._store, CHUNK_PREFIX)

    def status(self) -> dict[str, Any]:
        """For display, and for LMCache's own status pages."""
        with self._lock:
            aside = self._aside.sizes()
            return {
                "pool": self._store.name,
                "workers": len(self._workers),
                "sessions": len(self._sessions),
                "set_aside": len(aside),
                "dead_letter_bytes": sum(aside),
            }

    def close(self) -> None:
        """Ends the server: slots that may still be written stay retained, for the next server of
        the pool."""
        self._ended.set()
        self._wake.set()
        self._watcher.join()
        with self._lock:
            self._sessions.end_all()
            for worker in list(self._workers.values()):
                self._part_with(worker)
            self._aside.leave()
            self._life.close()
            self._wake.close()

    # Implementation

    def _worker(self, instance_id: int) -> Worker:
        worker = self._workers.get(instance_id)
        if worker is None:
            raise Unknown(f"no worker is registered as instance {instance_id}")
        worker.seen = time.monotonic()
        return worker

    def _served(self, instance_id: int) -> tuple[Worker, ServedCache]:
        worker = self._worker(instance_id)
        if worker.cache is None:
            raise Unknown(f"instance {instance_id} copies by itself")
        return worker, worker.cache

    def _seen_worker(self, instance_id: int) -> Worker:
        """Called before slots are handed to a worker: by now it has opened the pool, if it can."""
        worker = self._worker(instance_id)
        if worker.links and not worker.is_looked_for:
            self._identify(worker)
            worker.is_looked_for = True
        return worker

    def _identify(self, worker: Worker) -> bool:
        """Calls ``worker.identify()``; the watching thread then waits for the new processes."""
        is_known = worker.identify()
        self._wake.set()
        return is_known

    def _candidates(
        self, key: RequestKey, ranks: Sequence[int], session: Session
    ) -> list[list[list[bytes]]]:
        """Candidate keys for each rank; none if a rank lacks the first chunk, because a request may
        claim any number of chunks."""
        layouts = {
            worker.layout
            for worker in self._workers.values()
            if (worker.model_name, worker.world_size) == (key.model_name, key.world_size)
        }
        names: list[list[list[bytes]]] = []
        for rank in ranks:
            candidates = self._sessions.candidates(key, rank, session, layouts)
            view = self._pool.find_any(one[0] for one in candidates if one)
            if view is None:
                return []
            view.release()
            names.append(candidates)
        return names

    def _slot_for(self, worker: Worker, chunk: bytes, request_id: str) -> Slot | None:
        """None: another worker writes it, or there is no room."""
        holder = self._writing.get(chunk)
        if holder is not None and holder is not worker and holder.is_dead():
            self._part_with(holder)
        elif holder is worker:
            self._withdraw_earlier(worker, chunk, request_id)
        return self._pool.reserve(chunk, worker.layout.nbytes, worker.processes)

    def _withdraw_earlier(self, worker: Worker, chunk: bytes, request_id: str) -> None:
        """An earlier attempt of that worker loses its right to the chunk: of the same request, or
        of one that has ended. It may still be writing, so its slot is kept until its commit."""
        for writing in worker.open_writes():
            slot = writing.slots.get(chunk)
            is_over = writing.request_id == request_id or writing.request_id not in self._sessions
            if slot is not None and is_over:
                self._withdraw(chunk, slot)

    def _withdraw(self, chunk: bytes, slot: Slot) -> None:
        if slot.is_claimed:
            self._writing.pop(chunk, None)
            slot.withdraw()

    def _drop(self, writing: Writing) -> None:
        """Drops a slot that no worker was told of, or whose worker wrote elsewhere."""
        for chunk, slot in writing.slots.items():
            self._withdraw(chunk, slot)
            slot.give_back()
        writing.slots = {}
        writing.end()

    # Departed workers

    def _part_with(self, worker: Worker) -> None:
        """Removes a worker. Others may at once store what it was storing; memory that it may still
        use is set aside."""
        self._workers.pop(worker.instance_id, None)
        self._identify(worker)
        worker.drop_links()
        for writing in worker.open_writes():
            for chunk, slot in writing.slots.items():
                self._withdraw(chunk, slot)
        self._aside.add(worker)

    def _look_for(self, worker: Worker) -> None:
        """After the answer to a registration: the process that opens the worker's name is the
        worker."""
        for pause in _WATCHES:
            if self._ended.wait(pause):
                return
            with self._lock:
                is_registered = self._workers.get(worker.instance_id) is worker
                if not is_registered or self._identify(worker):
                    return

    def _watch(self) -> None:
        """Sleeps until a worker dies; checks deadlines now and then."""
        while not self._ended.is_set():
            with self._lock:
                processes = [one for worker in self._workers.values() for one in worker.processes]
                pause = _SHORT if self._aside else _LONGEST_PAUSE
            wait_for_death(processes, pause, self._wake.reader)
            self._wake.take()
            try:
                self._review()
            except Exception:  # of one worker; without this thread deaths would go unnoticed
                _LOG.exception("the workers of '%s' could not be looked at", self._store.name)

    def _review(self) -> None:
        found = self._aside.new_leftovers()
        with self._lock:
            self._aside.take_over(found)
            self._forgive_own_sleep()
            self._review_workers()
            self._aside.review()
            self._sessions.end_late(time.monotonic() - self._session_seconds)

    def _forgive_own_sleep(self) -> None:
        """A server that was stopped has received no PING meanwhile: that silence does not count."""
        before, self._reviewed = self._reviewed, time.monotonic()
        slept = self._reviewed - before - _LONGEST_PAUSE
        if slept > 0:
            for worker in self._workers.values():
                worker.seen += slept
            self._sessions.forgive(slept)

    def _review_workers(self) -> None:
        now = time.monotonic()
        for worker in list(self._workers.values()):
            is_late = worker.has_pinged and now - worker.seen > self._silence
            if worker.is_dead() or (is_late and not worker.processes):
                self._part_with(worker)
