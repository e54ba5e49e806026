"""What became of each chunk, told apart, and nothing called a success that was none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = ["ChunkStatus", "RetrieveResult", "Statuses", "StoreResult", "count"]


class ChunkStatus(Enum):
    """Of one chunk of one object group."""

    # Nothing is wrong.
    CACHED = "cached"  #: store: it was there before; the ticket keeps it there
    RESERVED = "reserved"  #: store: its slot is yours to fill
    STORED = "stored"  #: store: committed, and everybody sees it
    HIT = "hit"  #: retrieve: its slot is yours to read
    SKIPPED = "skipped"  #: it was not asked for: before ``skip_first_n_tokens``, or out of a window
    # It is not there, or not yours.
    MISSING = "missing"  #: retrieve: it is not there, or one before it is not
    STAGED_BY_OTHER = "staged by other"  #: somebody alive is writing it now
    NO_SPACE = "no space"  #: store: no room for it, or for one before it
    TOO_LARGE = "too large"  #: store: it, or one before it, could never fit into the pool
    EXPIRED = "expired"  #: store: the pool was cleared, or the deadline was over, before the commit
    ABORTED = "aborted"  #: store: given back without a commit
    NOT_REGISTERED = "not registered"  #: the engine has no context, or has none any more


Statuses = tuple[tuple[ChunkStatus, ...], ...]  # [group][chunk]

_IS_THERE: Final = {ChunkStatus.CACHED, ChunkStatus.STORED, ChunkStatus.SKIPPED}


def count(statuses: Sequence[Sequence[ChunkStatus]], status: ChunkStatus) -> int:
    """How many chunks have that status, over all groups."""
    return sum(one is status for group in statuses for one in group)


@dataclass(frozen=True)
class StoreResult:
    """How a store ended: ``statuses[group][chunk]``, for whole chunks."""

    statuses: Statuses

    @property
    def is_complete(self) -> bool:
        """Whether everything that was asked for is in the pool."""
        return all(one in _IS_THERE for group in self.statuses for one in group)

    def count(self, status: ChunkStatus) -> int:
        """How many chunks ended like that, over all groups."""
        return count(self.statuses, status)


@dataclass(frozen=True)
class RetrieveResult:
    """How a retrieve ended: ``statuses[group][chunk]``, for whole chunks."""

    statuses: Statuses
    tokens: int  #: how many of the first tokens the engine has now, with those that it skipped

    def count(self, status: ChunkStatus) -> int:
        """How many chunks ended like that, over all groups."""
        return count(self.statuses, status)
