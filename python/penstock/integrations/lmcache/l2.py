"""An L2 adapter for LMCache: its chunks in a Store, by one line of its own command.

    lmcache server … --l2-adapter '{"type": "plugin",
        "module_path": "penstock.integrations.lmcache.l2", "class_name": "PenstockL2Adapter",
        "adapter_params": {"name": "kv", "capacity": "64GiB"}}'

Chunks outlive the server, killed too; the servers of a machine that name one store share it. Copies
are made by threads that need no Python (``_core.StoreConnector``); here is what LMCache asks of an
adapter around them. It is loaded by LMCache, and needs it.
"""

from __future__ import annotations

import dataclasses
import heapq
import logging
import os
import select
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from lmcache.lmcache_native import Bitmap
from lmcache.v1.distributed.api import KeyEntry, KeyListPage
from lmcache.v1.distributed.internal_api import L2StoreResult
from lmcache.v1.distributed.l2_adapters.base import L2AdapterInterface
from lmcache.v1.distributed.l2_adapters.config import L2AdapterConfigBase
from lmcache.v1.platform import create_event_notifier

from ... import _core
from ..._exit import close_at_exit
from ...errors import Closed
from .l2_keys import key_text, parse_key_text
from .l2_tier import TierOptions, open_tier

__all__ = ["PenstockL2Adapter", "PenstockL2AdapterConfig"]

_log = logging.getLogger(__name__)

_LOOK_MS: Final = 500  # interval at which the thread checks whether it is to end
_DELETE_SECONDS: Final = 30.0  # for delete(), which waits

Outcome = tuple[int, bool, str, list[bool]]


class PenstockL2AdapterConfig(L2AdapterConfigBase):  # type: ignore[misc]
    """``adapter_params`` of the plugin: see ``TierOptions``, which has the same fields."""

    def __init__(self, options: TierOptions) -> None:
        """Made by ``from_dict()``."""
        self.options = options

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> PenstockL2AdapterConfig:
        """Raises ValueError for unknown fields and invalid values."""
        return cls(TierOptions.from_mapping(d))

    @classmethod
    def help(cls) -> str:
        """For LMCache's command line."""
        return (
            "Penstock L2 adapter, adapter_params:\n"
            "- name (str): of the store in shared memory; servers that name one share it "
            "(required)\n"
            "- capacity (int of bytes, or a text like '64GiB'): default 1GiB\n"
            "- eviction (str): sieve (default), lru, fifo or none\n"
            "- populate, huge_pages, lock_memory (bool): the store's memory at once\n"
            "- threads (int): that copy chunks, default 2\n"
            "- second_tier: a URL of Redis or Valkey, or {'url': …, 'policy': …}\n"
            "- objects, participants, granule, owner: as of penstock.Store.create()"
        )


class PenstockL2Adapter(L2AdapterInterface):  # type: ignore[misc]
    """One server's access to the tier. Any thread may use it.

    The first server creates the store, others attach. A look-up pins the chunks that it finds on
    this machine until ``submit_unlock()``, or until the server is gone; a pinned chunk can be
    loaded even if another server deletes it meanwhile. When room is needed the store itself evicts
    chunks that are not pinned, so LMCache's own eviction may stay off; listeners are told of that,
    and of other servers' stores and deletions, at the next ``get_usage()``.
    """

    def __init__(
        self, config: PenstockL2AdapterConfig | dict[str, Any], l1_memory_desc: Any = None
    ) -> None:
        """Open the tier. Raises what ``open_tier()`` raises, and ValueError for an invalid
        config."""
        options = TierOptions.from_mapping(config) if isinstance(config, dict) else config.options
        self._store = open_tier(options)
        try:
            super().__init__(max_capacity_bytes=self._store.capacity)
            self._connector = _core.StoreConnector(self._store, threads=options.threads)
        except BaseException:
            self._store.close()
            raise
        self._store_event = create_event_notifier()
        self._lookup_event = create_event_notifier()
        self._load_event = create_event_notifier()
        self._lock = threading.Lock()  # guards the four below
        self._pending: dict[int, tuple[Callable[[Outcome], None], Any]] = {}
        self._stored: dict[int, Any] = {}
        self._looked_up: dict[int, Any] = {}
        self._loaded: dict[int, Any] = {}
        self._tally = _Tally()
        self._closed = False
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._route, daemon=True, name="penstock-l2")
        self._thread.start()
        close_at_exit(self)

    # ---- events that LMCache waits for

    def get_store_event_fd(self) -> int:
        """Signalled when a store task has completed."""
        return int(self._store_event.fileno())

    def get_lookup_and_lock_event_fd(self) -> int:
        """Signalled when a look-up has completed."""
        return int(self._lookup_event.fileno())

    def get_load_event_fd(self) -> int:
        """Signalled when a load has completed."""
        return int(self._load_event.fileno())

    # ---- store

    def submit_store_task(self, keys: list[Any], objects: list[Any]) -> int:
        """Put a copy of each object under its key, unless the key exists: the first object
        stays."""
        keys = list(keys)
        buffers = [one.byte_array for one in objects]
        sizes = [len(one) for one in buffers]

        def done(outcome: Outcome) -> None:
            task, is_whole, error, is_new = outcome
            new = [at for at, is_it in enumerate(is_new) if is_it]
            if not is_whole:
                _log.warning("the store '%s' did not take all of a batch: %s", self.name, error)
            self._announce_stored([(keys[at], sizes[at]) for at in new])
            with self._lock:
                self._stored[task] = L2StoreResult(is_whole, sum(sizes[at] for at in new))
            self._store_event.notify()

        texts = [key_text(key) for key in keys]
        return self._submit(lambda: self._connector.submit_batch_set(texts, buffers), done, objects)

    def pop_completed_store_tasks(self) -> dict[int, Any]:
        """The tasks completed since the last call, each with its ``L2StoreResult``."""
        with self._lock:
            stored, self._stored = self._stored, {}
        return stored

    # ---- look up

    def submit_lookup_and_lock_task(
        self, keys: list[Any], group_layout_descs: dict[int, Any]
    ) -> int:
        """Look up the keys, and pin the chunks found, once for each call, until they are
        unlocked."""

        def done(outcome: Outcome) -> None:
            task, is_whole, error, found = outcome
            if not is_whole:
                _log.warning("a look-up in the store '%s' failed: %s", self.name, error)
            with self._lock:
                self._looked_up[task] = _bitmap(found)
            self._lookup_event.notify()

        texts = [key_text(key) for key in keys]
        return self._submit(lambda: self._connector.submit_batch_lock(texts), done)

    def query_lookup_and_lock_result(self, task_id: int) -> Any:
        """A ``Bitmap``, once; None for a pending or unknown task."""
        with self._lock:
            return self._looked_up.pop(task_id, None)

    def submit_unlock(self, keys: list[Any]) -> None:
        """Remove one lock from each key. Complete when this returns."""
        self._connector.unlock([key_text(key) for key in keys])

    # ---- load

    def submit_load_task(self, keys: list[Any], objects: list[Any]) -> int:
        """Copy each chunk into its object. A chunk of another size is not loaded."""
        keys = list(keys)
        buffers = [one.byte_array for one in objects]

        def done(outcome: Outcome) -> None:
            task, is_whole, error, is_loaded = outcome
            if not is_whole:
                _log.warning("a load from the store '%s' failed: %s", self.name, error)
            loaded = [keys[at] for at, is_it in enumerate(is_loaded) if is_it]
            if loaded:
                self._notify_keys_accessed(loaded)
            with self._lock:
                self._loaded[task] = _bitmap(is_loaded)
            self._load_event.notify()

        texts = [key_text(key) for key in keys]
        return self._submit(lambda: self._connector.submit_batch_get(texts, buffers), done, objects)

    def query_load_result(self, task_id: int) -> Any:
        """A ``Bitmap``, once; None for a pending or unknown task."""
        with self._lock:
            return self._loaded.pop(task_id, None)

    # ---- delete, usage, list

    def delete(self, keys: list[Any]) -> None:
        """Delete the chunks for all servers. A server that has locked one may still load it."""
        keys = list(keys)
        finished = threading.Event()

        def done(outcome: Outcome) -> None:
            _, is_whole, error, is_deleted = outcome
            if not is_whole:
                _log.warning("a deletion in the store '%s' failed: %s", self.name, error)
            self._announce_deleted([keys[at] for at, is_it in enumerate(is_deleted) if is_it])
            finished.set()

        if keys:
            texts = [key_text(key) for key in keys]
            self._submit(lambda: self._connector.submit_batch_delete(texts), done, finished)
            if not finished.wait(_DELETE_SECONDS):
                _log.warning("%d keys are still being deleted in '%s'", len(keys), self.name)

    def get_usage(self) -> Any:
        """Usage of the tier by all servers. Reads every object if any has changed."""
        with self._tally.refreshing:
            stats = self._store.stats()
            changes = (stats.committed, stats.evicted, stats.deleted)
            if self._tally.changes != changes:
                self._catch_up()
                self._tally.changes = changes
        return super().get_usage()

    def list_l2_keys(
        self, model_name: str | None = None, page_size: int = 500, cursor: str | None = None
    ) -> Any:
        """The chunks on this machine, in the order of their texts; ``cursor`` is the last one's.

        Raises ValueError for a page size of 0 or less.
        """
        if page_size <= 0:
            raise ValueError(f"page_size must be positive (got {page_size})")
        begin = cursor or ""
        texts = (text for text in self._texts() if text > begin and _is_of(text, model_name))
        page = heapq.nsmallest(page_size + 1, texts)
        entries = tuple(
            KeyEntry(key=key.to_encoded_object_key(), size_bytes=size)
            for key, size in self._chunks(page[:page_size])
        )
        more = page[page_size - 1] if len(page) > page_size else None
        return KeyListPage(entries=entries, next_page_token=more)

    def report_status(self) -> dict[str, Any]:
        """For LMCache's status; the figures of the store are those of all servers."""
        status: dict[str, Any] = {
            "is_healthy": not self._closed and self._thread.is_alive(),
            "type": type(self).__name__,
            "name": self.name,
        }
        if not self._closed:
            stats = self._store.stats()
            status |= {
                "stored_object_count": stats.objects,
                "locked_object_count": stats.in_use,
                "current_size_bytes": stats.used_bytes,
                "max_capacity_bytes": stats.capacity,
                "evicted_object_count": stats.evicted,
            }
            if stats.second_tier is not None:
                status["second_tier"] = dataclasses.asdict(stats.second_tier)
        return status

    @property
    def name(self) -> str:
        """Name of the store."""
        return self._store.name

    @property
    def closed(self) -> bool:
        """Whether this adapter was closed."""
        return self._closed

    def close(self) -> None:
        """Leave. Pending tasks are dropped; the store stays, with its chunks. No effect in a forked
        child, where everything is the parent's, and a thread may have held the lock."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._connector.close()
        self._thread.join()
        for _, kept in self._pending.values():
            if isinstance(kept, threading.Event):
                kept.set()  # a deletion that was dropped is not waited for
        self._store.close()
        for event in (self._store_event, self._lookup_event, self._load_event):
            event.close()

    # ---- the thread that passes results from the connector to the waiting tasks

    def _submit(
        self, submit: Callable[[], int], done: Callable[[Outcome], None], kept: Any = None
    ) -> int:
        # Under the lock, so that no result is looked for before its number is known. Objects are
        # kept until then: their ``byte_array`` is an address that does not keep the memory.
        with self._lock:
            task = submit()
            self._pending[task] = (done, kept)
        return task

    def _route(self) -> None:
        poll = select.poll()
        poll.register(self._connector.event_fd(), select.POLLIN)
        while not self._closed:
            if not poll.poll(_LOOK_MS):
                continue
            try:
                outcomes = self._connector.drain_completions()
            except Closed:
                return
            for outcome in outcomes:
                with self._lock:
                    done, _kept = self._pending.pop(outcome[0])
                try:
                    done(outcome)
                except Exception:  # a listener's error; other listeners are still told
                    _log.exception("the outcome of a batch on '%s' was not taken", self.name)

    # ---- accounts

    def _announce_stored(self, stored: list[tuple[Any, int]]) -> None:
        new = self._tally.add(stored)
        if new:
            self._notify_keys_stored([key for key, _ in new], [size for _, size in new])

    def _announce_deleted(self, keys: Iterable[Any]) -> None:
        gone = self._tally.remove(keys)
        if gone:
            self._notify_keys_deleted([key for key, _ in gone], [size for _, size in gone])

    def _catch_up(self) -> None:
        """Accounts for evictions by the store, and for other servers' stores and deletions."""
        known = self._tally.by_text()
        there = set(self._texts())
        self._announce_deleted([key for text, key in known.items() if text not in there])
        self._announce_stored(list(self._chunks(there - known.keys())))

    def _chunks(self, texts: Iterable[str]) -> Iterator[tuple[Any, int]]:
        """Chunks with their sizes; skips other keys, and chunks that are gone since they were
        listed."""
        for text in texts:
            key = parse_key_text(text)
            look = self._store.look(text, timeout=0)
            if key is not None and look.state == "hit":
                yield key, look.nbytes

    def _texts(self) -> list[str]:
        texts = self._store.keys(timeout=0)  # of this machine
        return [text for text in texts if isinstance(text, str)]


class _Tally:
    """The chunks that listeners know, and their sizes. Any thread."""

    def __init__(self) -> None:
        self.refreshing = threading.Lock()
        # counters of the store at its last reading
        self.changes: tuple[int, int, int] | None = None
        self._lock = threading.Lock()
        self._sizes: dict[Any, int] = {}

    def add(self, stored: Iterable[tuple[Any, int]]) -> list[tuple[Any, int]]:
        """Adds chunks; returns those that were not known."""
        with self._lock:
            new = [(key, size) for key, size in stored if key not in self._sizes]
            self._sizes.update(new)
        return new

    def remove(self, keys: Iterable[Any]) -> list[tuple[Any, int]]:
        """Removes chunks; returns those that were known."""
        with self._lock:
            return [(key, self._sizes.pop(key)) for key in keys if key in self._sizes]

    def by_text(self) -> dict[str, Any]:
        with self._lock:
            keys = list(self._sizes)
        return {key_text(key): key for key in keys}


def _is_of(text: str, model_name: str | None) -> bool:
    return model_name is None or text.startswith(f"{model_name}@")


def _bitmap(found: list[bool]) -> Any:
    bitmap = Bitmap(len(found))
    for at, is_it in enumerate(found):
        if is_it:
            bitmap.set(at)
    return bitmap
