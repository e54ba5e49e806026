"""The ``repr`` of every handle: its name and state.

It uses what is at hand: no system call, no lock, no attaching, no wait. So it can be called in a
debugger, in a signal handler, in a forked child, and on closed or half-made handles.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol

from . import _core

__all__ = ["describe", "never_raises"]


class _HandleLike(Protocol):
    @property
    def closed(self) -> bool: ...
    @property
    def _is_foreign(self) -> bool: ...


def describe(handle: _HandleLike, words: Callable[[], str]) -> str:
    """``<penstock.Queue 'rollouts', closed>``; ``words()`` adds text beside the state."""
    if not _core.is_made(handle):
        return _never_made(handle)
    try:
        return f"<penstock.{type(handle).__name__} {words()}{_state_of(handle)}>"
    except Exception:
        return _never_made(handle)


def never_raises(words: Callable[[Any], str]) -> Callable[[Any], str]:
    """A ``__repr__`` for objects that are not handles."""

    @wraps(words)
    def described(one: Any) -> str:
        try:
            return words(one)
        except Exception:
            return _never_made(one)

    return described


def _never_made(one: object) -> str:
    """Whether ``__init__`` has raised, or has not run."""
    return f"<penstock.{type(one).__name__}, never made>"


def _state_of(handle: _HandleLike) -> str:
    if handle.closed:
        return ", closed"
    return ", made by the parent process" if handle._is_foreign else ""
