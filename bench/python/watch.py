"""The cost of each side's steps: wall time, and the processor time of all processes involved, which
does not depend on the load of the machine.

Before each step the threads of this process come to rest: after a parallel copy of torch's,
OpenMP's workers spin for some 10 ms more, which would count as the next step's.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

__all__ = ["Taken", "Watch"]


class Server(Protocol):
    """A process of one side, beside this one."""

    def processor_seconds(self) -> float: ...


class Taken:
    """The times of one step of one side by turn, in milliseconds."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.work: list[float] = []  # processor time

    def medians(self) -> tuple[float, float]:
        """The medians of wall and processor time."""
        return statistics.median(self.wall), statistics.median(self.work)


class Watch:
    """The times by step and side."""

    def __init__(self, warm_up: int) -> None:
        """The first turns are dropped."""
        self._warm_up = warm_up
        self._turns: dict[tuple[str, str], int] = {}
        self._taken: dict[tuple[str, str], Taken] = {}

    def time(self, step: str, who: str, act: Callable[[], object], *servers: Server) -> None:
        """Measure one turn of a step."""
        rest()
        work = _work(servers)
        begin = time.perf_counter()
        act()
        wall = time.perf_counter() - begin
        work = _work(servers) - work
        key = step, who
        self._turns[key] = self._turns.get(key, 0) + 1
        if self._turns[key] > self._warm_up:
            taken = self._taken.setdefault(key, Taken())
            taken.wall.append(wall * 1e3)
            taken.work.append(work * 1e3)

    def taken(self, step: str, who: str) -> Taken:
        """The recorded times."""
        return self._taken[step, who]


def rest() -> None:
    """Return when no other thread of this process runs or is about to."""
    end = time.monotonic() + 1
    while _others_run() and time.monotonic() < end:
        time.sleep(0.001)


def _others_run() -> bool:
    own = threading.get_native_id()
    tasks = Path("/proc/self/task")
    return any(_state(task) == "R" for task in tasks.iterdir() if int(task.name) != own)


def _state(task: Path) -> str:
    """The kernel's letter for a thread's state; "" for one that is gone."""
    try:
        stat = (task / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]


def _work(servers: tuple[Server, ...]) -> float:
    return time.process_time() + sum(server.processor_seconds() for server in servers)
