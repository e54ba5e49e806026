"""Reservation: room in a store, filled by Python as a buffer, a NumPy array or a tensor.

References to the room do not block a commit: after it they show a private copy, and writes through
them do not reach the object.
"""

from __future__ import annotations

import contextlib
import warnings
from types import TracebackType
from typing import Any

from . import _core
from ._dtypes import is_torch_dtype, parse_dtype, parse_shape
from ._repr import never_raises
from ._threads import take_in_thread
from .errors import Busy, Expired, InvalidArgument

__all__ = ["Key", "Reservation", "StoreRef"]

#: Key of an object: bytes, or a str, which means its UTF-8; 1 to 4096 bytes.
Key = str | bytes
#: Permanent name of one object: its entry and incarnation.
StoreRef = tuple[int, int]


class Reservation:
    """Made by ``Store.reserve()``. Without a commit its object never exists.

    ``with reservation as room:`` commits at the end of the block, and aborts on an exception; with
    ``async with`` a task waits there for a second tier, if its ``policy`` says so.
    Without a block: ``room``, then ``commit()`` or ``abort()``.

    After the commit a buffer is released, and an array read-only; a tensor, and anything else made
    of the room, can be read as before, and writes change a private copy. ResourceWarning if a view
    is found to outlive the block. One thread at a time.
    """

    _staged: _core.StoreStaged | None = None

    def __init__(
        self, staged: _core.StoreStaged, dtype: Any = None, shape: tuple[int, ...] = ()
    ) -> None:
        """Made by ``Store.reserve()``."""
        self._staged = staged
        self._dtype = dtype  # None: the room is a buffer
        self._shape = shape
        self._room: Any = None

    @classmethod
    def of_tensor(
        cls, store: _core.Store, key: Key, shape: Any, dtype: Any, options: dict[str, Any]
    ) -> Reservation:
        """Room for one array, or for a tensor if ``dtype`` is a torch dtype."""
        if shape is None or dtype is None:
            raise InvalidArgument(f"shape is {shape!r} and dtype {dtype!r}: give both")
        dims = parse_shape(shape)
        is_torch = is_torch_dtype(dtype)
        if is_torch:
            dtype = str(dtype).removeprefix("torch.")
        else:
            dtype, item = parse_dtype(dtype)
            dims += item
        staged = store._reserve_tensor(key, list(dims), dtype, is_torch, **options)
        return cls(staged, dtype, dims)

    @property
    def room(self) -> Any:
        """The memory to write into; every access returns the same object."""
        staged = self._open()
        if self._room is None:
            if self._dtype is None:
                self._room = memoryview(staged)
            elif isinstance(self._dtype, str):
                self._room = staged.tensor(self._dtype, list(self._shape))
            else:
                self._room = staged.array(self._dtype, list(self._shape))
        return self._room

    @property
    def ref(self) -> StoreRef:
        """Names this object and no later one; valid in other processes too."""
        return self._open().ref

    @property
    def nbytes(self) -> int:
        """Bytes of the object."""
        return self._open().nbytes

    @property
    def offset(self) -> int:
        """Offset of the object's bytes in the segment's file, ``/dev/shm/penstock.NAME``.

        Another process may open or map that file, and write ``nbytes`` from there on, until this
        process commits, aborts or dies; after that the memory may be reused. Neither the commit nor
        ``resize()`` moves it. Do not use ``room`` then: the commit writes its contents to the
        object, over what another process wrote. Expired after commit or abort.
        """
        return self._open().offset

    def resize(self, nbytes: int) -> None:
        """Change the length in place, before ``room`` is used. NoSpace if there is no room behind
        it."""
        if self._dtype is not None or self._room is not None:
            raise Busy("the room is an array, or in use already: its length stays")
        self._open().resize(nbytes)

    def commit(self, timeout: float | None = None) -> None:
        """Make the object visible, even if something still refers to ``room``.

        Raises Expired if ``clear()`` or the deadline came first, or the reservation has ended. With
        a second tier also what ``Store.put()`` raises, and ``timeout`` is as there.
        """
        self._commit(stacklevel=3, timeout=timeout)

    def abort(self) -> None:
        """Discard the object and free its room. References left over to a large room read zeros."""
        staged = self._staged
        if staged is not None:
            try:
                self._settle(staged)
            finally:  # even if a signal handler raises
                staged.abort()
        self._end()

    def _commit(self, stacklevel: int, timeout: float | None = None) -> None:
        staged = self._open()
        try:
            outlives = self._settle(staged)
            staged.commit(timeout)
        except BaseException:
            staged.abort()  # a signal handler may raise before the commit
            raise
        finally:
            self._end()
        if outlives:
            warnings.warn(
                "an array, a tensor or a memoryview that was made of a reservation outlives its "
                "commit: what is written there from now on is in private memory, and not in the "
                "object (delete it inside the block)",
                ResourceWarning,
                stacklevel=stacklevel,
            )

    def _settle(self, staged: _core.StoreStaged) -> bool:
        """Called after the last write. True: more than ``room`` itself still refers to the
        memory."""
        room, self._room = self._room, None
        if isinstance(room, memoryview):
            with contextlib.suppress(BufferError):  # a view of it still exists
                room.release()
            room = None
        return staged.settle(room)

    def _gather(self, planes: _core.PagedPlanes, blocks: Any) -> None:
        """Fill the room with those blocks of a cache, in place; other threads run meanwhile."""
        self._open().gather(planes, blocks)

    def _open(self) -> _core.StoreStaged:
        if self._staged is None:
            raise Expired("the reservation is over: committed, or aborted, before")
        return self._staged

    def _end(self) -> None:
        self._staged = self._room = None

    def __enter__(self) -> Any:
        return self.room

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        if exc_type is None:
            self._commit(stacklevel=3)
        else:
            self.abort()

    async def __aenter__(self) -> Any:
        return self.room

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            await take_in_thread(lambda: self._commit(stacklevel=3), lambda _: None)
        else:
            self.abort()

    def __del__(self) -> None:
        # Views may outlive this object, and would keep the room.
        if self._staged is not None:
            self._staged.abort()

    @never_raises
    def __repr__(self) -> str:
        state = "over" if self._staged is None else f"{self._staged.nbytes} bytes"
        return f"<penstock.Reservation, {state}>"
