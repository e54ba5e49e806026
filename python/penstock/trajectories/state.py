"""Statistics of a queue of trajectories: plain data, for people and tools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import _core
from ..handle import Name
from ..state import QueueInfo, QueueStats, queue_info_from

if TYPE_CHECKING:
    from .._core import _TrajectoryStats

__all__ = ["EnvironmentStats", "TrajectoryInfo", "TrajectoryStats", "inspect_trajectories"]


@dataclass(frozen=True)
class EnvironmentStats:
    """One environment; without a name, those that have left and whose groups remain."""

    name: str
    writers: int  #: alive
    weight: float  #: share of the credit, relative to the other living environments
    min_share: float  #: of each batch, 0 to 1
    group_size: int  #: sequences that a rollout is expected to make
    running_groups: int  #: begun with credit and not put yet
    running_sequences: int
    waiting_groups: int  #: put and not acknowledged, in a batch or waiting
    waiting_sequences: int
    largest_waiting: int = 0  #: sequences of the largest waiting group


@dataclass(frozen=True)
class TrajectoryStats:
    """Counters of the whole queue, and its present participants."""

    queue: QueueStats
    version: int  #: of the policy: the step of the last ``ack()``
    batch_sequences: int  #: 0: no trainer has attached yet
    max_staleness: int | None
    batches: int  #: acknowledged, as are the next two
    groups: int
    sequences: int
    dropped_stale: int  #: groups, dropped by readers that asked for it
    environments: list[EnvironmentStats]
    max_tokens: int | None = None  #: of a sequence; None: no bound
    #: groups that became dead letters because no batch could be made of them
    dead_lettered: int = 0


@dataclass(frozen=True)
class TrajectoryInfo(QueueInfo):
    """One queue of trajectories in full, as ``penstock info`` shows it."""

    trajectories: TrajectoryStats


def stats_from(raw: _TrajectoryStats) -> TrajectoryStats:
    """Converts what ``_core`` returns."""
    fields: dict[str, Any] = dict(raw)
    fields["queue"] = QueueStats(**raw["queue"])
    fields["environments"] = [EnvironmentStats(**one) for one in raw["environments"]]
    return TrajectoryStats(**fields)


def inspect_trajectories(name: Name) -> TrajectoryInfo:
    """Inspection from outside, without attaching. Raises NotFound, Incompatible, Corrupt."""
    raw = _core.inspect_trajectories(name)
    queue = queue_info_from(raw)
    return TrajectoryInfo(
        segment=queue.segment,
        stats=queue.stats,
        requests=queue.requests,
        dead_letters=queue.dead_letters,
        ends_with=queue.ends_with,
        trajectories=stats_from(raw["trajectories"]),
    )
