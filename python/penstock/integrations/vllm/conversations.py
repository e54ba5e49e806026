"""Questions and answers: a queue by which this process asks several others, and those by which they
answer. A death among those that were asked ends the wait for an answer of another one, which may
itself be waiting for the dead one."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable

from ... import BroadcastReader, BroadcastWriter, inspect
from ...errors import Error, PeerDied
from .peers import dead_reader

__all__ = ["LOOK_SECONDS", "asks_others", "deaths_beside"]

LOOK_SECONDS = 0.05  # between two looks for the dead

_asking: weakref.WeakSet[BroadcastWriter] = weakref.WeakSet()


def asks_others(writer: BroadcastWriter) -> None:
    """All readers of the queue have attached."""
    _asking.add(writer)


def deaths_beside(reader: BroadcastReader) -> Callable[[], PeerDied | None] | None:
    """Looks for a death among the readers of the queue of this process that the reader's writer
    reads too; None if there is no such queue, or that one is its only reader."""
    asked = _asked_by_this_process(reader)
    if asked is None:
        return None
    held = weakref.ref(asked)

    def look() -> PeerDied | None:
        writer = held()
        with contextlib.suppress(Error):  # it was closed meanwhile
            return None if writer is None else dead_reader(writer)
        return None

    return look


def _asked_by_this_process(reader: BroadcastReader) -> BroadcastWriter | None:
    with contextlib.suppress(Error):
        answering = {
            one.pid for one in inspect.summarize(reader.name).participants if one.role == "writer"
        }
        for writer in list(_asking):
            with contextlib.suppress(Error):
                asked = {one.pid for one in writer.readers()}
                if len(asked) > 1 and answering & asked:
                    return writer
    return None
