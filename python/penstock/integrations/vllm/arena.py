"""Large tensors that a reader uses where they lie in shared memory: ``enable_shm_tensor_arena``.

A tensor of 8 MiB or more keeps the memory of its message in use until its last view is gone;
everything else that is received is the receiver's own. The bytes are shared by all readers and
mapped read-only, so a write through such a tensor ends the process by SIGSEGV: ``clone()`` first.
Where vLLM computes on the CPU its models get their input as it came, and some write into it: there
such a tensor is a copy too.
"""

from __future__ import annotations

import pickle
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import BroadcastReader, BroadcastWriter
from . import typed
from .messages import OUT_OF_BAND, pickled
from .tensors import (
    dtype_name,
    is_plain,
    pinned_parameter,
    pinned_tensor,
    raw_bytes,
)

__all__ = ["SLOTS", "SLOT_BYTES", "TensorArena"]

SLOT_BYTES = 256 << 20  # the largest tensor that stays in shared memory
SLOTS = 8
MIN_BYTES = 8 << 20


@dataclass(frozen=True)
class TensorArena:
    """The arena of one queue, without memory of its own: messages take it from the queue's segment.

    ``slot_bytes`` bounds a tensor, and ``total_bytes`` what readers may keep together; beyond
    either the readers get copies.
    """

    n_reader: int
    slot_bytes: int
    n_slots: int
    name: str

    @property
    def total_bytes(self) -> int:
        return self.slot_bytes * self.n_slots

    def handle(self) -> tuple[int, int, int, str]:
        """The last field of a queue's handle."""
        return (self.n_reader, self.slot_bytes, self.n_slots, self.name)

    def flush_releases(self) -> None:
        """Does nothing: memory is free as soon as its last tensor is gone."""

    def message_of(self, value: Any, writer: BroadcastWriter) -> Any:
        """The message of a value, as ``messages.message_of``."""
        if typed.carries(value, arrays=False):
            return (value,)
        room = self.total_bytes - writer.stats().held_bytes
        pinned: list[pickle.PickleBuffer] = []
        buffers: list[Any] = []

        def reduce(tensor: Any) -> Any:
            nonlocal room
            nbytes = tensor.numel() * tensor.element_size()
            if not (
                MIN_BYTES <= nbytes <= min(self.slot_bytes, room)
                and is_plain(tensor)
                and tensor.is_contiguous()
            ):
                return NotImplemented
            room -= nbytes
            pinned.append(pickle.PickleBuffer(raw_bytes(tensor)))
            rebuild = pinned_tensor if type(tensor) is _torch().Tensor else pinned_parameter
            return rebuild, (pinned[-1], tuple(tensor.shape), dtype_name(tensor))

        def take(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            stays = any(buffer is one for one in pinned)
            if raw.nbytes < OUT_OF_BAND:
                return True
            flat = np.frombuffer(raw, np.uint8)
            buffers.append((flat,) if stays else flat)
            return False

        reducers = {} if _torch() is None else _reducers(reduce)
        data = pickled(value, take, reducers)
        return (data, *buffers) if buffers else data

    @staticmethod
    def receive(reader: BroadcastReader, timeout: float | None) -> Any:
        """The next message: ``()``, ``(value,)``, or a pickle and the buffers it is read with."""
        with reader.recv_view(timeout) as message:
            if isinstance(message, memoryview):
                return bytes(message)
            if len(message) < 2:
                return message
            data, *buffers = message
            stays = not _models_write_into_host_memory()
            return (data, *(_buffer_of(one, stays) for one in buffers))


def _buffer_of(received: Any, stays: bool) -> Any:
    if type(received) is tuple:
        return received[0] if stays else received[0].copy()
    return received.copy()


def _models_write_into_host_memory() -> bool:
    platforms = sys.modules.get("vllm.platforms")
    return platforms is not None and bool(platforms.current_platform.is_cpu())


def _torch() -> Any:
    return sys.modules.get("torch")


def _reducers(reduce: Any) -> dict[type, Any]:
    """``reduce`` where it applies; else a tensor is pickled as in any queue."""
    from .tensors import reduce_tensor

    torch = _torch()

    def reduce_any(tensor: Any) -> Any:
        reduced = reduce(tensor)
        return reduce_tensor(tensor) if reduced is NotImplemented else reduced

    def reduce_parameter(parameter: Any) -> Any:
        reduced = reduce(parameter)
        return parameter.__reduce_ex__(5) if reduced is NotImplemented else reduced

    return {torch.Tensor: reduce_any, torch.nn.Parameter: reduce_parameter}
