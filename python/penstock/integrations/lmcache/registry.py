"""Registered engines: records in the store itself, so that they outlive every server.

A living engine holds two things: a reservation that is never committed, which only one process can
have and which is reaped when the process dies, and a pin on its record.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Final

from ...errors import AlreadyExists, Busy, NotFound, Timeout, WrongProcess
from ...store import Store
from .layout import EngineContext
from .writing import being_written

__all__ = [
    "POOL_KEY",
    "Registration",
    "forget",
    "keys_with",
    "pool_record",
    "registered",
    "wait_for_pool",
]

POOL_KEY: Final = b"kv-pool"
_RECORD: Final = b"kv-engine:"
_LIFE: Final = b"kv-alive:"
_MOST_SECRETS: Final = 1024  # tenants are many, but few at a time


def pool_record(chunk_tokens: int) -> dict[str, Any]:
    """The properties that all users of a pool must agree on."""
    return {"version": 1, "chunk_tokens": chunk_tokens}


def wait_for_pool(store: Store, timeout: float | None) -> dict[str, Any]:
    """The pool's record. NotFound if it does not appear in time: the store is no KV pool."""
    try:
        with store.wait(POOL_KEY, timeout) as record:
            return dict(record)
    except Timeout:
        raise NotFound(
            f"the store '{store.name}' is no KV pool, or its server died early"
        ) from None


class Registration:
    """One engine's registration in the pool, until ``end()`` or the death of its process."""

    def __init__(self, store: Store, context: EngineContext) -> None:
        """Raises AlreadyExists while a living process is registered under that id, or NoSpace."""
        self.context = context
        self._secrets: dict[tuple[str, int], list[bytes]] = {}
        self._store = store
        self._pid = os.getpid()
        key = context.instance_id.encode()
        try:
            self._life = store.reserve(_LIFE + key, 1)
        except Busy as busy:
            raise AlreadyExists(
                f"engine '{context.instance_id}' is registered in '{store.name}' by participant "
                f"{busy.rank}, who is alive: every engine process has an id of its own"
            ) from None
        self._key = _RECORD + key
        store.delete(self._key)  # of a process that died
        self._record = None
        while self._record is None:  # it may be evicted before it is pinned
            store.put(self._key, context.to_record())
            self._record = store._get(self._key)

    def secrets(self, cache_salt: str, kv_rank: int) -> list[bytes]:
        """Secrets of the groups' namespaces; each is computed once."""
        found = self._secrets.get((cache_salt, kv_rank))
        if found is None:
            if len(self._secrets) >= _MOST_SECRETS:
                self._secrets.clear()
            context = self.context
            found = [
                context.namespace(group, cache_salt, kv_rank).secret() for group in context.groups
            ]
            self._secrets[cache_salt, kv_rank] = found
        return found

    @property
    def is_valid(self) -> bool:
        """False if a server has unregistered this engine, or cleared the store; and in a forked
        child, which is another engine."""
        record = self._record
        if record is None or os.getpid() != self._pid:
            return False
        return self._store._get_ref(*record.ref) is not None

    def end(self) -> None:
        """Frees the id. In a forked child, and if the store's handle is lost, nothing in the store
        belongs to this process: then the registration is only forgotten."""
        with contextlib.suppress(WrongProcess):
            if self.is_valid:
                self._store.delete(self._key)
        record, self._record = self._record, None
        if record is not None:
            with contextlib.suppress(WrongProcess):
                record.release()
        self._life.abort()


def registered(store: Store) -> Iterator[EngineContext]:
    """Contexts of the living engines. Records of dead ones are evicted in their turn."""
    names = keys_with(store, _RECORD)
    lives = {name: _LIFE + name.removeprefix(_RECORD) for name in names}
    alive = being_written(store, lives.values())
    for name in names:
        record = store.get_copy(name, None)
        if record is not None and lives[name] in alive:
            yield EngineContext.from_record(record)


def keys_with(store: Store, prefix: bytes) -> list[bytes]:
    """Resident keys with that prefix."""
    names = store.keys()
    keys = [name.encode() if isinstance(name, str) else name for name in names]
    return [key for key in keys if key.startswith(prefix)]


def forget(store: Store, instance_id: str) -> bool:
    """Remove an engine's record: its next call gets NOT_REGISTERED. False: there was none."""
    return store.delete(_RECORD + instance_id.encode())
