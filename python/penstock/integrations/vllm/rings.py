"""The ring of a MessageQueue: a Broadcast, in the terms of vLLM's ShmRingBuffer.

The memory of a ring follows what is sent: a few MiB for small messages, blocks of their own for
large ones, which are given back. ``max_chunk_bytes`` and ``max_chunks`` bound neither; they are
kept for the callers that read them, and ``acquire_write`` lends a chunk of that size.
"""

from __future__ import annotations

import os
import secrets
from typing import Any

from ... import Broadcast, BroadcastReader, BroadcastWriter
from ...errors import NoSpace
from ...handle import Waiting
from .leftovers import remove_abandoned

__all__ = ["CAPACITY", "attach", "create", "new_name"]

CAPACITY = 2 << 20  # bytes; messages over a quarter of it take a block
LARGE = 4 << 30  # bytes of address range for blocks, and so the largest message
_PREFIX = "vllm-mq-"
_SHM = "/dev/shm"


def new_name() -> str:
    """The name of a segment that no other queue has or had."""
    return f"{_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"


def create(name: str, readers: int) -> BroadcastWriter:
    """A ring for so many readers. Raises RuntimeError if /dev/shm has no room for it."""
    remove_abandoned()
    try:
        return Broadcast.create(
            name, readers=readers, capacity=CAPACITY, large=LARGE, waiting=_waiting()
        )
    except NoSpace as error:
        raise RuntimeError(
            f"Insufficient space in {_SHM} for ShmRingBuffer: {error}. Increase {_SHM} "
            "(e.g. --shm-size or --ipc=host)."
        ) from error


def attach(name: str, rank: int) -> BroadcastReader:
    """The reader of a rank. Raises NotFound if the writer is gone, or on another machine."""
    return Broadcast.attach(name, rank)


def _waiting() -> Waiting:
    """The policy that PENSTOCK_VLLM_WAITING names; ``create()`` refuses any other word."""
    chosen: Any = os.environ.get("PENSTOCK_VLLM_WAITING", "balanced")
    return chosen  # type: ignore[no-any-return]
