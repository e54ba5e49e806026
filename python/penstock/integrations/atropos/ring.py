"""The trajectory ring of the Atropos environments under its old interface, over a Queue.

Programs that used ``ZeroCopySHMBuffer`` change the import. Differences are corrections: any number
of producers and consumers, nothing torn or cut, metadata of any size, a ring that another process
has is never replaced, and attaching takes the geometry from the segment.
"""

from __future__ import annotations

import contextlib
import operator
import os
import threading
import warnings
import weakref
from collections.abc import Iterable
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt

from ... import _core
from ..._exit import close_at_exit
from ..._replaced import warn_of_replaced
from ..._repr import never_raises
from ...errors import Closed, Incompatible, InvalidArgument, NoSpace, NotFound, Timeout, TooLarge
from ...handle import Owner
from ...trajectories.columns import listed
from .names import segment_name

__all__ = ["ZeroCopySHMBuffer", "is_ring"]

_SIZE: Final = 1000
_ENTRY_SIZE: Final = 4096
_INSTANCE_ID_LEN: Final = 64
# The geometry is the queue's application word: two letters, then the two numbers.
_LETTERS: Final = int.from_bytes(b"AT", "little")
_LETTERS_BITS: Final = 16
_SIZE_BITS: Final = 20
_MOST_SIZE: Final = (1 << _SIZE_BITS) - 1
_MOST_ENTRY: Final = (1 << 28) - 1
_MOST_BYTES: Final = 1 << 36  # address range; memory is reserved when trajectories first need it
_ROOM_FOR_METADATA: Final = 64 << 10

Tokens = Iterable[int] | npt.NDArray[np.integer[Any]]
Metadata = dict[str, Any]


class ZeroCopySHMBuffer:
    """A bounded queue of single trajectories, of up to ``entry_size`` tokens each.

    ``create=True`` makes it, for ``size`` trajectories (1000 if not given; rounded up to a power of
    two) of ``entry_size`` tokens (4096), and raises AlreadyExists while another process that lives
    has that name. In the process that has made it, a second ``create=True`` gives the same ring
    with all that waits in it; with other numbers it is made anew and what waits moves over, unless
    others are attached or that has no room: then it stays as it is, and a RuntimeWarning says so.

    Otherwise it attaches, and takes both numbers from the segment; raises NotFound. A
    RuntimeWarning is issued if the given numbers promise more (another ``entry_size``, or a larger
    ``size``). ``instance_id_len`` bounds an instance id, in bytes: 64 when creating, unbounded when
    attaching, unless given. ``metadata_len`` is accepted and bounds nothing. Another user's buffer
    is not attached to, unless ``owner`` names that user.

    Any text is a name: see ``segment_name``. The fourth argument may be ``create``, as it was
    before ids. Any thread may use it. In a forked child it attaches anew at its first use there.
    """

    def __init__(
        self,
        name: str,
        size: int | None = None,
        entry_size: int | None = None,
        instance_id_len: int | bool | None = None,
        metadata_len: int = 256,
        create: bool = False,
        owner: Owner | None = None,
    ) -> None:
        longest_id: int | None = None
        if isinstance(instance_id_len, bool):
            create = instance_id_len
        else:
            longest_id = instance_id_len
        self.name = name
        self.metadata_len = metadata_len
        self.instance_id_len = longest_id
        self._closed = False
        asked = (_whole("size", size), _whole("entry_size", entry_size))
        if create:
            if longest_id is None:
                self.instance_id_len = _INSTANCE_ID_LEN
            self._shared = _create(name, *asked, owner)
        else:
            self._shared = _attach(name, owner)
            _warn_of_difference(name, asked, self._shared)
        self._shared.users += 1
        close_at_exit(self)

    @property
    def segment(self) -> str:
        """The segment's name, as ``penstock info`` takes it."""
        return self._shared.segment

    @property
    def max_size(self) -> int:
        """Trajectories that may wait, as given at its creation."""
        return self._shared.size

    @property
    def entry_size(self) -> int:
        """Tokens that a trajectory may have at most."""
        return self._shared.entry_size

    @overload
    def write_trajectory(
        self,
        tokens: Tokens,
        score: float,
        instance_id: str = "",
        repetition_id: int = 0,
        metadata: Metadata | None = None,
        *,
        rep_id: int | None = None,
    ) -> bool: ...

    @overload
    def write_trajectory(self, tokens: Tokens, score: float, instance_id: Metadata) -> bool: ...

    def write_trajectory(
        self,
        tokens: Tokens,
        score: float,
        instance_id: str | Metadata | None = "",
        repetition_id: int = 0,
        metadata: Metadata | None = None,
        *,
        rep_id: int | None = None,
    ) -> bool:
        """Queue a trajectory; False if the queue is full, and then it was not queued.

        ``rep_id`` is another name of ``repetition_id``. The third argument may be ``metadata``, as
        it was before ids.

        Raises TooLarge for more than ``entry_size`` tokens or too long an ``instance_id``, Closed
        if the creator has closed it, UnsupportedType for metadata that the codec does not support,
        InvalidArgument.
        """
        if not isinstance(instance_id, str):
            if metadata is not None or not isinstance(instance_id, dict | None):
                raise InvalidArgument(f"instance_id is {instance_id!r}: give text")
            metadata = instance_id
            instance_id = ""
        array = _tokens_of(tokens)
        if len(array) > self._shared.entry_size:
            raise TooLarge(
                f"a trajectory of {len(array)} tokens, and '{self.name}' takes up to "
                f"{self.entry_size}; nothing was written"
            )
        most = self.instance_id_len
        if most is not None and len(instance_id) * 4 > most:
            self._check_length(instance_id, most)
        message = {
            "tokens": array,
            "score": float(score),
            "instance_id": instance_id,
            "repetition_id": int(repetition_id if rep_id is None else rep_id),
            "metadata": metadata or {},
        }
        try:
            self._queue().put(message, 0)
        except Timeout:
            return False
        return True

    @staticmethod
    def _check_length(instance_id: str, most: int) -> None:
        length = len(instance_id.encode("utf-8", "surrogatepass"))
        if length > most:
            raise TooLarge(
                f"instance_id has {length} bytes, and up to {most} were agreed on; nothing was "
                f"written"
            )

    def read_next(self) -> dict[str, Any] | None:
        """The next trajectory, as ``tokens`` (a list), ``score``, ``instance_id``,
        ``repetition_id`` and ``metadata``; None if there is none now, or none will come."""
        try:
            message: dict[str, Any] = self._queue().get(0)
        except (Timeout, Closed):
            return None
        message["tokens"] = _core.number_list(message["tokens"])
        return message

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # __init__ did not complete
            if not self._closed:
                self._shared.users -= 1

    def close(self, unlink: bool = False) -> None:
        """Leave. With ``unlink`` waiting trajectories are dropped, unless others are attached."""
        if self._closed:
            return
        self._closed = True
        self._shared.leave(unlink)

    @property
    def closed(self) -> bool:
        """Whether this handle was closed."""
        return self._closed

    def _queue(self) -> _core.Queue:
        if self._closed:
            raise Closed(f"this handle of '{self.name}' was closed")
        return self._shared.queue

    def __len__(self) -> int:
        """Number of waiting trajectories."""
        return len(self._queue())

    @never_raises
    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        geometry = f"{self.max_size} x {self.entry_size} tokens"
        return f"<penstock.ZeroCopySHMBuffer '{self.name}', {geometry}{state}>"


class _Shared:
    """An attachment to a ring, of one handle or of several that have created it in turn."""

    def __init__(self, segment: str, size: int, entry_size: int, queue: _core.Queue) -> None:
        self.segment = segment
        self.size = size
        self.entry_size = entry_size
        self.queue = queue
        self.process = os.getpid()
        self.users = 0  # handles that are not closed

    def leave(self, unlink: bool) -> None:
        with _lock:
            self.users -= 1
            if self.users > 0 or self.queue.closed:
                return
            if unlink and not self.has_others():
                self.queue.discard()
            self.queue.close()

    def has_others(self) -> bool:
        """Whether any living process is attached besides this one."""
        participants = _core.inspect_segment(self.segment)["participants"]
        return sum(bool(participant["alive"]) for participant in participants) > 1

    def is_usable(self) -> bool:
        return self.process == os.getpid() and self.users > 0 and not self.queue.closed


# Rings created by this process, by segment: given to later creations of the same name.
_created: weakref.WeakValueDictionary[str, _Shared] = weakref.WeakValueDictionary()
_lock = threading.RLock()
os.register_at_fork(after_in_child=lambda: globals().update(_lock=threading.RLock()))


def _create(name: Any, size: int | None, entry_size: int | None, owner: Owner | None) -> _Shared:
    size = _checked("size", _SIZE if size is None else size, _MOST_SIZE)
    entry_size = _checked(
        "entry_size", _ENTRY_SIZE if entry_size is None else entry_size, _MOST_ENTRY
    )
    segment = segment_name(name)
    with _lock:
        before = _created.get(segment) if isinstance(segment, str) else None
        if before is None or not before.is_usable():
            made = _new(segment, size, entry_size, owner)
            warn_of_replaced(name, made.queue._replaced)
            if isinstance(segment, str):
                _created[segment] = made
            return made
        is_same = (before.size, before.entry_size) == (size, entry_size)
        if not is_same and (before.has_others() or not _made_anew(before, size, entry_size, owner)):
            _warn_of_difference(name, (size, entry_size), before, all_matters=True)
        return before


def _made_anew(before: _Shared, size: int, entry_size: int, owner: Owner | None) -> bool:
    """The same attachment with another geometry, and its waiting trajectories; its handles go on
    with it.

    False if the waiting trajectories have no room there, or memory is short: then nothing has
    changed.
    """
    waiting = _all_of(before.queue)
    longest = max((len(one["tokens"]) for one in waiting), default=0)
    fits = longest <= entry_size and len(waiting) <= size
    try:
        return fits and _has_room_for(before, size, entry_size, owner)
    finally:
        for message in waiting:
            before.queue.put(message, 0)


def _has_room_for(before: _Shared, size: int, entry_size: int, owner: Owner | None) -> bool:
    """Creates the empty ring anew. False: memory is short, and the old ring was restored."""
    before.queue.close()
    try:
        before.queue = _new(before.segment, size, entry_size, owner).queue
    except BaseException as error:
        before.queue = _new(before.segment, before.size, before.entry_size, owner).queue
        if isinstance(error, NoSpace):
            return False
        raise
    before.size, before.entry_size = size, entry_size
    return True


def _all_of(queue: _core.Queue) -> list[dict[str, Any]]:
    messages = []
    with contextlib.suppress(Timeout, Closed):
        while True:
            messages.append(queue.get(0))
    return messages


def _new(segment: str, size: int, entry_size: int, owner: Owner | None) -> _Shared:
    queue = _core.Queue(
        segment,
        capacity=min(size * (entry_size * 8 + _ROOM_FOR_METADATA), _MOST_BYTES),
        slots=size,
        inline_bytes=256,
        participants=256,
        max_deliveries=0,
        codec=None,
        populate=False,
        lock_memory=False,
        application=_LETTERS | size << _LETTERS_BITS | entry_size << _LETTERS_BITS + _SIZE_BITS,
        owner=owner,
    )
    return _Shared(segment, size, entry_size, queue)


def _attach(name: Any, owner: Owner | None) -> _Shared:
    segment = segment_name(name)
    word = _core.inspect_queue(segment)["application"]
    if not _is_of_rings(word):
        raise Incompatible(f"'{name}' is a queue, and not a trajectory buffer: use another name")
    queue = _core.Queue(
        segment, instance="", role="any", codec=None, timeout=0, application=word, owner=owner
    )
    size = word >> _LETTERS_BITS & _MOST_SIZE
    return _Shared(segment, size, word >> (_LETTERS_BITS + _SIZE_BITS), queue)


def is_ring(name: Any) -> bool:
    """Whether a ring of that name exists; not if it is something else."""
    try:
        return _is_of_rings(_core.inspect_queue(segment_name(name))["application"])
    except (NotFound, Incompatible):
        return False


def _is_of_rings(word: int) -> bool:
    return word & ((1 << _LETTERS_BITS) - 1) == _LETTERS


def _warn_of_difference(
    name: Any, asked: tuple[int | None, int | None], found: _Shared, all_matters: bool = False
) -> None:
    """Warns of numbers that promise more than the ring does. Fewer trajectories than it holds don't
    matter to a process that attaches."""
    size, entry_size = asked
    differences = []
    if size is not None and (size > found.size or (all_matters and size < found.size)):
        differences.append(f"size={size} was given, and {found.size} trajectories may wait in it")
    if entry_size is not None and entry_size != found.entry_size:
        differences.append(
            f"entry_size={entry_size} was given, and a trajectory may have {found.entry_size} "
            f"tokens"
        )
    if differences:
        warnings.warn(
            f"'{name}' keeps the numbers that it was created with: {'; '.join(differences)}",
            RuntimeWarning,
            stacklevel=4 if all_matters else 3,
        )


def _whole(what: str, number: Any) -> int | None:
    if number is None:
        return None
    try:
        return int(operator.index(number))  # also NumPy's integers
    except TypeError:
        raise InvalidArgument(f"{what} is {number!r}: give a whole number") from None


def _checked(what: str, number: int, most: int) -> int:
    if not 1 <= number <= most:
        raise InvalidArgument(f"{what} is {number!r}: give a whole number from 1 to {most}")
    return number


def _tokens_of(tokens: Any) -> npt.NDArray[np.integer[Any]]:
    """int32 if the ids fit, otherwise int64."""
    array = _core.integer_array(tokens)
    if array is not None:
        return array  # type: ignore[no-any-return]
    array = np.asarray(listed(tokens))
    if array.size == 0:
        return np.empty(0, np.int32)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InvalidArgument(
            f"tokens are {array.dtype} in {array.ndim} dimensions: give a list of ints"
        )
    if array.dtype == np.int32:
        return array
    limits = np.iinfo(np.int32)
    fits = array.min() >= limits.min and array.max() <= limits.max
    return array.astype(np.int32 if fits else np.int64, copy=False)
