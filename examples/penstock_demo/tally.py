"""The driver's totals: steps, bytes, tensors, and the rate at each pace."""

from __future__ import annotations

import time

from penstock_demo.steps import Step, payload


class Tally:
    """Totals, updated one step at a time."""

    def __init__(self) -> None:
        self.steps = 0
        self.bytes = 0
        self.tensors = 0
        self._last: float | None = None
        self._at_pace: dict[str, tuple[int, float]] = {}  # steps, and seconds between them

    def enter(self, step: Step) -> None:
        now = time.monotonic()
        self.steps += 1
        self.bytes += payload(step)
        self.tensors += "tensor" in step
        if self._last is not None:
            steps, seconds = self._at_pace.get(step["pace"], (0, 0.0))
            self._at_pace[step["pace"]] = (steps + 1, seconds + now - self._last)
        self._last = now

    def rates(self) -> dict[str, float]:
        """Steps per second, for each pace used."""
        return {
            pace: steps / max(seconds, 1e-9) for pace, (steps, seconds) in self._at_pace.items()
        }
