"""TrajectoryReader: a trainer as participant of a queue of trajectories."""

from __future__ import annotations

import warnings
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from .. import _core
from .._exit import close_at_exit
from .._replaced import warn_of_replaced
from .._repr import describe
from .._threads import Countdown, attach_when_there, take_in_thread
from ..dead_letters import Chosen, DeadLetter, chosen_sequences, letters_of
from ..errors import Error, Incompatible, InvalidArgument, InvalidType, Timeout
from ..handle import Handle, Name, Owner, Waiting, handle_of
from ..queue import EndsWith
from .batch import Layout, TrajectoryBatch, Unserveable, make_batch
from .group import TrajectoryGroup
from .options import Size, queue_options

__all__ = ["TrajectoryReader"]

_STATE_FORMAT = 1


class TrajectoryReader(_core.TrajectoryReader):
    """A trainer. Several may share a queue: each group goes to one of them.

    Their requests for a batch are served whole, in the order in which they came. A trainer that
    waits, or works on a batch, holds no other group.

    Any thread may use it, one at a time. It belongs to its process: in a forked child attach anew.
    """

    @staticmethod
    def create(
        name: Name,
        *,
        sequences: int = 64,
        max_tokens: int | None = None,
        max_staleness: int | None = None,
        capacity: Size = "256MiB",
        slots: int = 4096,
        participants: int = 256,
        max_deliveries: int = 0,
        ends_with: EndsWith = "creator",
        populate: bool = False,
        lock_memory: bool = False,
        huge_pages: bool = False,
        waiting: Waiting = "balanced",
        owner: Owner | None = None,
    ) -> TrajectoryReader:
        """Create a queue of trajectories, and take part in it. Its ``close()`` ends the stream.

        So does its ordinary exit, and ``end()`` by any participant. Nothing else does: the stream
        stays open when all environments have left. With ``ends_with="last_producer"`` the last
        environment's ``close()`` ends it instead, and the creator may leave before. A death by a
        signal never ends it: then any process attaches and calls ``end()``.

        Environments get credit for ``max_staleness + 1`` batches of ``sequences``, including
        waiting groups and those being trained on: a group that is done in turn is never more than
        ``max_staleness`` versions old when it is used. A batch that another trainer does not
        acknowledge, being slow or stopped, counts no longer once a trainer has waited a second for
        credit beside it. None: credit for as many groups as there are ``slots``. ``capacity``
        bounds the bytes of the groups that wait or are being used.

        ``max_tokens`` bounds the length of a sequence: writers refuse to put longer ones
        (TooLarge), and a group with one that is in the queue already becomes a dead letter.

        A group that contradicts itself becomes a dead letter, and so does one that was nacked, or
        lost by dying trainers, ``max_deliveries`` times (0: never). A group that failed that often
        within batches is delivered once more with groups that have not, if they make an exact fill,
        and becomes a dead letter if that fails too; otherwise after twice as many deliveries. See
        ``dead_letters()``.

        Memory for groups is reserved when they need it, and given back when the queue is idle.
        ``populate`` takes all of it at once and for good (NoSpace if there is too little) and maps
        it into this process, some 0.7 s for each GiB, which Ctrl-C ends; ``lock_memory`` keeps it
        from being swapped out. ``huge_pages``, as of ``Broadcast.create()``, also takes all of it.

        ``waiting``, as of ``Broadcast.create()``, bounds what the waits for batches, room and
        credit may cost the processor.

        A queue of that name without a living participant is replaced. If it held groups, they are
        lost, and a RuntimeWarning says how many; ``attach()`` keeps them. Another user's is
        replaced only if ``owner`` names that user.

        Raises InvalidName, InvalidArgument, AlreadyExists, NoSpace or PermissionDenied.
        """
        reader = TrajectoryReader(
            name,
            instance="",
            options=queue_options(
                capacity,
                slots,
                participants,
                max_deliveries,
                max_staleness,
                populate,
                lock_memory,
                huge_pages,
                ends_with,
                waiting,
            ),
            sequences=sequences,
            timeout=0,
            owner=owner,
        )
        warn_of_replaced(reader.name, reader._replaced)
        return reader._opened(max_tokens)

    @staticmethod
    def attach(
        name: Name | Handle,
        *,
        sequences: int = 64,
        max_tokens: int | None = None,
        timeout: float | None = 0,
        owner: Owner | None = None,
    ) -> TrajectoryReader:
        """Attach; waits until ``timeout`` for the name to appear.

        Groups that a dead trainer had not acknowledged come first. ``max_tokens`` is as of
        ``create()``; None keeps other trainers' bound. Another user's queue is refused at once, by
        PermissionDenied, unless ``owner`` names that user.

        Raises NotFound, Busy, Incompatible (not a queue of trajectories), Corrupt or
        PermissionDenied.
        """
        handle = handle_of(name)
        reader = TrajectoryReader(
            handle.name,
            instance=handle.instance,
            options=None,
            sequences=sequences,
            timeout=timeout,
            owner=owner,
        )
        return reader._opened(max_tokens)

    @staticmethod
    async def attach_async(
        name: Name | Handle,
        *,
        sequences: int = 64,
        max_tokens: int | None = None,
        timeout: float | None = 0,
        owner: Owner | None = None,
    ) -> TrajectoryReader:
        """``attach`` for tasks. A task that is cancelled has attached to nothing."""
        return await attach_when_there(
            "queue",
            name,
            lambda: TrajectoryReader.attach(
                name, sequences=sequences, max_tokens=max_tokens, owner=owner
            ),
            Countdown(timeout),
            owner,
        )

    def _opened(self, max_tokens: int | None) -> TrajectoryReader:
        self._proven: set[Any] = set()  # requests for which a batch was made
        self._longest_served = 0  # tokens of a sequence
        try:
            if max_tokens is not None:
                self._limit_tokens(_at_least_one(max_tokens, "max_tokens"))
        except BaseException:
            self.close()
            raise
        self._batches: weakref.WeakSet[TrajectoryBatch] = weakref.WeakSet()
        close_at_exit(self)
        return self

    @property
    def handle(self) -> Handle:
        """A handle with which another process attaches; can be pickled."""
        return Handle(self.name, self._instance)

    def next_batch(
        self,
        sequences: int | None = None,
        *,
        layout: Layout = "padded",
        pad_to: int = 64,
        timeout: float | None = None,
        causal_shift: bool = False,
        columns: Iterable[str] | None = None,
        dtypes: Mapping[str, Any] | None = None,
        pad_values: Mapping[str, float] | None = None,
        out: Mapping[str, Any] | None = None,
        drop_stale: bool = False,
        lookahead: int | None = None,
        oversized: Literal["raise", "dead_letter"] = "raise",
    ) -> TrajectoryBatch:
        """Exactly ``sequences`` sequences (as created, by default) in whole groups, oldest first.

        ``layout`` is "padded" (rows of the longest sequence, rounded up to ``pad_to``), "packed"
        (all in one row), or "groups" (no arrays). ``columns`` asks for exactly these, and is
        refused (InvalidArgument) if no array can hold one; by default the batch has the columns
        that every group has with the same number of values for a token, and ``left_out`` of the
        batch names the others with reasons. Values keep the widest dtype of the groups, or are
        converted to ``dtypes``: int32 or int64, float32 or float64. ``causal_shift`` leaves out
        each sequence's last token, and the first value of every other column. ``pad_values`` stand
        behind the end: 0, -100 for masks, 1.0 for logprobs unless given.

        ``out`` maps columns to arrays (NumPy or PyTorch, on the host, pinned ones too) with at
        least (sequences, longest) or (tokens,) places; the batch then has views of them. Without it
        the arrays are the batch's own; their memory is reused by later batches once nothing refers
        to them.

        ``drop_stale`` drops, and counts, groups older than ``max_staleness``: nothing is dropped
        otherwise. ``lookahead`` bounds the groups considered, the oldest ones.

        No group blocks the others: a group that no batch can be made of becomes a dead letter, a
        RuntimeWarning says which and why, ``stats.dead_lettered`` counts it, and the search goes
        on. That is a group with a sequence of more than ``max_tokens``, or for which memory is
        short because no earlier sequence was as long; one that can't be decoded, if the layout is
        "groups"; and one that lacks what ``columns`` and ``dtypes`` ask for, once this reader has
        got a batch with them (before that the request is refused, because the request may be
        wrong). ``oversized`` says whether a group with more sequences than the batch is treated so,
        too.

        Raises Timeout if no whole groups make exactly that many, or another trainer's request is
        first in line, and says what is waiting; Closed if the stream has ended; TooLarge for a
        group with more sequences than that, or for an array of ``out`` that is too small;
        InvalidArgument; MemoryError. Then nothing was taken. Corrupt for a group that contradicts
        itself, which is a dead letter now.
        """
        if oversized not in ("raise", "dead_letter"):
            raise InvalidArgument(f"oversized is {oversized!r}: give 'raise' or 'dead_letter'")
        columns = None if columns is None else tuple(columns)
        sets_aside = oversized == "dead_letter"
        countdown = Countdown(timeout)
        while True:
            try:
                core = self._next(
                    sequences, lookahead, causal_shift, drop_stale, sets_aside, countdown.left()
                )
            finally:
                self._tell_of_dead_letters()
            try:
                return self._arranged(core, layout, pad_to, columns, dtypes, pad_values, out)
            except Unserveable as error:
                notice = f"{core.title(error.group)} was set aside: {error}"
                core.dead_letter(error.group)
                _warn_of_dead_letters(notice)

    def _tell_of_dead_letters(self) -> None:
        try:
            notices = self._take_notices()
        except Error:  # closed meanwhile, which the call itself reports
            return
        for notice in notices:
            _warn_of_dead_letters(notice, stacklevel=4)

    def _arranged(
        self,
        core: _core.TrajectoryBatch,
        layout: Layout,
        pad_to: int,
        columns: Iterable[str] | None,
        dtypes: Mapping[str, Any] | None,
        pad_values: Mapping[str, float] | None,
        out: Mapping[str, Any] | None,
    ) -> TrajectoryBatch:
        if layout not in ("padded", "packed", "groups") or pad_to < 1:
            core.untake()
            raise InvalidArgument(
                f"layout is {layout!r} and pad_to {pad_to}: give 'padded', 'packed' or 'groups', "
                f"and 1 or more"
            )
        request = _request_key(layout, columns, dtypes, out)
        batch = make_batch(
            core,
            layout,
            pad_to=pad_to,
            columns=columns,
            dtypes=dtypes or {},
            pad_values=pad_values or {},
            out=out or {},
            version=self.version,
            is_proven=request in self._proven,
            longest_served=self._longest_served,
        )
        self._proven.add(request)
        self._longest_served = max(self._longest_served, core.longest)
        self._batches.add(batch)
        return batch

    async def next_batch_async(
        self, sequences: int | None = None, *, timeout: float | None = None, **options: Any
    ) -> TrajectoryBatch:
        """``next_batch`` for tasks, and its options. A cancelled task has taken nothing."""
        countdown = Countdown(timeout)
        try:
            return self.next_batch(sequences, timeout=0, **options)
        except Timeout:
            if countdown.left() == 0:
                raise
        return await take_in_thread(
            lambda: self.next_batch(sequences, timeout=countdown.left(), **options),
            lambda batch: batch._core.untake(),
        )

    def state_dict(self) -> dict[str, Any]:
        """State for a restart: the version, and every group read and not acknowledged.

        These are the groups of open batches, restored groups, and the groups that the last
        ``next_batch()`` saw in the queue and left there (of several trainers, only the one in the
        lowest slot includes the latter). Plain values for a checkpoint, as large as those groups.
        """
        return {
            "format": _STATE_FORMAT,
            "name": self.name,
            "instance": self._instance,
            "version": self.version,
            "messages": self._unacknowledged(restored=False),
            "restored": self._unacknowledged(restored=True),
        }

    def _unacknowledged(self, restored: bool) -> list[bytes]:
        """Groups in batches and groups left in the queue; or only those that the queue does not
        have."""
        messages = [one for batch in list(self._batches) for one in batch._messages(restored)]
        return messages + self._held_messages(restored)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state_dict()``: its groups are delivered again, first, and marked as
        redelivered.

        If this is still the queue that they were read from, it has them itself and redelivers them;
        then only the version is taken over, and restored groups that this reader does not have.
        """
        if state.get("format") != _STATE_FORMAT:
            raise Incompatible(f"a state of format {state.get('format')!r}, and 1 is known here")
        self._raise_version(state["version"])
        if state["instance"] != self._instance:
            for message in state["messages"]:
                self._restore(message)
            return
        here = Counter(self._unacknowledged(restored=True))
        for message in state.get("restored", []):
            if here[message] > 0:
                here[message] -= 1
            else:
                self._restore(message)

    def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """The dead letters, oldest first, at most ``limit``.

        ``letter.content()`` is a TrajectoryGroup, or raises Corrupt and names the contradiction.
        Dead letters do not count as waiting, and keep their slots and bytes until they are requeued
        or dropped. Raises Closed.
        """
        return letters_of(self, limit, _group_of)

    def requeue_dead_letters(self, sequences: Chosen = None) -> int:
        """Deliver dead letters again, as of a ``Queue``; return how many."""
        return self._requeue_dead_letters(chosen_sequences(sequences))

    def drop_dead_letters(self, sequences: Chosen = None) -> int:
        """Delete dead letters, as of a ``Queue``; return how many."""
        return self._drop_dead_letters(chosen_sequences(sequences))

    def __repr__(self) -> str:
        return describe(self, lambda: f"of '{self.name}', {self.sequences} sequences a batch")


def _at_least_one(number: int, name: str) -> int:
    if isinstance(number, bool) or not hasattr(number, "__index__"):
        raise InvalidType(f"{name} must be an int, not {number!r}")
    if number < 1:
        raise InvalidArgument(f"{name} is {number}: give 1 or more, or None")
    return number


def _warn_of_dead_letters(notice: str, stacklevel: int = 3) -> None:
    where = "see dead_letters(), or `penstock dead NAME`"
    warnings.warn(f"{notice}; {where}", RuntimeWarning, stacklevel=stacklevel)


def _request_key(
    layout: Layout,
    columns: Iterable[str] | None,
    dtypes: Mapping[str, Any] | None,
    out: Mapping[str, Any] | None,
) -> Any:
    """What a failure to make arrays may depend on, besides the groups."""
    given = tuple((name, getattr(array, "dtype", None)) for name, array in (out or {}).items())
    key = (layout, columns, tuple((dtypes or {}).items()), given)
    try:  # the text only if needed: that of a NumPy dtype takes 5 us
        hash(key)
    except TypeError:
        return str(key)
    return key


def _group_of(_letter: DeadLetter, raw: bytes) -> TrajectoryGroup:
    """The group of a dead letter; Corrupt if it is none. Its format is not asked for: the queue of
    trajectories carries groups only, and a damaged word may call one plain bytes."""
    _core._check_group(raw)
    return TrajectoryGroup.from_message(_core.codec_decode(raw))
