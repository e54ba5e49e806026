"""Outcomes for each chunk; only a success is called one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = ["ChunkStatus", "RetrieveResult", "Statuses", "StoreResult", "count"]


class ChunkStatus(Enum):
    """Status of one chunk of one object group."""

    # No failure.
    CACHED = "cached"  #: store: it was cached before; the ticket pins it
    RESERVED = "reserved"  #: store: its slot is yours to fill
    STORED = "stored"  #: store: committed, and visible to all
    HIT = "hit"  #: retrieve: its slot is yours to read
    SKIPPED = "skipped"  #: not requested: before ``skip_first_n_tokens``, or outside a window
    # Not cached, or not available to this engine.
    MISSING = "missing"  #: retrieve: it is missing, or one before it is
    STAGED_BY_OTHER = "staged by other"  #: a living process is writing it now
    NO_SPACE = "no space"  #: store: no room for it, or for one before it
    TOO_LARGE = "too large"  #: store: it, or one before it, can never fit into the pool
    EXPIRED = "expired"  #: store: the pool was cleared, or the deadline passed, before the commit
    ABORTED = "aborted"  #: store: discarded without a commit
    NOT_REGISTERED = "not registered"  #: the engine is not registered (any more)


Statuses = tuple[tuple[ChunkStatus, ...], ...]  # [group][chunk]

_IS_THERE: Final = {ChunkStatus.CACHED, ChunkStatus.STORED, ChunkStatus.SKIPPED}


def count(statuses: Sequence[Sequence[ChunkStatus]], status: ChunkStatus) -> int:
    """How many chunks have that status, over all groups."""
    return sum(one is status for group in statuses for one in group)


@dataclass(frozen=True)
class StoreResult:
    """Result of a store: ``statuses[group][chunk]``, for whole chunks."""

    statuses: Statuses

    @property
    def is_complete(self) -> bool:
        """Whether everything requested is in the pool."""
        return all(one in _IS_THERE for group in self.statuses for one in group)

    def count(self, status: ChunkStatus) -> int:
        """How many chunks have that status, over all groups."""
        return count(self.statuses, status)


@dataclass(frozen=True)
class RetrieveResult:
    """Result of a retrieve: ``statuses[group][chunk]``, for whole chunks."""

    statuses: Statuses
    tokens: int  #: how many of the first tokens the engine has now, including skipped ones

    def count(self, status: ChunkStatus) -> int:
        """How many chunks have that status, over all groups."""
        return count(self.statuses, status)
