"""How a queue of trajectories stands: plain data, for people and tools."""

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
    """One environment; with no name those that are gone and have left groups behind."""

    name: str
    writers: int  #: alive
    weight: float  #: of what may be begun, beside the other living environments'
    min_share: float  #: of each batch, 0 to 1
    group_size: int  #: sequences that a rollout is expected to make
    running_groups: int  #: begun with credit and not put yet
    running_sequences: int
    waiting_groups: int  #: put and not acknowledged, in a batch or not
    waiting_sequences: int
    largest_waiting: int = 0  #: sequences of the largest group that waits


@dataclass(frozen=True)
class TrajectoryStats:
    """Counters of the whole queue, and its participants now."""

    queue: QueueStats
    version: int  #: of the policy: the step of the last ``ack()``
    batch_sequences: int  #: 0: no trainer has come yet
    max_staleness: int | None
    batches: int  #: acknowledged, as are the next two
    groups: int
    sequences: int
    dropped_stale: int  #: groups, by readers that asked for it
    environments: list[EnvironmentStats]
    max_tokens: int | None = None  #: of a sequence, as the trainer takes them
    dead_lettered: int = 0  #: groups that became dead letters as no batch could be made of them


@dataclass(frozen=True)
class TrajectoryInfo(QueueInfo):
    """One queue of trajectories in full, as ``penstock info`` shows it."""

    trajectories: TrajectoryStats


def stats_from(raw: _TrajectoryStats) -> TrajectoryStats:
    """The dataclass of what ``_core`` gives."""
    fields: dict[str, Any] = dict(raw)
    fields["queue"] = QueueStats(**raw["queue"])
    fields["environments"] = [EnvironmentStats(**one) for one in raw["environments"]]
    return TrajectoryStats(**fields)


def inspect_trajectories(name: Name) -> TrajectoryInfo:
    """A look from outside, without attaching. Raises NotFound, Incompatible, Corrupt."""
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
