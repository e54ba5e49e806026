"""Names the processes that died in the error by which vLLM says that its engine is dead.

That error is made in the processes that users talk to, which hold no queue: what died is read from
the segments, while another process of the engine is still attached to them.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from ... import inspect
from ...state import Participant
from .leftovers import is_of_an_engine

__all__ = ["dead_of_this_engine", "name_in_errors"]


def name_in_errors() -> None:
    """Every EngineDeadError that is made from now on says who is dead. Idempotent."""
    try:
        from vllm.v1.engine.exceptions import EngineDeadError
    except ImportError:
        return

    original = EngineDeadError.__init__
    if hasattr(original, "__wrapped__"):
        return

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        with contextlib.suppress(Exception):  # the error itself counts more
            if dead := dead_of_this_engine():
                self.args = (f"{self.args[0]} Penstock: {'; '.join(dead)}.", *self.args[1:])

    init.__wrapped__ = original  # type: ignore[attr-defined]
    EngineDeadError.__init__ = init


def dead_of_this_engine() -> list[str]:
    """A sentence for each process that died without leaving, by pid; of engines of which a living
    process is in this process's group."""
    group = os.getpgid(0)
    found: dict[int, str] = {}
    for segment in inspect.list_segments():
        if not is_of_an_engine(segment.name):
            continue
        participants = segment.participants
        if not any(one.alive and _group_of(one.pid) == group for one in participants):
            continue
        for one in participants:
            if not one.alive:
                found[one.pid] = _death_of(one)
    return [found[pid] for pid in sorted(found)]


def _death_of(one: Participant) -> str:
    is_known = one.signal is not None or one.exit_code is not None
    how = f": {one.how_it_died}" if is_known else ""
    return f"{one.process} (pid {one.pid}) died{how}"


def _group_of(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return os.getpgid(pid)
    return None
