"""The course of the demo: three acts, and its current position between start and end. Measured in
seconds, or in steps if their number was given."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Act:
    """A part of the run. `pace` is the name that steps carry; `title` is for the screen."""

    until: float  # share of the run
    pace: str
    title: str


ACTS = (
    Act(0.40, "engine", "at the pace of an engine"),
    Act(0.70, "flat out", "flat out: as fast as the workers can check"),
    Act(1.00, "engine", "at the pace of an engine again"),
)
KILL_AT = 0.5


class Timeline:
    """Starts when it is constructed."""

    def __init__(self, seconds: float, limit: int | None) -> None:
        self._seconds = seconds
        self._limit = limit
        self._started = time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._started

    def moment(self, at: float) -> float:
        """Seconds from the start to a time of time.monotonic()."""
        return at - self._started

    def fraction(self, steps: int) -> float:
        """The position, from 0 to 1."""
        done = steps / self._limit if self._limit else self.elapsed / self._seconds
        return min(done, 1.0)

    def act(self, steps: int) -> Act:
        fraction = self.fraction(steps)
        return next((act for act in ACTS if fraction < act.until), ACTS[-1])
