"""Participants and statistics: plain data, for people and tools."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ._core import BroadcastStats, MemoryStats, QueueStats, StoreStats, TierStats

if TYPE_CHECKING:
    from ._core import _Info, _QueueInfo, _StoreInfo, _Summary

__all__ = [
    "BroadcastInfo",
    "BroadcastStats",
    "KeptData",
    "MemoryStats",
    "Participant",
    "QueueInfo",
    "QueueRequest",
    "QueueStats",
    "ReaderState",
    "SegmentSummary",
    "StoreInfo",
    "StoreLook",
    "StoreStats",
    "TierStats",
    "Unwritten",
]


@dataclass(frozen=True)
class ReaderState:
    """One rank of a Broadcast."""

    rank: int
    #: ``expected``: not attached yet, messages wait for it. ``vacant``: its reader closed
    #: or died; does not gate the writer until a replacement attaches.
    life: Literal["expected", "active", "vacant"]
    alive: bool
    stopped: bool  #: by SIGSTOP or a debugger
    pid: int  #: in its own PID namespace
    process: str
    messages: int  #: released by this reader so far
    lag_messages: int  #: sent, and not yet released by it
    lag_bytes: int
    blocking_for: float  #: seconds since the writer was blocked, if this reader blocks it; else 0
    exit_code: int | None  #: of a dead reader, as in ``Participant``
    signal: int | None  #: likewise
    how_it_died: str  #: likewise
    description: str = field(repr=False, compare=False)

    def describe(self) -> str:
        """``reader 2 (pid 4711, worker.py), stopped, 12 messages behind, blocking for 0.3 s``."""
        return self.description


@dataclass(frozen=True)
class Participant:
    """A process that is, or was, attached to a segment."""

    slot: int
    role: str  #: ``writer``, ``reader 2``
    alive: bool  #: by the kernel's lock
    stopped: bool
    pid: int  #: in its own PID namespace
    process: str
    attached_at: int  #: nanoseconds since the epoch
    exit_code: int | None  #: of a dead process that exited without closing its handle; else None
    signal: int | None  #: of a dead process that was killed by this signal; else None
    #: Of a dead process: ``killed by signal 9 (SIGKILL)``, or why that is not known; else empty.
    how_it_died: str


@dataclass(frozen=True)
class KeptData:
    """Data that an abandoned segment holds and that would be lost with it; a process that attaches
    still gets it. False if there is none."""

    messages: int = 0  #: of a queue: queued, taken by consumers that died, or dead letters
    objects: int = 0  #: of a persistent store
    bytes: int = 0  #: of those messages or objects
    persistent: bool = False  #: a store that was created to stay, with or without objects
    description: str = field(default="", repr=False, compare=False)

    def describe(self) -> str:
        """``1000 messages``, ``3 objects, 64 MiB, persistent``."""
        return self.description

    def is_nothing(self) -> bool:
        """Whether no data is lost with the segment."""
        return self.messages == 0 and not self.persistent

    def __bool__(self) -> bool:
        return not self.is_nothing()


@dataclass(frozen=True)
class SegmentSummary:
    """One segment, as ``penstock ls`` shows it."""

    name: str
    kind: str  #: ``broadcast``, ``queue``, ``store``; ``unknown`` if it can't be read
    reserved_bytes: int  #: memory that it takes now
    range_bytes: int  #: address range that it may grow into
    participants: list[Participant]
    problem: str  #: why it can't be read; empty if there is no problem
    #: The class of the error behind ``problem``: ``PermissionDenied`` means another user's segment,
    #: which may be sound.
    problem_code: str = ""
    #: Dead participants that were reaped: the last of each slot, until another process joins
    #: there. ``pid`` is 0, ``process`` empty and ``attached_at`` 0 where unknown.
    reaped: list[Participant] = field(default_factory=list)
    #: Empty for a segment with a living participant, whose data is not counted.
    kept: KeptData = KeptData()
    #: The user id of the file's owner; None if there is a ``problem``.
    owner: int | None = None

    def is_abandoned(self) -> bool:
        """Whether no participant lives: ``penstock gc`` would remove it, unless it holds ``kept``
        data."""
        return not self.problem and not any(one.alive for one in self.participants)


@dataclass(frozen=True)
class BroadcastInfo:
    """One Broadcast in full, as ``penstock info`` shows it."""

    segment: SegmentSummary
    stats: BroadcastStats
    readers: list[ReaderState]
    closed: bool
    writer_blocked_for: float  #: seconds; 0 if it is not blocked


@dataclass(frozen=True)
class QueueRequest:
    """A request that waits in line: for several messages, or behind such a request."""

    slot: int  #: of its participant
    requested: int  #: messages wanted; of trajectories, sequences
    passed: bool  #: gave no sign of life: later requests go first until it does


@dataclass(frozen=True)
class QueueInfo:
    """One queue in full, as ``penstock info`` shows it."""

    segment: SegmentSummary
    stats: QueueStats
    requests: list[QueueRequest]  #: in the order of service
    dead_letters: list[int]  #: sequences of dead letters, oldest first, up to 100
    ends_with: Literal["creator", "last_producer"]  #: whose ``close()`` ends the stream


@dataclass(frozen=True)
class StoreLook:
    """The state of a key, for callers that do not want the object."""

    #: ``remote``: in the second tier, and not in the first.
    state: Literal["hit", "staged", "miss", "remote"]
    staged_by: int  #: slot of the participant that is writing it; -1 if none is
    nbytes: int  #: of the object, if there is one
    is_retained: bool  #: by ``retain()``


@dataclass(frozen=True)
class Unwritten:
    """Objects that were put and are not known to be in the second tier.

    False if there are none.
    """

    waiting: int  #: objects still being written when the time was over
    waiting_bytes: int
    dropped: int  #: objects given up since the last report, for lack of room or after failures
    dropped_bytes: int

    def is_nothing(self) -> bool:
        """Whether the second tier has all of them."""
        return self.waiting == 0 and self.dropped == 0

    def __bool__(self) -> bool:
        return not self.is_nothing()


@dataclass(frozen=True)
class StoreInfo:
    """One store in full, as ``penstock info`` shows it."""

    segment: SegmentSummary
    stats: StoreStats


def store_info_from(raw: _StoreInfo) -> StoreInfo:
    """The dataclass of what ``_core`` gives."""
    return StoreInfo(segment=summary_from(raw["segment"]), stats=raw["stats"])


def summary_from(raw: _Summary) -> SegmentSummary:
    """Converts what ``_core`` returns."""
    return SegmentSummary(
        name=raw["name"],
        kind=raw["kind"],
        reserved_bytes=raw["reserved_bytes"],
        range_bytes=raw["range_bytes"],
        participants=[Participant(**one) for one in raw["participants"]],
        reaped=[Participant(**one) for one in raw["reaped"]],
        problem=raw["problem"],
        problem_code=raw["problem_code"],
        kept=KeptData(**raw["kept"]),
        owner=raw["owner"],
    )


def info_from(raw: _Info) -> BroadcastInfo:
    """Converts what ``_core`` returns."""
    return BroadcastInfo(
        segment=summary_from(raw["segment"]),
        stats=raw["stats"],
        readers=[ReaderState(**reader) for reader in raw["readers"]],
        closed=raw["closed"],
        writer_blocked_for=raw["writer_blocked_for"],
    )


def queue_info_from(raw: _QueueInfo) -> QueueInfo:
    """Converts what ``_core`` returns."""
    return QueueInfo(
        segment=summary_from(raw["segment"]),
        stats=raw["stats"],
        requests=[QueueRequest(**request) for request in raw["requests"]],
        dead_letters=raw["dead_letters"],
        ends_with=raw["ends_with"],
    )
