"""The steps that one worker received: their number, and every one that was missing, late, or torn.
Kept by the worker, reported to the driver; counts only grow."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from penstock_demo import latency, steps

PACES = ("engine", "flat out")


@dataclass
class Ledger:
    """A worker's account. `expected`: the next step's number, None until a replacement's first."""

    expected: int | None
    first: int = -1
    last: int = -1
    received: int = 0
    bytes: int = 0
    tensors: int = 0
    lost: int = 0  # steps whose number was skipped
    disordered: int = 0  # steps that came twice, or late
    torn: int = 0  # steps with other bytes than sent
    counts: dict[str, latency.Counts] = field(
        default_factory=lambda: {pace: latency.no_counts() for pace in PACES}
    )
    _fresh: dict[str, list[int]] = field(default_factory=lambda: {pace: [] for pace in PACES})

    def enter(self, step: steps.Step, received_at: int) -> None:
        """Check one step and enter it. `received_at` is CLOCK_MONOTONIC in ns."""
        self._fresh[step["pace"]].append(received_at - step["sent_at"])
        self._check_order(step["step"])
        if steps.checksum(step) != step["checksum"]:
            self.torn += 1
        self.received += 1
        self.bytes += steps.payload(step)
        self.tensors += "tensor" in step

    def _check_order(self, number: int) -> None:
        if self.first < 0:
            self.first = number
        expected = number if self.expected is None else self.expected
        if number < expected:
            self.disordered += 1
            return
        self.lost += number - expected
        self.last = number
        self.expected = number + 1

    def report(self, *, finished: bool = False) -> dict[str, Any]:
        """The account as a message: cumulative, so that a skipped one does no harm."""
        for pace, spans in self._fresh.items():
            latency.count(self.counts[pace], spans)
            spans.clear()
        return {
            "at": time.monotonic(),
            "finished": finished,
            "first": self.first,
            "last": self.last,
            "received": self.received,
            "bytes": self.bytes,
            "tensors": self.tensors,
            "lost": self.lost,
            "disordered": self.disordered,
            "torn": self.torn,
            "processor": time.process_time(),
            "latency": self.counts,
        }
