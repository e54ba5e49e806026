"""The names and signatures that callers of vLLM's two modules use, of 0.32 and 0.33, and that they
need neither vLLM nor PyTorch."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest
from peers import run_script

from penstock.integrations.vllm import shm_broadcast, shm_object_storage

#: What a call may give, in order; a trailing "=" where it may be left out.
BROADCAST = {
    "check_shm_free_space": "required_bytes shm_path= allocation_name=",
    "memory_fence": "",
    "to_bytes_big": "value size",
    "ShmRingBuffer": "n_reader max_chunk_bytes max_chunks name=",
    "ShmRingBuffer.handle": "self",
    "ShmRingBuffer.get_data": "self current_idx",
    "ShmRingBuffer.get_metadata": "self current_idx",
    "SpinCondition": "is_reader context notify_address= busy_loop_s=",
    "SpinCondition.record_read": "self",
    "SpinCondition.cancel": "self",
    "SpinCondition.wait": "self timeout_ms=",
    "SpinCondition.notify": "self",
    "MessageQueue": "n_reader n_local_reader local_reader_ranks= max_chunk_bytes= max_chunks= "
    "connect_ip= enable_shm_tensor_arena=",
    "MessageQueue.export_handle": "self",
    "MessageQueue.create_from_handle": "handle rank",
    "MessageQueue.wait_until_ready": "self",
    "MessageQueue.shutdown": "self",
    "MessageQueue.acquire_write": "self timeout=",
    "MessageQueue.acquire_read": "self timeout= indefinite= cancel=",
    "MessageQueue.enqueue": "self obj timeout=",
    "MessageQueue.dequeue": "self timeout= indefinite= cancel=",
    "MessageQueue.recv": "socket timeout",
    "MessageQueue.broadcast_object": "self obj=",
    "MessageQueue.create_from_process_group_single_reader": "pg max_chunk_bytes max_chunks "
    "reader_rank= blocking=",
    "MessageQueue.create_from_process_group": "pg max_chunk_bytes max_chunks writer_rank= "
    "external_writer_handle= blocking=",
    "MessageQueue.ReadTimeoutWithWarnings": "timeout should_warn",
    "MessageQueue.ReadTimeoutWithWarnings.timeout_ms": "self",
    "MessageQueue.ReadTimeoutWithWarnings.should_warn": "self",
    "_reduce_tensor": "tensor",
    "_rebuild_tensor": "buffer shape dtype",
}
STORAGE = {
    "SingleWriterShmRingBuffer": "data_buffer_size name= create=",
    "SingleWriterShmRingBuffer.handle": "self",
    "SingleWriterShmRingBuffer.clear": "self",
    "SingleWriterShmRingBuffer.close": "self",
    "SingleWriterShmRingBuffer.get_auth_secret": "self",
    "SingleWriterShmRingBuffer.int2byte": "self integer",
    "SingleWriterShmRingBuffer.byte2int": "self byte_data",
    "SingleWriterShmRingBuffer.allocate_buf": "self size",
    "SingleWriterShmRingBuffer.access_buf": "self address",
    "SingleWriterShmRingBuffer.free_buf": "self is_free_fn nbytes=",
    "ObjectSerde.serialize": "self value",
    "ObjectSerde.deserialize": "self data",
    "MsgpackSerde": "",
    "ShmObjectStorageHandle": "max_object_size n_readers ring_buffer_handle serde_class "
    "reader_lock",
    "SingleWriterShmObjectStorage": "max_object_size n_readers ring_buffer serde_class= "
    "reader_lock=",
    "SingleWriterShmObjectStorage.clear": "self",
    "SingleWriterShmObjectStorage.copy_to_buffer": "self data data_bytes metadata md_bytes "
    "data_view",
    "SingleWriterShmObjectStorage.verify_signature": "self key address monotonic_id signature",
    "SingleWriterShmObjectStorage.get_signature": "self key",
    "SingleWriterShmObjectStorage.increment_writer_flag": "self id",
    "SingleWriterShmObjectStorage.free_unused": "self",
    "SingleWriterShmObjectStorage.is_cached": "self key",
    "SingleWriterShmObjectStorage.get_cached": "self key",
    "SingleWriterShmObjectStorage.release_touches": "self",
    "SingleWriterShmObjectStorage.put": "self key value",
    "SingleWriterShmObjectStorage.get": "self address monotonic_id signature= key=",
    "SingleWriterShmObjectStorage.touch": "self key address= monotonic_id= signature=",
    "SingleWriterShmObjectStorage.close": "self",
    "SingleWriterShmObjectStorage.handle": "self",
    "SingleWriterShmObjectStorage.create_from_handle": "handle",
    "SingleWriterShmObjectStorage.default_is_free_check": "self id buf",
}


@pytest.mark.parametrize(
    ("module", "expected"), [(shm_broadcast, BROADCAST), (shm_object_storage, STORAGE)]
)
def test_signatures_are_vllms(module: Any, expected: dict[str, str]) -> None:
    assert {path: parameters_of(module, path) for path in expected} == expected


def parameters_of(module: Any, path: str) -> str:
    found = module
    for name in path.split("."):
        found = getattr(found, name)
    return " ".join(
        name if parameter.default is parameter.empty else f"{name}="
        for name, parameter in inspect.signature(found).parameters.items()
    )


def test_constants_are_vllms() -> None:
    ring = shm_object_storage.SingleWriterShmRingBuffer
    assert shm_broadcast.SHM_READER_RECHECK_INTERVAL_MS == 5000
    assert shm_broadcast.SHM_NOTIFY_POLL_INTERVAL_S == 2.0
    assert shm_broadcast.SPINLOOP_EXT_ENABLED is False
    assert shm_broadcast.SPINLOOP_TIMEOUT_SECONDS == 0.1
    assert shm_broadcast.VLLM_RINGBUFFER_WARNING_INTERVAL == 60
    assert "%d seconds" in shm_broadcast.LONG_WAIT_TIME_LOG_MSG
    assert (ring.ID_NBYTES, ring.SIZE_NBYTES, ring.MD_SIZE, ring.ID_MAX) == (4, 4, 8, 2**31)
    assert (ring.AUTH_SECRET_BYTES, ring.DATA_OFFSET) == (32, 32)
    assert [one.default for one in dataclasses.fields(shm_broadcast.Handle)][1:] == [
        None, None, None, None, False, None,
    ]  # fmt: skip


def test_neither_vllm_nor_pytorch_is_needed() -> None:
    done = run_script(
        """
        import sys, threading
        sys.modules["torch"] = sys.modules["vllm"] = None
        from penstock.integrations.vllm.shm_broadcast import MessageQueue
        from penstock.integrations.vllm.shm_object_storage import *
        import numpy as np

        writer = MessageQueue(1, 1, enable_shm_tensor_arena=True)
        reader = MessageQueue.create_from_handle(writer.export_handle(), 0)
        writer.enqueue({"a": {1, 2}, "b": np.arange(1 << 20)})
        print(reader.dequeue(timeout=10)["a"])
        ring = SingleWriterShmRingBuffer(9000, create=True)
        storage = SingleWriterShmObjectStorage(1000, 1, ring)
        print(storage.get(*storage.put("key", {"a": [1, 2.5]})))
        storage.close()
        """
    )
    assert done.stdout == "{1, 2}\n{'a': [1, 2.5]}\n", done.stderr
