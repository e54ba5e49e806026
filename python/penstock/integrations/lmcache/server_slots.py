"""Slots: memory of a store that processes write into which are no participants of it.

A chunk is two objects. Its bytes are a slot, under a name that no look-up asks for, with
``retain()`` while it is being written: even if the server dies its memory is not reused before
``give_back()``. The chunk's own key holds the slot's ref, and is reserved until ``publish()``: only
one server at a time has the right to a chunk, and it is reaped when that server dies. A published
slot is evicted like any object; its key is a miss from then on.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Container, Iterator
from typing import Any, Final, TypeAlias

from ... import _core
from ..._reservation import Reservation
from ...errors import AlreadyExists, Busy, Expired, NoSpace
from ...store import Store
from .registry import keys_with
from .writing import being_written

__all__ = [
    "Leftover",
    "Life",
    "Slot",
    "Staged",
    "clear",
    "find",
    "leftovers",
    "living",
    "reserve",
    "stage",
]

Writer: TypeAlias = dict[str, Any]  # the slot's metadata: its writer

_SLOT: Final = b"lm-slot:"
_SERVER: Final = b"lm-server:"
_POINTER: Final = struct.Struct("<IQ16s")  # entry, incarnation and name of the slot
_TRIES: Final = 100  # for evictions by others between two steps


class Slot:
    """One chunk that is being written; made by ``reserve()``. One thread at a time."""

    def __init__(
        self, store: Store, claim: Reservation, name: bytes, view: _core.StoreView
    ) -> None:
        """Made by ``reserve()``."""
        self._store = store
        self._claim: Reservation | None = claim
        self._name = name
        self._view = view

    @property
    def offset(self) -> int:
        """Offset of the slot in the segment's file."""
        return self._view.offset

    @property
    def nbytes(self) -> int:
        """Bytes of the slot."""
        return self._view.nbytes

    @property
    def is_claimed(self) -> bool:
        """Whether this slot may still publish the chunk."""
        return self._claim is not None

    def publish(self) -> bool:
        """Makes the chunk resident. False: the store was cleared meanwhile, or the slot withdrawn,
        and it never will be."""
        claim, self._claim = self._claim, None
        if claim is None:
            self.give_back()
            return False
        try:
            claim.room[:] = _POINTER.pack(*self._view.ref, self._name)
            claim.commit()
        except Expired:
            self.give_back()
            return False
        self._store.release(_SLOT + self._name)
        self._view.release()
        return True

    def withdraw(self) -> None:
        """Gives up the right to the chunk; the memory stays the writer's until give_back()."""
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.abort()

    def give_back(self) -> None:
        """Discards the slot and frees its memory: only when no process writes it any more."""
        self.withdraw()
        self._store.release(_SLOT + self._name)
        self._store.delete(_SLOT + self._name)
        self._view.release()

    def leave(self) -> None:
        """The server ends while the slot may still be written: it stays set aside for the next
        server."""
        self.withdraw()
        self._view.release()


class Staged:
    """One chunk that this process writes; made by ``stage()``. Its death leaves nothing behind."""

    def __init__(self, claim: Reservation, staged: Reservation, name: bytes) -> None:
        """Made by ``stage()``."""
        self._claim = claim
        self._staged = staged
        self._name = name

    @property
    def room(self) -> memoryview:
        """The memory to write into, before ``publish()``."""
        room: memoryview = self._staged.room
        return room

    def publish(self) -> bool:
        """Makes the chunk resident. False: the store was cleared meanwhile."""
        try:
            ref = self._staged.ref
            self._staged.commit()
            self._claim.room[:] = _POINTER.pack(*ref, self._name)
            self._claim.commit()
        except Expired:
            return False
        finally:
            self._claim.abort()
        return True

    def give_back(self) -> None:
        """Discards the chunk."""
        self._staged.abort()
        self._claim.abort()


def reserve(store: Store, key: bytes, nbytes: int, writer: Writer) -> Slot:
    """A slot for the chunk with that key.

    Raises AlreadyExists, Busy (it is being written), NoSpace or TooLarge.
    """
    claim = _claim(store, key)
    try:
        name, view = _kept(store, nbytes, writer)
    except BaseException:
        claim.abort()
        raise
    return Slot(store, claim, name, view)


def find(store: Store, key: bytes) -> _core.StoreView | None:
    """The chunk's bytes, pinned; None if it is not resident."""
    pointer = store._get(key)
    if pointer is None:
        return None
    with pointer as data:
        entry, incarnation, _ = _POINTER.unpack(data)
    return store._get_ref(entry, incarnation)


def stage(store: Store, key: bytes, nbytes: int, writer: Writer) -> Staged:
    """Room for the chunk with that key, which this process fills itself.

    Raises what ``reserve()`` raises.
    """
    claim = _claim(store, key)
    name = os.urandom(16)
    try:
        return Staged(claim, store.reserve(_SLOT + name, nbytes, meta=writer), name)
    except BaseException:
        claim.abort()
        raise


def clear(store: Store, prefix: bytes) -> int:
    """Removes every chunk whose key has that prefix; returns how many. Slots being written stay."""
    count = 0
    for key in keys_with(store, prefix):
        pointer = store._get(key)
        if pointer is None:
            continue
        with pointer as data:
            name = _POINTER.unpack(data)[2]
        count += store.delete(key)
        store.delete(_SLOT + name)
    return count


class Life:
    """Shows other processes that this server lives: a reservation that only death or close()
    ends."""

    def __init__(self, store: Store) -> None:
        self.name = os.urandom(8).hex()
        self._life = store.reserve(_SERVER + self.name.encode(), 1)

    def close(self) -> None:
        """Ends it, as a death would."""
        self._life.abort()


class Leftover:
    """A slot that a former server left retained, because its writer may have lived."""

    def __init__(self, store: Store, name: bytes, view: _core.StoreView) -> None:
        """Made by ``leftovers()``."""
        self._store = store
        self._name = name
        self._view = view
        self.writer: Writer = view.meta or {}
        self.nbytes = view.nbytes
        self.since = time.monotonic()

    @property
    def name(self) -> bytes:
        """Name of the slot."""
        return self._name

    def give_back(self) -> None:
        """Frees its memory: only when no process writes it any more."""
        self._store.release(self._name)
        self._store.delete(self._name)
        self._view.release()

    def leave(self) -> None:
        """Leaves it for the next server."""
        self._view.release()


def leftovers(store: Store, known: Container[bytes] = ()) -> Iterator[Leftover]:
    """Slots that former servers left set aside, except those named in `known`.

    A slot stays retained throughout: its writer may live, and this process may be killed at any
    point.
    """
    lives: dict[bytes, bool] = {}
    for name in keys_with(store, _SLOT):
        if name in known or not store.look(name).is_retained:
            continue  # it is published, and evicted like any object
        view = store._get(name)
        if view is None:
            continue
        writer = view.meta or {}
        life = _SERVER + str(writer.get("server")).encode()
        if life not in lives:
            lives[life] = bool(being_written(store, [life]))
        if lives[life]:
            view.release()
        elif _is_published(store, name, view, bytes(writer.get("chunk", b""))):
            store.release(name)  # its server died between two steps
            view.release()
        else:
            yield Leftover(store, name, view)


def living(store: Store) -> set[tuple[int, int]]:
    """The living participants, servers included: slot and join time of each."""
    participants = _core.inspect_segment(store.name)["participants"]
    return {(one["slot"], one["attached_at"]) for one in participants if one["alive"]}


def _is_published(store: Store, name: bytes, view: _core.StoreView, chunk: bytes) -> bool:
    pointer = store._get(chunk) if chunk else None
    if pointer is None:
        return False
    with pointer as data:
        entry, incarnation, slot = _POINTER.unpack(data)
    return (entry, incarnation) == tuple(view.ref) and _SLOT + slot == name


def _claim(store: Store, key: bytes) -> Reservation:
    """Takes the right to the chunk."""
    for _ in range(_TRIES):
        with contextlib.suppress(AlreadyExists):
            return store.reserve(key, _POINTER.size, weight=1)
        view = find(store, key)
        if view is not None:
            view.release()
            raise AlreadyExists(f"the chunk {key!r} is in '{store.name}'")
        store.delete(key)  # its slot was evicted
    raise Busy(f"the chunk {key!r} comes and goes in '{store.name}'")


def _kept(store: Store, nbytes: int, writer: Writer) -> tuple[bytes, _core.StoreView]:
    for _ in range(_TRIES):
        name = os.urandom(16)
        store.reserve(_SLOT + name, nbytes, meta=writer).commit()
        if store.retain(_SLOT + name):  # it may have been evicted, or cleared, before
            view = store._get(_SLOT + name)
            if view is not None:
                return name, view
    raise NoSpace(f"no room for a slot of {nbytes} bytes stays in '{store.name}'")
