"""Options for the creation of a queue of trajectories, from either side."""

from __future__ import annotations

from typing import Any

from ..handle import Waiting
from ..queue import EndsWith

__all__ = ["Size", "queue_options"]

Size = int | str


def queue_options(
    capacity: Size,
    slots: int,
    participants: int,
    max_deliveries: int,
    max_staleness: int | None,
    populate: bool,
    lock_memory: bool,
    huge_pages: bool,
    ends_with: EndsWith,
    waiting: Waiting,
) -> dict[str, Any]:
    """The options as ``_core`` takes them, which checks them."""
    return {
        "capacity": capacity,
        "slots": slots,
        "participants": participants,
        "max_deliveries": max_deliveries,
        "max_staleness": max_staleness,
        "populate": populate,
        "lock_memory": lock_memory,
        "huge_pages": huge_pages,
        "ends_with": ends_with,
        "waiting": waiting,
    }
