"""Penstock moves data between the processes of one machine at the speed of its memory.

    import penstock

    w = penstock.Broadcast.create("steps", readers=1)      # in one process
    r = penstock.Broadcast.attach("steps", rank=0)         # in another
    w.send({"step": 7, "tokens": tokens}, timeout=1.0)
    step = r.recv(timeout=1.0)

    q = penstock.Queue.create("rollouts")                  # and penstock.Queue.attach("rollouts")
    q.put({"tokens": tokens})
    with q.get_many(max_items=64) as batch: ...            # acknowledged when the block ends

    s = penstock.Store.create("kv", capacity="1GiB")       # and penstock.Store.attach("kv")
    with s.reserve("block", shape=(256, 128), dtype="float16") as block: block[...] = x
    with s.get("block") as block: ...                      # in place, read-only, pinned meanwhile

    s = penstock.Store.attach("kv", second_tier="redis://cache")   # the same, with Redis behind it

See ``penstock.errors`` for what can go wrong, ``penstock.inspect`` for a look from outside. Each
call that waits has a twin for tasks, whose name ends in ``_async``; blocks become ``async with``.
"""

from __future__ import annotations

from . import errors, inspect
from ._async_block import AsyncBlock, AsyncView
from ._core import Batch, Loan, StoreView, View, __version__, memory_stats, parse_size
from ._reservation import Key, Reservation, StoreRef
from ._second_tier import SecondTier
from .broadcast import Broadcast, BroadcastReader, BroadcastWriter
from .codec import register_dataclass
from .dead_letters import DeadLetter
from .errors import (
    AlreadyExists,
    Busy,
    Cancelled,
    Closed,
    Corrupt,
    Error,
    Expired,
    Incompatible,
    InvalidArgument,
    InvalidName,
    InvalidNameType,
    InvalidType,
    NoSpace,
    NotFound,
    PeerDied,
    PermissionDenied,
    Timeout,
    TooLarge,
    UnsupportedType,
    WrongProcess,
)
from .handle import Handle
from .queue import Queue
from .state import (
    BroadcastInfo,
    BroadcastStats,
    KeptData,
    MemoryStats,
    Participant,
    QueueInfo,
    QueueRequest,
    QueueStats,
    ReaderState,
    SegmentSummary,
    StoreInfo,
    StoreLook,
    StoreStats,
    TierStats,
    Unwritten,
)
from .store import Store

# Types that methods return are defined where they are made; here they can be imported.
for _one in (AsyncBlock, AsyncView, Batch, Loan, Reservation, StoreView, View):
    _one.__module__ = __name__
del _one

__all__ = [
    "AlreadyExists",
    "AsyncBlock",
    "AsyncView",
    "Batch",
    "Broadcast",
    "BroadcastInfo",
    "BroadcastReader",
    "BroadcastStats",
    "BroadcastWriter",
    "Busy",
    "Cancelled",
    "Closed",
    "Corrupt",
    "DeadLetter",
    "Error",
    "Expired",
    "Handle",
    "Incompatible",
    "InvalidArgument",
    "InvalidName",
    "InvalidNameType",
    "InvalidType",
    "KeptData",
    "Key",
    "Loan",
    "MemoryStats",
    "NoSpace",
    "NotFound",
    "Participant",
    "PeerDied",
    "PermissionDenied",
    "Queue",
    "QueueInfo",
    "QueueRequest",
    "QueueStats",
    "ReaderState",
    "Reservation",
    "SecondTier",
    "SegmentSummary",
    "Store",
    "StoreInfo",
    "StoreLook",
    "StoreRef",
    "StoreStats",
    "StoreView",
    "TierStats",
    "Timeout",
    "TooLarge",
    "UnsupportedType",
    "Unwritten",
    "View",
    "WrongProcess",
    "__version__",
    "errors",
    "inspect",
    "memory_stats",
    "parse_size",
    "register_dataclass",
]
