"""Common parts of all stores, as functions that become methods: reserving, looking up.

The extension's classes can't have mixins.
"""

from __future__ import annotations

from typing import Any, TypeVar, overload

from . import _core
from ._reservation import Reservation
from .errors import InvalidArgument, NotFound

__all__ = ["MISSING", "Key", "StoreRef", "get", "get_copy", "reserve"]

#: Of an object: a str is its UTF-8; up to 4096 bytes.
Key = str | bytes
#: Names one object and no other: its entry and incarnation.
StoreRef = tuple[int, int]

T = TypeVar("T")

MISSING: Any = object()


def reserve(
    store: _core.StoreObjects,
    key: Key,
    nbytes: int | str | None = None,
    *,
    shape: Any = None,
    dtype: Any = None,
    meta: Any = None,
    weight: int = 0,
    expires_after: float | None = None,
    alignment: int | str | None = None,
) -> Reservation:
    """Room for an object that is not visible before its commit.

    ``with store.reserve(key, shape=(2, 3), dtype="float16") as array:`` gives an array that becomes
    the object. It is committed at the end of the block, even if something still refers to it, and
    discarded on an exception. Afterwards the array may still be read: writes raise, or change a
    private copy. ``shape`` and ``dtype`` are all that ``numpy.empty`` takes (except objects); a
    torch dtype gives a tensor. With ``nbytes`` it is a writable buffer. ``meta`` is any typed
    value, stored beside the object. Other objects are evicted where that is needed; ``weight``
    makes the eviction pass the object that many more times. After ``expires_after`` seconds the
    commit is refused (Expired) and the key is free; the memory stays the writer's until the end of
    the block. ``alignment`` is that of the object's address, up to 2 MiB.

    Raises AlreadyExists, Busy (the key is being written; ``error.rank`` is the writer's slot),
    NoSpace, TooLarge or InvalidArgument.
    """
    options = {
        "meta": meta,
        "weight": weight,
        "expires_after": expires_after,
        "alignment": alignment,
    }
    if (nbytes is None) == (shape is None):
        raise InvalidArgument("a reservation takes nbytes, or shape and dtype")
    if nbytes is not None:
        return Reservation(store._reserve_bytes(key, nbytes, **options))
    return Reservation.of_tensor(store, key, shape, dtype, options)


@overload
def get(store: _core.StoreObjects, key: Key) -> _core.StoreView: ...
@overload
def get(store: _core.StoreObjects, key: Key, default: T) -> _core.StoreView | T: ...
def get(store: _core.StoreObjects, key: Key, default: Any = MISSING) -> Any:
    """The object, in place: ``with store.get(key) as obj``.

    Arrays are read-only views of shared memory, which is mapped read-only: a write through a
    tensor, which does not know that, ends the process by SIGSEGV. The object is pinned, and not
    evicted, until the block has ended and the last array made of it is gone. The view has ``meta``,
    ``nbytes``, ``ref`` and ``offset``, and is true.

    Raises NotFound if there is no such object; or returns ``default`` itself, which makes look-up
    and pin one step: ``if (view := store.get(key, default=None)) is not None:``, then ``with view
    as obj``. For one block in both cases pass a block: ``with store.get(key, default=nullcontext())
    as obj`` (of contextlib) has None if there is no object.
    """
    view = store._get(key)
    if view is not None:
        return view
    if default is MISSING:
        raise NotFound(f"there is no {key!r} in the store '{store.name}'")
    return default


def get_copy(store: _core.StoreObjects, key: Key, default: Any = MISSING) -> Any:
    """A private copy of the object: its arrays are writable. NotFound, or ``default``."""
    found = store._get_copy(key, MISSING)
    if found is not MISSING:
        return found
    if default is MISSING:
        raise NotFound(f"there is no {key!r} in the store '{store.name}'")
    return default
