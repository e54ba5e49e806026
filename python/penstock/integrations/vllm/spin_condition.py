"""How one side of a MessageQueue waits, in the terms of vLLM's SpinCondition."""

from __future__ import annotations

import contextlib
import time

from ... import BroadcastReader, BroadcastWriter, _core
from ...errors import Cancelled, Timeout

__all__ = ["SpinCondition"]


class SpinCondition:
    """How one side of a MessageQueue waits. vLLM's spins for a second; this one sleeps.

    ``context`` is the side of the ring that waits. Nothing needs to notify: a message ends the
    waits for it. Any thread may use it.
    """

    def __init__(
        self,
        is_reader: bool,
        context: BroadcastReader | BroadcastWriter,
        notify_address: str | None = None,
        busy_loop_s: float = 1,
    ) -> None:
        self.is_reader = is_reader
        self.busy_loop_s = busy_loop_s if is_reader else 0  #: kept for callers; changes nothing
        self.last_read = time.monotonic() if is_reader else 0
        self.last_notify_poll = self.last_read
        self.cancelled = _core.Cancel()
        self._side = context

    def record_read(self) -> None:
        """Notes the time, for callers that look at it."""
        self.last_read = time.monotonic()

    def cancel(self) -> None:
        """Ends the waits of this side, now and later, within 80 ms."""
        self.cancelled.cancel()

    def wait(self, timeout_ms: int | None = None) -> None:
        """Waits until there is a message, or ``cancel()`` is called, or the time is over."""
        assert self.is_reader, "Only readers can wait"
        assert isinstance(self._side, BroadcastReader)
        seconds = None if timeout_ms is None else max(0, timeout_ms) / 1000
        with contextlib.suppress(Timeout, Cancelled):
            self._side._wait_message(seconds, self.cancelled)

    def notify(self) -> None:
        """Does nothing, since a message wakes its readers by itself."""
        assert not self.is_reader, "Only writers can notify"
