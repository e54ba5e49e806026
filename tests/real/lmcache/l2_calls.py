"""An L2 adapter called as by LMCache's controllers, in this process or in a peer: submit a task,
wait for its descriptor, ask for its outcome."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

import torch
from lmcache.v1.distributed.api import ObjectKey
from lmcache.v1.memory_management import MemoryFormat, MemoryObjMetadata, TensorMemoryObj
from lmcache.v1.platform import consume_fd

from penstock.integrations.lmcache.l2 import PenstockL2Adapter

WITHIN = 60.0  # seconds, for any task


def key_of(number: int, model: str = "model", **fields: Any) -> ObjectKey:
    rank = fields.pop("kv_rank", 0)
    return ObjectKey(number.to_bytes(8, "big"), model, rank, **fields)


def memory_of(data: bytes) -> TensorMemoryObj:
    tensor = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    meta = MemoryObjMetadata(
        shape=tensor.shape,
        dtype=tensor.dtype,
        address=0,
        phy_size=len(data),
        fmt=MemoryFormat.KV_2LTD,
        ref_count=1,
    )
    return TensorMemoryObj(tensor, meta, parent_allocator=None)


def _outcome(event: int, take: Callable[[], Any]) -> Any:
    while True:
        assert select.select([event], [], [], WITHIN)[0], "no outcome in time"
        consume_fd(event)
        found = take()
        if found is not None:
            return found


class Calls:
    """``params`` are ``adapter_params``."""

    def __init__(self, **params: Any) -> None:
        self.adapter = PenstockL2Adapter(params)

    def store(self, chunks: dict[ObjectKey, bytes]) -> bool:
        own = self.adapter
        task = own.submit_store_task(list(chunks), [memory_of(data) for data in chunks.values()])
        result = _outcome(
            own.get_store_event_fd(), lambda: own.pop_completed_store_tasks().get(task)
        )
        return bool(result.is_successful())

    def look_up(self, *keys: ObjectKey) -> list[bool]:
        """Look up keys; those found are locked."""
        own = self.adapter
        task = own.submit_lookup_and_lock_task(list(keys), {})
        found = _outcome(
            own.get_lookup_and_lock_event_fd(), lambda: own.query_lookup_and_lock_result(task)
        )
        return [found.test(at) for at in range(len(keys))]

    def load(self, key: ObjectKey, nbytes: int) -> bytes | None:
        own = self.adapter
        memory = memory_of(bytes(nbytes))
        task = own.submit_load_task([key], [memory])
        loaded = _outcome(own.get_load_event_fd(), lambda: own.query_load_result(task))
        return bytes(memory.byte_array) if loaded.test(0) else None

    def unlock(self, *keys: ObjectKey) -> None:
        self.adapter.submit_unlock(list(keys))

    def delete(self, keys: list[ObjectKey]) -> None:
        self.adapter.delete(keys)

    def close(self) -> None:
        self.adapter.close()

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# Functions for a peer's "do".


def open_tier(objects: dict[str, Any], **params: Any) -> None:
    objects["tier"] = Calls(**params)
