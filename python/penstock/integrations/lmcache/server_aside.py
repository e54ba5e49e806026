"""Memory set aside: slots that a departed worker, or a worker of a server that died, may still
write. They are reused when the kernel shows that no process can."""

from __future__ import annotations

import logging
import time
from typing import Final

from ...store import Store
from . import server_slots as slots
from .server_slots import Slot
from .server_workers import Worker
from .server_writers import can_write, is_seen

__all__ = ["SetAside"]

_LOG: Final = logging.getLogger("penstock.lmcache")


class SetAside:
    """Used under the server's lock, except ``new_leftovers()``.

    ``release_after``: seconds after which memory of a worker whose process can't be seen is reused;
    None: never.
    """

    def __init__(self, store: Store, release_after: float | None) -> None:
        self._store = store
        self._release_after = release_after
        self._workers: list[tuple[Worker, float]] = []
        self._living = slots.living(store)
        self._leftovers = list(slots.leftovers(store))  # of servers that died

    def __bool__(self) -> bool:
        return bool(self._workers or self._leftovers)

    def sizes(self) -> list[int]:
        """Bytes of each slot."""
        sizes = [size for worker, _ in self._workers for size in worker.slot_sizes()]
        return sizes + [one.nbytes for one in self._leftovers]

    def add(self, worker: Worker) -> None:
        """The worker has left: sets its slots aside, and frees those that it can't write any
        more."""
        if not (worker.owns_any() and worker.may_use_pool(self._store.name)):
            worker.settle(Slot.give_back)
            return
        self._workers.append((worker, time.monotonic()))
        sizes = worker.slot_sizes()
        _LOG.warning(
            "worker %d is gone and may still write: %d bytes in %d slots are set aside",
            worker.instance_id,
            sum(sizes),
            len(sizes),
        )

    def new_leftovers(self) -> list[slots.Leftover]:
        """Leftovers of another server of the pool, which was alive at the last check. For the
        watching thread only, without the lock."""
        before, self._living = self._living, slots.living(self._store)
        if before <= self._living:
            return []
        return list(slots.leftovers(self._store, {one.name for one in self._leftovers}))

    def take_over(self, leftovers: list[slots.Leftover]) -> None:
        self._leftovers += leftovers

    def review(self) -> None:
        """Frees slots that no process can write any more."""
        for entry in list(self._workers):
            worker, since = entry
            is_unseen = not worker.processes and self._may_release(since)
            if is_unseen or not worker.may_use_pool(self._store.name):
                self._workers.remove(entry)
                worker.settle(Slot.give_back)
        for leftover in list(self._leftovers):
            is_unseen = not is_seen(leftover.writer) and self._may_release(leftover.since)
            if is_unseen or not can_write(leftover.writer, self._store.name):
                self._leftovers.remove(leftover)
                leftover.give_back()

    def leave(self) -> None:
        """The server ends: slots that may still be written stay retained, for the next server of
        the pool."""
        for worker, _ in self._workers:
            worker.settle(Slot.leave)
        for leftover in self._leftovers:
            leftover.leave()
        self._workers.clear()
        self._leftovers.clear()

    def _may_release(self, since: float) -> bool:
        """Whether a slot of a worker that can't be seen has been set aside long enough."""
        return self._release_after is not None and time.monotonic() - since > self._release_after
