"""Pickling of PyTorch's tensors with their bytes out of band, without a copy on the way.

PyTorch's own way copies a tensor's bytes into the pickle, and out of it again.
"""

from __future__ import annotations

import pickle
from typing import Any

from ... import _core

__all__ = ["is_plain", "pinned_parameter", "pinned_tensor", "rebuild_tensor", "reduce_tensor"]


def is_plain(tensor: Any) -> bool:
    """Whether it is no more than strided numbers in host memory."""
    import torch

    return (
        tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not tensor.requires_grad
        and not tensor.is_nested
        and not tensor.is_quantized
        and not tensor.is_conj()
        and not tensor.is_neg()
    )


def raw_bytes(tensor: Any) -> Any:
    """The bytes of a plain tensor as a NumPy array, in C order."""
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy()


def dtype_name(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def reduce_tensor(tensor: Any) -> Any:
    """For a pickler's dispatch table. Tensors that are not plain are pickled in PyTorch's way."""
    if not is_plain(tensor):
        return tensor.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    buffer = pickle.PickleBuffer(raw_bytes(tensor))
    return rebuild_tensor, (buffer, tuple(tensor.shape), dtype_name(tensor))


def rebuild_tensor(buffer: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """A writable tensor over a writable buffer, or over a copy of a read-only one."""
    import torch

    if memoryview(buffer).readonly:
        buffer = bytearray(buffer)
    if memoryview(buffer).nbytes == 0:
        return torch.empty(shape, dtype=getattr(torch, dtype))
    flat = torch.frombuffer(buffer, dtype=torch.uint8)
    return flat.view(getattr(torch, dtype)).view(shape)


def pinned_tensor(buffer: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """A tensor over shared memory, which stays in use until the last view of the tensor is gone.

    The memory is mapped read-only: a write through the tensor ends the process by SIGSEGV.
    """
    return _core.tensor_over_buffer(buffer, dtype, shape)


def pinned_parameter(buffer: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """The same for a ``torch.nn.Parameter``."""
    import torch

    return torch.nn.Parameter(pinned_tensor(buffer, shape, dtype), requires_grad=False)
