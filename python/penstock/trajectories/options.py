"""What a queue of trajectories is created with, from either side."""

from __future__ import annotations

from typing import Any

from ..queue import EndsWith

__all__ = ["Size", "queue_options"]

Size = int | str


def queue_options(
    capacity: Size,
    slots: int,
    members: int,
    poison_limit: int,
    max_staleness: int | None,
    populate: bool,
    lock_memory: bool,
    ends_with: EndsWith,
) -> dict[str, Any]:
    """As ``_core`` takes them, which checks them."""
    return {
        "capacity": capacity,
        "slots": slots,
        "members": members,
        "poison_limit": poison_limit,
        "max_staleness": max_staleness,
        "populate": populate,
        "lock_memory": lock_memory,
        "ends_with": ends_with,
    }
