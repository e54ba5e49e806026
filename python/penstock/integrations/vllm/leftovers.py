"""Removes what engines that were killed left in /dev/shm: when the next one begins, and when the
program that had started the engine ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import weakref
from typing import Any

from ... import _core
from ...errors import Error

__all__ = ["is_of_an_engine", "remove_abandoned", "remove_abandoned_at_exit"]

_SHM = "/dev/shm"
_OURS = "penstock."
_ENGINES = ("vllm-mq-", "vllm-objects-", "vllm_mm_")  # the last are vLLM's names of object rings

_finalizer: Any = None


def is_of_an_engine(name: str) -> bool:
    """Whether a segment of that name is a queue or an object ring of an engine."""
    return name.startswith(_ENGINES)


def remove_abandoned() -> None:
    """Removes the queues and object rings whose processes are all dead, by the kernel's word."""
    with contextlib.suppress(OSError):
        for file in os.listdir(_SHM):
            name = file.removeprefix(_OURS)
            if name != file and is_of_an_engine(name):
                with contextlib.suppress(Error):
                    _core.remove_if_abandoned(name, False)


def remove_abandoned_at_exit() -> None:
    """In the program that starts engines: also when it ends, since vLLM kills an engine that does
    not end within five seconds. Idempotent."""
    global _finalizer
    if _finalizer is None and multiprocessing.parent_process() is None:
        # Finalizers run in the reverse order of their creation: after those by which vLLM ends its
        # engines, which are created later. atexit would have it before them.
        _finalizer = weakref.finalize(remove_abandoned, remove_abandoned)
