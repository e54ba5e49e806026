"""A look at segments from outside: attaches nowhere, and changes nothing unless asked to remove."""

from __future__ import annotations

from . import _core
from .errors import Incompatible
from .state import (
    BroadcastInfo,
    QueueInfo,
    SegmentSummary,
    StoreInfo,
    info_from,
    queue_info_from,
    store_info_from,
    summary_from,
)

__all__ = ["inspect", "list_segments", "remove_if_abandoned"]


def list_segments() -> list[SegmentSummary]:
    """Every segment in /dev/shm that bears Penstock's prefix, also those that can't be read."""
    return [summary_from(raw) for raw in _core.list_segments()]


def inspect(name: str) -> BroadcastInfo | QueueInfo | StoreInfo | SegmentSummary:
    """One segment in full; of a kind without more to tell, its summary.

    Raises NotFound, PermissionDenied, Incompatible or Corrupt.
    """
    summary = summary_from(_core.inspect_segment(name))
    if summary.kind == "broadcast":
        return info_from(_core.inspect_broadcast(name))
    if summary.kind == "queue":
        return _inspect_queue(name)
    if summary.kind == "store":
        return store_info_from(_core.inspect_store(name))
    return summary


def _inspect_queue(name: str) -> QueueInfo:
    """With the accounts of its trajectories, if it carries those."""
    from .trajectories.state import inspect_trajectories  # which stands on this package

    try:
        return inspect_trajectories(name)
    except Incompatible:
        return queue_info_from(_core.inspect_queue(name))


def remove_if_abandoned(name: str) -> bool:
    """Remove the segment if nobody alive is attached to it; False if somebody is."""
    return _core.remove_if_abandoned(name)
