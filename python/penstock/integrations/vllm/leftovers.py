"""Removes what engines that were killed left in /dev/shm: when the last process of the program has
ended, in whatever way, and when the next engine begins.

vLLM ends its engines by SIGKILL, also when it is asked to stop. What outlives a program's processes
is multiprocessing's resource tracker, which removes the files that it was told of, with a warning.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from multiprocessing import resource_tracker

from ... import BroadcastReader, BroadcastWriter, Store, _core
from ...errors import Error

__all__ = ["is_of_an_engine", "leave", "remove_abandoned", "track"]

_SHM = "/dev/shm"
_OURS = "penstock."
_ENGINES = ("vllm-mq-", "vllm-objects-", "vllm_mm_")  # the last are vLLM's names of object rings


def is_of_an_engine(name: str) -> bool:
    """Whether a segment of that name is a queue or an object ring of an engine."""
    return name.startswith(_ENGINES)


def remove_abandoned() -> None:
    """Removes the queues and object rings whose processes are all dead, by the kernel's locks."""
    with contextlib.suppress(OSError):
        for file in os.listdir(_SHM):
            name = file.removeprefix(_OURS)
            if name != file and is_of_an_engine(name):
                with contextlib.suppress(Error):
                    _core.remove_if_abandoned(name, False)


def is_in_vllm() -> bool:
    """Whether this program has a tracker anyway."""
    return "vllm" in sys.modules


def track(name: str) -> None:
    """Has a segment of this program removed when its last process has ended. Only in vLLM."""
    if is_in_vllm():
        resource_tracker.register(_tracked(name), "shared_memory")


def leave(handle: BroadcastReader | BroadcastWriter | Store, pid: int, is_creator: bool) -> None:
    """Leaves the segment, unless this is a child forked from the process ``pid``, which takes no
    part. Was this the last process, nothing is to be removed any more."""
    if os.getpid() != pid:
        return
    handle.close()
    is_of_the_program = is_creator or multiprocessing.parent_process() is not None
    is_gone = not os.path.exists(os.path.join(_SHM, _OURS + handle.name))
    if is_in_vllm() and is_of_the_program and is_gone:
        resource_tracker.unregister(_tracked(handle.name), "shared_memory")


def _tracked(name: str) -> str:
    return f"/{_OURS}{name}"
