"""The trajectory ring of the Atropos environments under its old interface, over a Queue.

Programs that used ``ZeroCopySHMBuffer`` change the import. What differs is what was wrong: any
number of producers and consumers, nothing torn or cut, metadata of any size, a living segment is
never replaced, and attaching takes the geometry from the segment: a name alone will do, and numbers
that are given and differ are refused.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .. import _core
from .._exit import close_at_exit
from .._replaced import warn_of_replaced
from .._repr import never_raises
from ..errors import Closed, Incompatible, InvalidArgument, Timeout, TooLarge
from ..handle import Owner
from ..trajectories.columns import listed

__all__ = ["ZeroCopySHMBuffer"]

_SIZE: Final = 1000
_ENTRY_SIZE: Final = 4096
_INSTANCE_ID_LEN: Final = 64
# The geometry is the queue's word for its application: two letters, then the two numbers.
_LETTERS: Final = int.from_bytes(b"AT", "little")
_LETTERS_BITS: Final = 16
_SIZE_BITS: Final = 20
_MOST_SIZE: Final = (1 << _SIZE_BITS) - 1
_MOST_ENTRY: Final = (1 << 28) - 1
_MOST_BYTES: Final = 1 << 36  # address range; memory is reserved when trajectories first need it
_ROOM_FOR_METADATA: Final = 64 << 10


class ZeroCopySHMBuffer:
    """A bounded queue of single trajectories, of up to ``entry_size`` tokens each.

    ``create=True`` makes it, for ``size`` trajectories (1000 if not given; rounded up to a power of
    two) of ``entry_size`` tokens (4096), and raises AlreadyExists while somebody alive has that
    name. Otherwise it attaches and takes both from the segment; raises NotFound, or Incompatible
    where one of them was given and is another there. ``instance_id_len`` bounds an instance id, in
    bytes: 64 when creating, nothing when attaching, unless given. ``metadata_len`` bounds nothing
    any more. Another user's buffer is not attached to, unless ``owner`` names that user.

    Any thread may use it. In a forked child it attaches anew at its first use there.
    """

    def __init__(
        self,
        name: str,
        size: int | None = None,
        entry_size: int | None = None,
        instance_id_len: int | None = None,
        metadata_len: int = 256,
        create: bool = False,
        owner: Owner | None = None,
    ) -> None:
        size = _checked("size", size, _MOST_SIZE)
        entry_size = _checked("entry_size", entry_size, _MOST_ENTRY)
        self.name = name
        self._owner = owner
        self.metadata_len = metadata_len
        self.instance_id_len = instance_id_len
        if create:
            self.max_size = _SIZE if size is None else size
            self.entry_size = _ENTRY_SIZE if entry_size is None else entry_size
            if instance_id_len is None:
                self.instance_id_len = _INSTANCE_ID_LEN
            self._queue = _create(self)
            warn_of_replaced(name, self._queue._replaced)
        else:
            self.max_size, self.entry_size = _geometry_of(name, size, entry_size)
            self._queue = _attach(self)
        close_at_exit(self)

    def write_trajectory(
        self,
        tokens: Iterable[int] | npt.NDArray[np.integer[Any]],
        score: float,
        instance_id: str = "",
        repetition_id: int = 0,
        metadata: dict[str, Any] | None = None,
    ) -> bool:
        """Queue a trajectory; False if the queue is full, and then it was not queued.

        Raises TooLarge for more than ``entry_size`` tokens or too long an ``instance_id``, Closed
        when the creator has closed it, UnsupportedType for metadata that the codec does not know.
        """
        array = _tokens_of(tokens)
        if len(array) > self.entry_size:
            raise TooLarge(
                f"a trajectory of {len(array)} tokens, and '{self.name}' takes up to "
                f"{self.entry_size}; nothing was written"
            )
        most = self.instance_id_len
        if most is not None and len(instance_id.encode()) > most:
            raise TooLarge(
                f"instance_id has {len(instance_id.encode())} bytes, and up to {most} were agreed "
                f"on; nothing was written"
            )
        message = {
            "tokens": array,
            "score": float(score),
            "instance_id": instance_id,
            "repetition_id": int(repetition_id),
            "metadata": metadata or {},
        }
        try:
            self._queue.put(message, 0)
        except Timeout:
            return False
        return True

    def read_next(self) -> dict[str, Any] | None:
        """The next trajectory, as ``tokens`` (a list), ``score``, ``instance_id``,
        ``repetition_id`` and ``metadata``; None if there is none now, or none will come."""
        try:
            message: dict[str, Any] = self._queue.get(0)
        except (Timeout, Closed):
            return None
        message["tokens"] = message["tokens"].tolist()
        return message

    def close(self, unlink: bool = False) -> None:
        """Leave. With ``unlink`` what is queued is thrown away, unless others are attached."""
        if self._queue.closed:
            return
        if unlink and self._is_alone():
            self._queue.discard()
        self._queue.close()

    def _is_alone(self) -> bool:
        participants = _core.inspect_segment(self.name)["participants"]
        return sum(bool(participant["alive"]) for participant in participants) <= 1

    def __len__(self) -> int:
        """Trajectories that wait."""
        return len(self._queue)

    @never_raises
    def __repr__(self) -> str:
        state = ", closed" if self._queue.closed else ""
        geometry = f"{self.max_size} x {self.entry_size} tokens"
        return f"<penstock.ZeroCopySHMBuffer '{self.name}', {geometry}{state}>"


def _checked(what: str, number: int | None, most: int) -> int | None:
    if number is None:
        return None
    try:
        whole = int(operator.index(number))  # NumPy's integers too
    except TypeError:
        whole = 0
    if not 1 <= whole <= most:
        raise InvalidArgument(f"{what} is {number!r}: give a whole number from 1 to {most}")
    return whole


def _word_of(buffer: ZeroCopySHMBuffer) -> int:
    size_at = _LETTERS_BITS
    entry_at = size_at + _SIZE_BITS
    return _LETTERS | buffer.max_size << size_at | buffer.entry_size << entry_at


def _geometry_of(name: str, size: int | None, entry_size: int | None) -> tuple[int, int]:
    """Of the buffer that is there: its size and entry_size. What was given must be the same."""
    word = _core.inspect_queue(name)["application"]
    if word & ((1 << _LETTERS_BITS) - 1) != _LETTERS:
        raise Incompatible(f"'{name}' is a queue, and not a trajectory buffer: use another name")
    found = word >> _LETTERS_BITS & _MOST_SIZE, word >> (_LETTERS_BITS + _SIZE_BITS)
    given = (("size", size, found[0]), ("entry_size", entry_size, found[1]))
    if wrong := [what for what, wanted, there in given if wanted not in (None, there)]:
        raise Incompatible(
            f"'{name}' is a trajectory buffer of size {found[0]} and entry_size {found[1]}, and "
            f"not of the {' and '.join(wrong)} that was given: leave that out, or give the same"
        )
    return found


def _create(buffer: ZeroCopySHMBuffer) -> _core.Queue:
    size, entry_size = buffer.max_size, buffer.entry_size
    return _core.Queue(
        buffer.name,
        capacity=min(size * (entry_size * 8 + _ROOM_FOR_METADATA), _MOST_BYTES),
        slots=size,
        inline_bytes=256,
        members=256,
        poison_limit=0,
        codec=None,
        populate=False,
        lock_memory=False,
        application=_word_of(buffer),
        owner=buffer._owner,
    )


def _attach(buffer: ZeroCopySHMBuffer) -> _core.Queue:
    return _core.Queue(
        buffer.name,
        instance="",
        role="any",
        codec=None,
        timeout=0,
        application=_word_of(buffer),
        owner=buffer._owner,
    )


def _tokens_of(tokens: Any) -> npt.NDArray[np.integer[Any]]:
    """int32 where the ids fit, int64 else."""
    array = np.asarray(listed(tokens))
    if array.size == 0:
        return np.empty(0, np.int32)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InvalidArgument(
            f"tokens are {array.dtype} in {array.ndim} dimensions: give a list of ints"
        )
    limits = np.iinfo(np.int32)
    fits = array.min() >= limits.min and array.max() <= limits.max
    return array.astype(np.int32 if fits else np.int64, copy=False)
