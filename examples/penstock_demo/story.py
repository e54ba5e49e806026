"""The events of the demo besides steps, as sentences with their times."""

from __future__ import annotations

import time
from dataclasses import dataclass

from penstock_demo.timeline import Timeline


@dataclass(frozen=True)
class Event:
    """An event, `at` seconds after the start. `mood`: "bad", "good" or "plain"."""

    at: float
    sentence: str
    mood: str = "plain"


class Story:
    """The events so far, in order of their report."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self.events: list[Event] = []

    def tell(self, sentence: str, mood: str = "plain", at: float | None = None) -> None:
        """`at` is a time of time.monotonic(); by default now."""
        moment = self._timeline.moment(time.monotonic() if at is None else at)
        self.events.append(Event(moment, sentence, mood))
