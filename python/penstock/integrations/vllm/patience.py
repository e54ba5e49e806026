"""One deadline for a call that waits several times, and the log lines of a long wait."""

from __future__ import annotations

import sys
import time

__all__ = ["Patience"]


class Patience:
    """The patience of one call, in one thread. ``warns_after``: seconds; None: it never warns."""

    def __init__(
        self, timeout: float | None, warns_after: float | None, started: float | None = None
    ) -> None:
        self.started = time.monotonic() if started is None else started
        self.timeout = timeout
        self.deadline = sys.maxsize if timeout is None else self.started + max(0.0, timeout)
        self.n_warning = 1
        self._warns_after = warns_after

    def elapsed(self) -> float:
        """Seconds since the call began."""
        return time.monotonic() - self.started

    def is_over(self) -> bool:
        """Whether the deadline has passed."""
        return time.monotonic() >= self.deadline

    def seconds(self) -> float | None:
        """Seconds until the deadline or the next warning; None: for ever."""
        ends = [] if self.timeout is None else [self.deadline]
        if self._warns_after is not None:
            ends.append(self.started + self._warns_after * self.n_warning)
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def should_warn(self) -> bool:
        """Whether a warning is due; each is due once."""
        if self._warns_after is None or self.elapsed() < self._warns_after * self.n_warning:
            return False
        self.n_warning += 1
        return True
