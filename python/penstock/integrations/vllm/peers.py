"""The processes that a queue waits for, and those that are dead, in words."""

from __future__ import annotations

import contextlib

from ... import BroadcastReader, BroadcastWriter, inspect
from ...errors import Error, PeerDied

__all__ = ["dead_reader", "waited_for"]


def dead_reader(writer: BroadcastWriter) -> PeerDied | None:
    """The error that names a dead reader, also while there is room to send; None if all live."""
    for one in writer.readers():
        if one.life == "active" and not one.alive:
            died = PeerDied(
                f"reader {one.rank} of '{writer.name}' (pid {one.pid}, {one.process}) died, "
                f"{one.lag_messages} messages behind"
            )
            died.rank = one.rank
            return died
    return None


def waited_for(side: BroadcastReader | BroadcastWriter) -> str:
    """The processes that keep this side waiting: rank, pid, since when, whether stopped."""
    if isinstance(side, BroadcastWriter):
        blocking = side.blocked_by() or [one for one in side.readers() if one.lag_messages]
        return "; ".join(one.describe() for one in blocking) or "no reader"
    with contextlib.suppress(Error):
        for one in inspect.summarize(side.name).participants:
            if one.role == "writer":
                state = "stopped" if one.stopped else "alive" if one.alive else "dead"
                return f"the writer (pid {one.pid}, {one.process}), {state}, which sent nothing"
    return "a writer that is gone"
