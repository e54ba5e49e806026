"""Statistics of a queue of trajectories: plain data, for people and tools."""

from __future__ import annotations

from dataclasses import dataclass

from .. import _core
from .._core import EnvironmentStats, TrajectoryStats
from ..handle import Name
from ..state import QueueInfo, queue_info_from

__all__ = ["EnvironmentStats", "TrajectoryInfo", "TrajectoryStats", "inspect_trajectories"]


@dataclass(frozen=True)
class TrajectoryInfo(QueueInfo):
    """One queue of trajectories in full, as ``penstock info`` shows it."""

    trajectories: TrajectoryStats


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
        trajectories=raw["trajectories"],
    )
