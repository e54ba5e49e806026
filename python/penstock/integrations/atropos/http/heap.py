"""Keeps freed memory in the server, because the next body of that size needs it again.

By default the C library gives large blocks back to the kernel, and each page of the next block
costs a fault: a tenth of the time of a post of 1 MB.
"""

from __future__ import annotations

import ctypes
from typing import Final

__all__ = ["keep_freed_memory"]

# Of mallopt(3).
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT: Final = 32 << 20  # bytes kept at the end of a heap, and the largest block put into one


def keep_freed_memory() -> None:
    """Applies to the whole process, so to a server that has a process of its own. No effect without
    glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return
    mallopt(_M_TRIM_THRESHOLD, _KEPT)
    mallopt(_M_MMAP_THRESHOLD, _KEPT)
