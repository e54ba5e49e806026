"""Reservation: room in a store that Python fills in, as a buffer, a NumPy array or a tensor.

Once it is committed nobody may write it any more. A buffer is released, a tensor emptied, an array
made read-only; anything else that still refers to the memory refuses the commit.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import _core
from ._repr import never_raises
from .errors import Busy, Expired, InvalidArgument

if TYPE_CHECKING:
    from ._objects import Key, StoreRef

__all__ = ["Reservation"]


class Reservation:
    """Made by ``Store.reserve()``. Dropped without a commit, its object was never there.

    ``with reservation as room:`` commits at the end of the block, and aborts on an exception.
    Without a block: ``room``, then ``commit()`` or ``abort()``.
    """

    def __init__(self, staged: _core.StoreStaged, array: Any = None) -> None:
        """Made by ``Store.reserve()``."""
        # Whatever refers to the memory refers to this: it is given back when the last one is gone.
        self._staged: _core.StoreStaged | None = staged
        self._array = array  # of the whole room and its shape, if it is an array or a tensor
        self._room: Any = None

    @classmethod
    def of_tensor(
        cls,
        store: _core.StoreObjects,
        key: Key,
        shape: Sequence[int] | int | None,
        dtype: Any,
        options: dict[str, Any],
    ) -> Reservation:
        """Room for one array, or tensor if ``dtype`` is a torch dtype."""
        dims = (shape,) if isinstance(shape, int) else tuple(shape or ())
        if dtype is None or any(dim < 0 for dim in dims):
            raise InvalidArgument(f"shape is {shape!r} and dtype {dtype!r}: give both")
        is_torch = type(dtype).__module__ == "torch"
        name = _name_of(dtype)
        staged = store._reserve_tensor(key, list(dims), name, is_torch, **options)
        if is_torch:
            array = _core.tensor_over_buffer(staged, name, dims)
        else:
            import numpy as np

            # Its views, and theirs, have this flat array as their base: see _is_alone(). Made so it
            # refers to the memory itself, which says later that it can't be written.
            memory: Any = staged
            array = np.ndarray(math.prod(dims), _core.dtype_named(name), buffer=memory)
        return cls(staged, (array, dims))

    @property
    def room(self) -> Any:
        """What to write into."""
        if self._room is None:
            staged = self._open()
            if self._array is None:
                self._room = memoryview(staged)
            else:
                whole, dims = self._array
                self._room = whole if _is_tensor(whole) else whole.reshape(dims)
        return self._room

    @property
    def ref(self) -> StoreRef:
        """Names this object and no other, also for other processes."""
        return self._open().ref

    @property
    def nbytes(self) -> int:
        """Bytes of the object."""
        return self._open().nbytes

    def resize(self, nbytes: int) -> None:
        """Another length, where it lies; before ``room`` is asked for. NoSpace where it can't."""
        if self._array is not None or self._room is not None:
            raise Busy("the room is an array, or in use already: its length stays")
        self._open().resize(nbytes)

    def commit(self) -> None:
        """Make it visible.

        Raises Busy if something that was made of ``room`` still refers to its memory: nothing was
        committed then, and the room is free when that is gone. Expired: ``clear()`` or the deadline
        came first, or it is over.
        """
        staged = self._open()
        try:
            self._take_back()
            staged.commit()
        finally:
            self._end()

    def abort(self) -> None:
        """It was never there."""
        if self._staged is not None:
            _release(self._room)
        self._end()

    def _open(self) -> _core.StoreStaged:
        if self._staged is None:
            raise Expired("the reservation is over: committed, or aborted, before")
        return self._staged

    def _end(self) -> None:
        self._staged = self._array = self._room = None

    def _take_back(self) -> None:
        """Nobody writes any more."""
        room, self._room = self._room, None
        if self._array is None:
            _release(room)
            return
        whole, _ = self._array
        self._array = None
        if _is_tensor(whole):
            whole.set_()  # it is empty from here on, and so is the caller's: the same object
            return
        if room is None:
            return
        if not _is_alone(whole, room):
            raise Busy(
                "an array, a tensor or a memoryview that was made of the reservation outlives its "
                "block, or another name than the block's refers to it: delete that inside the "
                "block. Nothing was committed, and the room is free when it is gone"
            )
        room.flags.writeable = whole.flags.writeable = False

    def __enter__(self) -> Any:
        return self.room

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            self.commit()
        else:
            self.abort()

    @never_raises
    def __repr__(self) -> str:
        state = "over" if self._staged is None else f"{self._staged.nbytes} bytes"
        return f"<penstock.Reservation, {state}>"


def _name_of(dtype: Any) -> str:
    """As NumPy, ml_dtypes and PyTorch call it."""
    if type(dtype).__module__ == "torch":
        return str(dtype).removeprefix("torch.")
    if isinstance(dtype, str):
        return dtype
    import numpy as np

    try:
        return str(np.dtype(dtype).name)
    except TypeError as error:
        raise InvalidArgument(f"{dtype!r} is no dtype") from error


def _is_tensor(array: Any) -> bool:
    return type(array).__module__ == "torch"


def _release(room: Any) -> None:
    """A buffer that is released can't be used; what was made of it is among the exports."""
    if isinstance(room, memoryview):
        with contextlib.suppress(BufferError):
            room.release()


def _is_alone(whole: Any, room: Any) -> bool:
    """Whether ``room`` is the only array on the memory, and only one name refers to it.

    Views of it refer to ``whole``. Tensors and memoryviews refer to ``room``, as names do.
    """
    here_whole = 3  # the names in _take_back() and here, and getrefcount's own
    here_room = 3
    views = sys.getrefcount(whole) - here_whole - 1  # the room itself is one
    return views == 0 and sys.getrefcount(room) - here_room <= 1
