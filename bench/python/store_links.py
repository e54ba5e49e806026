"""Stores of arrays by key: Penstock's and its peers, from a writer's and a reader's view.

A link is made by the driver before it forks the putter. Then ``open_putter()``, ``put()`` and
``remove()`` run there, ``open_getter()`` and ``get()`` in the driver. The result of ``put()`` is
passed to ``get()`` outside of the measurement, for links that need more than the key. ``get()``
calls ``use(array)``, and releases the object before it returns.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.managers import SyncManager
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from missing import Missing, leave_out
from processes import at_most, die_with_parent, new_name, scratch_folder
from redis_server import RedisServer
from store_ring import Ring

import penstock

Array = np.ndarray[Any, np.dtype[np.int64]]
Use = Callable[[Array], None]
CAPACITY = 160 << 20
START_SECONDS = 40  # for a server
PATIENCE = 30.0


class PenstockViews:
    """``put``, and ``get`` read in place."""

    name = "penstock, in place"

    def __init__(self) -> None:
        self._title = new_name()
        self._store = penstock.Store.create(self._title, capacity=CAPACITY)

    def open_putter(self) -> None:
        self._store = penstock.Store.attach(self._title)

    def open_getter(self) -> None:
        """The driver has made the store."""

    def put(self, key: str, array: Array) -> None:
        self._store.put(key, array)

    def get(self, key: str, place: None, use: Use) -> None:
        with self._store.get(key) as array:
            use(array)

    def remove(self, key: str) -> None:
        self._store.delete(key)

    def close(self) -> None:
        self._store.close()


class PenstockCopies(PenstockViews):
    """``put``, and ``get_copy``: a private array."""

    name = "penstock, get_copy"

    def get(self, key: str, place: None, use: Use) -> None:
        use(self._store.get_copy(key))


class ManagerDict:
    """A dict in another process, asked through a pipe."""

    name = "Manager dict"

    def __init__(self) -> None:
        self._driver = os.getpid()
        self._manager = SyncManager(ctx=multiprocessing.get_context("fork"))
        self._manager.start(die_with_parent)
        self._dict = self._manager.dict()  # connects in each process at its first use

    def open_putter(self) -> None:
        """The first use connects."""

    def open_getter(self) -> None:
        """The first use connects."""

    def put(self, key: str, array: Array) -> None:
        self._dict[key] = array

    def get(self, key: str, place: None, use: Use) -> None:
        use(self._dict[key])

    def remove(self, key: str) -> None:
        del self._dict[key]

    def close(self) -> None:
        if os.getpid() == self._driver:
            self._manager.shutdown()


class SharedMemories:
    """A segment for each object, with the key as its name."""

    name = "shared_memory each"

    def __init__(self) -> None:
        self._prefix = new_name()
        resource_tracker.ensure_running()  # one for both processes, or each would unlink

    def open_putter(self) -> None:
        """No effect."""

    def open_getter(self) -> None:
        """No effect."""

    def _name_of(self, key: str) -> str:
        return f"{self._prefix}.{key}"

    def put(self, key: str, array: Array) -> None:
        memory = SharedMemory(self._name_of(key), create=True, size=array.nbytes)
        np.frombuffer(memory.buf, dtype=array.dtype)[:] = array
        memory.close()

    def get(self, key: str, place: None, use: Use) -> None:
        memory = SharedMemory(self._name_of(key))
        use(np.frombuffer(memory.buf, dtype=np.int64))
        memory.close()

    def remove(self, key: str) -> None:
        memory = SharedMemory(self._name_of(key))
        memory.close()
        memory.unlink()

    def close(self) -> None:
        """Every object has been removed."""


class PythonRing:
    """The ring of store_ring.py; the putter passes the position of each object."""

    name = "ring in Python"

    def __init__(self) -> None:
        self._ring = Ring(new_name(), CAPACITY, readers=1)

    def open_putter(self) -> None:
        """Already mapped."""

    def open_getter(self) -> None:
        """Already mapped."""

    def put(self, key: str, array: Array) -> tuple[int, int]:
        return self._ring.put(key, array)

    def get(self, key: str, place: tuple[int, int], use: Use) -> None:
        use(self._ring.get(*place))

    def remove(self, key: str) -> None:
        """Objects that were read are removed when room is needed."""

    def close(self) -> None:
        self._ring.close()


class Redis:
    """A server of this run on a Unix socket, without files; values as bytes."""

    name = "Redis"

    def __init__(self) -> None:
        self._server = RedisServer()
        self._client: Any = None

    def open_putter(self) -> None:
        self._client = self._server.connect()

    def open_getter(self) -> None:
        self._client = self._server.connect()

    def put(self, key: str, array: Array) -> None:
        self._client.set(key, array.data.cast("B"))

    def get(self, key: str, place: None, use: Use) -> None:
        use(np.frombuffer(self._client.get(key), dtype=np.int64))

    def remove(self, key: str) -> None:
        self._client.delete(key)

    def close(self) -> None:
        self._client.close()
        self._server.close()


class RayPutter:
    """Puts with a worker of Ray: references take the place of keys."""

    def put(self, key: str, array: Array) -> list[Any]:
        import ray

        return [ray.put(array)]  # in a list it is passed as a reference


class Ray:
    """Ray's object store; the putter is an actor, because references need an owner in Ray."""

    name = "Ray"

    def __init__(self) -> None:
        # Keep its files out of the home folder, refuse other clients, and send no telemetry.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        self._ray = ray
        self._driver = os.getpid()
        self._actor: Any = None

    def open_putter(self) -> None:
        """The actor is the putter."""

    def open_getter(self) -> None:
        try:
            with at_most(START_SECONDS):
                self._start()
        except Exception as error:
            self._ray.shutdown()
            raise Missing(f"it does not start: {error}") from error

    def _start(self) -> None:
        """Called here, because a process with threads must not fork."""
        from store_stage import measure_puts

        self._ray.init(
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=2 * CAPACITY,
            log_to_driver=False,
            logging_level="ERROR",
            _temp_dir=str(scratch_folder()),
        )

        class Actor:
            def puts(self, first: int, count: int, size: int) -> Any:
                return measure_puts(RayPutter(), first, count, size)

        self._actor = self._ray.remote(Actor).remote()
        self.puts(0, 1, 4096)

    def puts(self, first: int, count: int, size: int) -> Any:
        return self._ray.get(self._actor.puts.remote(first, count, size), timeout=PATIENCE)

    def get(self, key: str, place: list[Any], use: Use) -> None:
        use(self._ray.get(place[0], timeout=PATIENCE))

    def remove(self, key: str) -> None:
        """Objects without references are removed by Ray."""

    def close(self) -> None:
        if os.getpid() == self._driver:
            self._ray.shutdown()


KINDS: tuple[type[Any], ...] = (
    PenstockViews,
    PenstockCopies,
    SharedMemories,
    PythonRing,
    ManagerDict,
    Redis,
    Ray,
)


def build_store_links(only: Sequence[str]) -> Iterator[Any]:
    """The links whose packages and servers are installed; ``only`` these, if it names any."""
    for kind in KINDS:
        if not only or kind.name in only:
            try:
                yield kind()
            except (ImportError, Missing) as reason:
                leave_out(f"store: {kind.name}", reason)
