"""Inspection of segments from outside: attaches nowhere, and changes nothing unless asked to
remove."""

from __future__ import annotations

from . import _core
from .errors import Incompatible
from .handle import Name
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

__all__ = ["inspect", "list_segments", "remove_if_abandoned", "summarize"]


def list_segments() -> list[SegmentSummary]:
    """Every segment in /dev/shm that has Penstock's prefix, including unreadable ones."""
    return [summary_from(raw) for raw in _core.list_segments()]


def summarize(name: Name) -> SegmentSummary:
    """One segment as ``list_segments()`` shows it; also a ``file:`` segment, which that does not
    find.

    Raises NotFound, PermissionDenied, Incompatible or Corrupt.
    """
    return summary_from(_core.inspect_segment(name))


def inspect(name: Name) -> BroadcastInfo | QueueInfo | StoreInfo | SegmentSummary:
    """One segment in full; its summary if there is nothing more to tell about its kind.

    Raises NotFound, PermissionDenied, Incompatible or Corrupt.
    """
    summary = summarize(name)
    if summary.kind == "broadcast":
        return info_from(_core.inspect_broadcast(name))
    if summary.kind == "queue":
        return _inspect_queue(name)
    if summary.kind == "store":
        return store_info_from(_core.inspect_store(name))
    return summary


def _inspect_queue(name: Name) -> QueueInfo:
    """The queue, with the accounts of its trajectories if it carries those."""
    # imported here because it depends on this package
    from .trajectories.state import inspect_trajectories

    try:
        return inspect_trajectories(name)
    except Incompatible:
        return queue_info_from(_core.inspect_queue(name))


def remove_if_abandoned(name: Name, *, data: bool = False) -> bool:
    """Remove the segment if no living process is attached to it; False if it stays.

    A segment with data (``SegmentSummary.kept``: messages of a queue, a persistent store) stays
    too, unless ``data`` allows its removal. Safe against a process that attaches or creates at the
    same moment. Raises NotFound, PermissionDenied, Incompatible or Corrupt.
    """
    return _core.remove_if_abandoned(name, data)
