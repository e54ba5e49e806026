"""The ``repr`` of every handle: what it is called, and whether it is open.

It says what is at hand and asks nothing: no system call, no lock, no attaching, no wait. So it can
be called in a debugger, in a signal handler, in a forked child and on what is closed or half made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["describe"]


class _HandleLike(Protocol):
    @property
    def closed(self) -> bool: ...
    @property
    def _is_foreign(self) -> bool: ...


def describe(handle: _HandleLike, words: Callable[[], str]) -> str:
    """``<penstock.Queue 'rollouts', closed>``; ``words()`` says what is beside the state."""
    title = f"penstock.{type(handle).__name__}"
    try:
        return f"<{title} {words()}{_state_of(handle)}>"
    except Exception:
        return f"<{title}, never made>"  # its __init__ has raised, or has not run


def _state_of(handle: _HandleLike) -> str:
    if handle.closed:
        return ", closed"
    return ", made by the parent process" if handle._is_foreign else ""
