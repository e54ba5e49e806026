"""Closes handles that are still open when a process ends in good order, so that the other side is
told of a close and not of a death, and the last to leave removes the segment."""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Callable
from typing import Protocol, TypeVar

from . import _core

__all__ = ["close_at_exit"]


class Closeable(Protocol):
    def close(self) -> object: ...


T = TypeVar("T", bound=Closeable)

# Each with how it is closed.
_open: weakref.WeakKeyDictionary[Closeable, Callable[..., object]] = weakref.WeakKeyDictionary()
_known_to_multiprocessing_in = 0  # the process whose multiprocessing calls us


def close_at_exit(handle: T, close: Callable[[T], object] | None = None) -> None:
    """Closes the handle at the end of the process, unless it is gone by then.

    ``close`` is a function of its class, where another than ``close()`` is to do it.
    """
    _open[handle] = close or type(handle).close
    _tell_multiprocessing()


def _close_all() -> None:
    # First, so that threads which are still waiting don't wake up to an error nobody wants.
    _core.end_waits()
    for handle, close in list(_open.items()):
        close(handle)


def _tell_multiprocessing() -> None:
    """Its forked children leave without atexit; a child starts with an empty list of its own."""
    global _known_to_multiprocessing_in
    util = sys.modules.get("multiprocessing.util")
    if util is not None and _known_to_multiprocessing_in != os.getpid():
        util.Finalize(None, _close_all, exitpriority=0)
        _known_to_multiprocessing_in = os.getpid()


atexit.register(_close_all)
