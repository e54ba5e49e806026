"""Removes what engines that were killed left in /dev/shm, when the next one begins."""

from __future__ import annotations

import contextlib
import os

from ... import _core
from ...errors import Error

__all__ = ["remove_abandoned"]

_SHM = "/dev/shm"
_OURS = "penstock."
_ENGINES = ("vllm-mq-", "vllm-objects-", "vllm_mm_")  # the last are vLLM's names of object rings


def remove_abandoned() -> None:
    """Removes the queues and object rings whose processes are all dead, by the kernel's locks."""
    with contextlib.suppress(OSError):
        for file in os.listdir(_SHM):
            name = file.removeprefix(_OURS)
            if name != file and name.startswith(_ENGINES):
                with contextlib.suppress(Error):
                    _core.remove_if_abandoned(name, False)
