"""The two phases: a ticket holds prepared slots, to fill or to read, until it is committed or
dropped.

Each request has a ticket of its own with its own reservations and pins; both are reaped when its
process dies. A ticket does not expire by time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from typing import Any, Final

from ... import _core
from ..._dtypes import parse_dtype
from ..._repr import never_raises
from ..._reservation import Reservation
from ...errors import AlreadyExists, Busy, Error, Expired, NoSpace, TooLarge, WrongProcess
from ...store import Store
from .layout import ObjectGroup
from .status import ChunkStatus, RetrieveResult, Statuses, StoreResult
from .writing import being_written

__all__ = ["Plan", "RetrieveTicket", "StoreTicket", "Wanted", "longest_prefix"]

_NO_ROOM: Final = (ChunkStatus.NO_SPACE, ChunkStatus.TOO_LARGE)


@dataclass(frozen=True)
class Plan:
    """The keys of a request, and the part that is wanted."""

    groups: tuple[ObjectGroup, ...]
    chunk_tokens: int
    keys: list[list[bytes]]  # [group][chunk]
    first_chunk: int = 0  # earlier ones are the engine's own
    gone: Sequence[frozenset[int]] = ()  # for each group: chunks without blocks in the engine
    refused: ChunkStatus | None = None  # the reason if nothing can be done

    @property
    def chunks(self) -> int:
        """Whole chunks of the request."""
        return len(self.keys[0])

    def is_wanted(self, group: ObjectGroup, chunk: int) -> bool:
        """Whether that object is to be moved."""
        is_gone = bool(self.gone) and chunk in self.gone[group.group_id]
        return chunk >= self.first_chunk and not is_gone

    def all_are(self, status: ChunkStatus) -> Statuses:
        """The same status for all chunks."""
        return tuple((status,) * self.chunks for _ in self.keys)


@dataclass
class _Item:
    """One chunk of one group, in a store."""

    status: ChunkStatus
    reservation: Reservation | None = None
    # keeps a cached chunk from being evicted by this ticket's own
    pin: _core.StoreView | None = None


class StoreTicket:
    """Made by ``PoolClient.prepare_store()``: slots to fill, for chunks that the pool does not
    have.

    Dropped, or left by an exception, it leaves nothing behind. One thread at a time.
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        is_torch: bool,
        expires_after: float | None,
        in_place: bool = False,
    ) -> None:
        """Reserves, chunk after chunk, as far as there is room.

        ``in_place``: no reference to a slot outlives the commit, so that a slot registered for a
        GPU may be written in place.
        """
        self._store = store
        self._plan = plan
        self._is_torch = is_torch
        self._options: dict[str, Any] = {
            "meta": None,
            "weight": 0,
            "expires_after": expires_after,
            "alignment": None,
            "in_place": in_place,
        }
        self._lock = threading.Lock()
        self._result: StoreResult | None = None
        self._items: list[list[_Item]] = [[] for _ in plan.keys]
        if plan.refused is not None:
            self._result = StoreResult(plan.all_are(plan.refused))
            return
        try:
            for chunk in range(plan.chunks):
                self._prepare_chunk(chunk)
        except BaseException:
            self.abort()
            raise

    @property
    def statuses(self) -> Statuses:
        """``[group][chunk]``: CACHED, RESERVED, SKIPPED, STAGED_BY_OTHER, NO_SPACE or TOO_LARGE;
        after the end the result of ``commit()``."""
        if self._result is not None:
            return self._result.statuses
        return tuple(tuple(item.status for item in items) for items in self._items)

    @property
    def reserved(self) -> list[tuple[int, int]]:
        """(group, chunk) of the slots to fill."""
        return [
            (group, chunk)
            for group, items in enumerate(self._items)
            for chunk, item in enumerate(items)
            if item.reservation is not None
        ]

    def slot(self, group: int, chunk: int) -> Any:
        """The slot in shared memory, to write into until the commit.

        Of the group's ``slot_shape`` and dtype; a tensor for an engine with tensors. Raises Expired
        if there is none.
        """
        return self._reservation(group, chunk).room

    def _reservation(self, group: int, chunk: int) -> Reservation:
        reservation = self._items[group][chunk].reservation if self._result is None else None
        if reservation is None:
            raise Expired(f"chunk {chunk} of object group {group} has no slot to fill")
        return reservation

    def commit(self) -> StoreResult:
        """Make the slots visible, the first chunk first. Copies into them must have ended.

        Returns the outcome for each chunk; again on later calls. References left over to a slot
        show a private copy from then on (ResourceWarning for views).
        """
        return self._end(_commit)

    def abort(self) -> bool:
        """Discard all slots. False: the ticket had ended before."""
        is_open = self._result is None
        self._end(_abort)
        return is_open

    def end_as(self, status: ChunkStatus) -> None:
        """Abort with a status that ``commit()`` will return."""
        self._end(lambda item: _abort(item, status))

    def _end(self, how: Callable[[_Item], ChunkStatus]) -> StoreResult:
        with self._lock:
            if self._result is None:
                for items in zip_longest(*self._items):  # the first chunk first
                    for item in filter(None, items):
                        item.status = how(item)
                self._result = StoreResult(self.statuses)
                self._items = []
            return self._result

    def _prepare_chunk(self, chunk: int) -> None:
        """A chunk is useful only with all its groups, and with all chunks before it."""
        before = [items[-1].status if items else ChunkStatus.SKIPPED for items in self._items]
        no_room = next((status for status in before if status in _NO_ROOM), None)
        for group, items in zip(self._plan.groups, self._items, strict=True):
            if not self._plan.is_wanted(group, chunk):
                items.append(_Item(no_room or ChunkStatus.SKIPPED))
                continue
            item = self._claim(group, self._plan.keys[group.group_id][chunk], no_room)
            items.append(item)
            if item.status in _NO_ROOM:
                no_room = item.status
        if no_room is not None:
            for items in self._items:
                if items[-1].reservation is not None:
                    _abort(items[-1])
                    items[-1].status = no_room

    def _claim(self, group: ObjectGroup, key: bytes, no_room: ChunkStatus | None) -> _Item:
        """Finds it or reserves it. Tries again if others commit or evict in between."""
        while True:
            pin = self._store._get(key)
            if pin is not None:
                return _Item(ChunkStatus.CACHED, pin=pin)
            if no_room is not None:
                return _Item(no_room)
            try:
                return _Item(ChunkStatus.RESERVED, self._reserve(group, key))
            except AlreadyExists:
                continue
            except Busy:
                return _Item(ChunkStatus.STAGED_BY_OTHER)
            except NoSpace:
                return _Item(ChunkStatus.NO_SPACE)
            except TooLarge:
                return _Item(ChunkStatus.TOO_LARGE)

    def _reserve(self, group: ObjectGroup, key: bytes) -> Reservation:
        shape, dtype = _slot_of(group, self._plan.chunk_tokens, self._is_torch)
        staged = self._store._reserve_tensor(
            key, list(shape), dtype, self._is_torch, **self._options
        )
        return Reservation(staged, dtype, shape)

    def __enter__(self) -> StoreTicket:
        return self

    def __exit__(self, *_: object) -> None:
        """Aborts, unless it was committed."""
        self.abort()

    @never_raises
    def __repr__(self) -> str:
        state = "over" if self._result is not None else f"{len(self.reserved)} slots to fill"
        return f"<penstock.StoreTicket, {self._plan.chunks} chunks, {state}>"


@lru_cache(maxsize=256)
def _slot_of(group: ObjectGroup, chunk_tokens: int, is_torch: bool) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of a slot as reservations take them: a tensor's dtype is its name."""
    dtype = group.dtype if is_torch else parse_dtype(group.dtype)[0]
    return group.slot_shape(chunk_tokens), dtype


def _commit(item: _Item) -> ChunkStatus:
    reservation, item.reservation = item.reservation, None
    _release(item)
    if reservation is None:
        return item.status
    try:
        reservation.commit()
    except Error:
        return ChunkStatus.EXPIRED
    return ChunkStatus.STORED


def _abort(item: _Item, status: ChunkStatus = ChunkStatus.ABORTED) -> ChunkStatus:
    reservation, item.reservation = item.reservation, None
    _release(item)
    if reservation is None:
        return item.status
    reservation.abort()
    return status


def _release(item: _Item) -> None:
    """Releases pins. Nothing was read through them: if they are lost, the reservations report
    it."""
    pin, item.pin = item.pin, None
    if pin is not None:
        with contextlib.suppress(WrongProcess):
            pin.release()


class Wanted:
    """Looks up a prefix: each key once, and keeps what was found."""

    def __init__(self, plan: Plan, probe: Callable[[bytes], Any]) -> None:
        self.plan = plan
        self._probe = probe
        self._found: dict[tuple[int, int], Any] = {}

    def has(self, group: ObjectGroup, chunk: int) -> bool:
        """Whether the chunk is available; the engine's own chunks are."""
        if not self.plan.is_wanted(group, chunk):
            return True
        place = (group.group_id, chunk)
        if place not in self._found:
            self._found[place] = self._probe(self.plan.keys[group.group_id][chunk])
        return bool(self._found[place] is not None)

    def pop_found(self) -> Iterator[tuple[tuple[int, int], Any]]:
        """(group, chunk) and the pin that was found; the caller owns them from then on."""
        while self._found:
            place, found = self._found.popitem()
            if found is not None:
                yield place, found


def longest_prefix(wanted: Wanted) -> int:
    """How many of the first chunks are available; of a group with a window, only the last ones
    count."""
    groups = wanted.plan.groups
    full = [group for group in groups if group.num_chunks_in_sw is None]
    count = 0
    while count < wanted.plan.chunks and all(wanted.has(group, count) for group in full):
        count += 1
    while True:
        shorter = min(
            (_without_gap(wanted, group, count) for group in groups if group.num_chunks_in_sw),
            default=count,
        )
        if shorter == count:
            return count
        count = shorter


def _without_gap(wanted: Wanted, group: ObjectGroup, count: int) -> int:
    """The longest prefix of at most ``count`` chunks whose window has no gap."""
    for chunk in _window(group, count):
        if not wanted.has(group, chunk):
            return chunk
    return count


def _window(group: ObjectGroup, count: int) -> range:
    """The chunks of a group that a prefix of ``count`` chunks needs, the last first."""
    width = count if group.num_chunks_in_sw is None else group.num_chunks_in_sw
    return range(count - 1, max(count - width, 0) - 1, -1)


class RetrieveTicket:
    """Made by ``PoolClient.prepare_retrieve()``: slots to read, pinned until the end.

    It belongs to this request alone, though others may read the same prefix; it lasts until
    ``commit()``, or the death of its process. Any thread may end it.
    """

    def __init__(self, store: Store, plan: Plan) -> None:
        """Pins the longest available prefix."""
        self._store = store
        self._plan = plan
        self._views: dict[tuple[int, int], _core.StoreView] = {}
        self._arrays: dict[tuple[int, int], Any] = {}
        self._lock = threading.Lock()
        self._is_open = True
        self.chunks = 0  #: chunks of the available prefix, including skipped ones
        if plan.refused is None:
            self._pin()
            self._statuses = self._look()
        else:
            self._statuses = plan.all_are(plan.refused)

    @property
    def tokens(self) -> int:
        """How many of the first tokens are available, including skipped ones."""
        return self.chunks * self._plan.chunk_tokens

    @property
    def statuses(self) -> Statuses:
        """``[group][chunk]``: HIT, SKIPPED, MISSING or STAGED_BY_OTHER."""
        return self._statuses

    @property
    def is_open(self) -> bool:
        """Whether the slots are still held."""
        return self._is_open

    @property
    def hits(self) -> list[tuple[int, int]]:
        """(group, chunk) of the slots to read, the first chunk first."""
        return sorted(self._views, key=lambda place: (place[1], place[0]))

    def slot(self, group: int, chunk: int) -> Any:
        """The slot in shared memory, read-only; arrays made of it keep it pinned.

        Raises Expired if there is none.
        """
        view = self._view(group, chunk)
        place = (group, chunk)
        if place not in self._arrays:
            self._arrays[place] = view.__enter__()  # entered once; left at the end of the ticket
        return self._arrays[place]

    def _view(self, group: int, chunk: int) -> _core.StoreView:
        view = self._views.get((group, chunk))
        if view is None:
            raise Expired(f"chunk {chunk} of object group {group} has no slot to read")
        return view

    def commit(self) -> bool:
        """Release the slots. Copies out of them must have ended. False: the ticket had ended
        before.

        Raises WrongProcess if this process had lost them: all are released, and what was copied may
        be something else.
        """
        with self._lock:
            was_open, self._is_open = self._is_open, False
            self._arrays.clear()
            lost: WrongProcess | None = None
            while self._views:
                try:
                    self._views.popitem()[1].release()
                except WrongProcess as error:  # noqa: PERF203  release all of them
                    lost = error
            if lost is not None:
                raise lost
            return was_open

    def result(self) -> RetrieveResult:
        """The result, chunk by chunk."""
        return RetrieveResult(self._statuses, self.tokens)

    def _pin(self) -> None:
        """Pins the prefix, without what a window leaves out and what lies behind its end."""
        wanted = Wanted(self._plan, self._store._get)
        self.chunks = longest_prefix(wanted)
        needed = {
            (group.group_id, chunk)
            for group in self._plan.groups
            for chunk in _window(group, self.chunks)
        }
        for place, view in wanted.pop_found():
            if place in needed:
                self._views[place] = view
            else:
                view.release()

    def _look(self) -> Statuses:
        first = max(self.chunks, self._plan.first_chunk)
        written = being_written(
            self._store, (key for keys in self._plan.keys for key in keys[first:])
        )
        return tuple(
            tuple(self._status(group, chunk, written) for chunk in range(self._plan.chunks))
            for group in self._plan.groups
        )

    def _status(self, group: ObjectGroup, chunk: int, written: set[bytes]) -> ChunkStatus:
        if (group.group_id, chunk) in self._views:
            return ChunkStatus.HIT
        if chunk < self.chunks or chunk < self._plan.first_chunk:
            return ChunkStatus.SKIPPED
        if self._plan.keys[group.group_id][chunk] in written:
            return ChunkStatus.STAGED_BY_OTHER
        return ChunkStatus.MISSING

    def __enter__(self) -> RetrieveTicket:
        return self

    def __exit__(self, *_: object) -> None:
        self.commit()

    @never_raises
    def __repr__(self) -> str:
        state = f"{len(self._views)} slots held" if self._is_open else "over"
        return f"<penstock.RetrieveTicket, {self.tokens} tokens, {state}>"
