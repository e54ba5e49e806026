"""Ctrl-C and SIGTERM, held back for the few lines that must not be cut in two.
A process that was started but not yet noted down would outlive the demo."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_back() -> Iterator[None]:
    """Signals that come inside the block raise at its end. Main thread only; doesn't nest."""
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            raise KeyboardInterrupt


def ignore() -> None:
    """From here on nothing interrupts: for cleaning up, which is bounded by itself."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
