"""Waits that also end when a caller's Event is set, as vLLM's of 2025 did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import Cancelled, Timeout
from .patience import Patience

__all__ = ["heeding"]

_SECONDS = 0.02  # between two looks at an event, which wakes no waiter

Attempt = Callable[[float | None], Any]


def heeding(cancel: Any, indefinite: Any, attempt: Attempt) -> tuple[Attempt, bool]:
    """An attempt that also ends when the event is set, and whether a long wait is to be logged."""
    if hasattr(indefinite, "is_set"):
        cancel, indefinite = indefinite, False
    if cancel is None:
        return attempt, not indefinite

    def until_set(seconds: float | None) -> Any:
        patience = Patience(seconds, None)
        while True:
            left = patience.seconds()
            try:
                return attempt(_SECONDS if left is None else min(left, _SECONDS))
            except Timeout:
                if cancel.is_set():
                    raise Cancelled("cancelled") from None
                if patience.is_over():
                    raise

    return until_set, not indefinite
