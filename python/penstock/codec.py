"""Registration of dataclasses, and pickling where that was asked for.

docs/codec.md says which type each value comes out as.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from penstock import _core

__all__ = ["register_dataclass"]

_T = TypeVar("_T")


def register_dataclass(cls: type[_T], *, name: str | None = None) -> type[_T]:
    """Let instances of a dataclass be sent and received; works as a decorator.

    Both sides register the class. A message names it by its qualified name, or by `name` if that
    differs between the sides, and its fields by their names; the fields must be the same. A
    received object is made without calling `__init__` or `__post_init__`.
    """
    _core.register_dataclass(cls, name)
    return cls


def _dumps(value: object, take_buffer: Callable[[pickle.PickleBuffer], Any]) -> bytes:
    """Pickle with protocol 5; `take_buffer` gets the out-of-band buffers, in order."""
    out = io.BytesIO()
    pickler = pickle.Pickler(out, protocol=5, buffer_callback=lambda b: bool(take_buffer(b)))
    torch = sys.modules.get("torch")
    if torch is not None:
        table = copyreg.dispatch_table.copy()
        table[torch.Tensor] = _reduce_tensor
        pickler.dispatch_table = table
    pickler.dump(value)
    return out.getvalue()


def _reduce_tensor(tensor: Any) -> Any:
    """Take the bytes of a plain host tensor out of band; PyTorch's own way copies them twice."""
    import torch

    is_plain = (
        tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not tensor.requires_grad
        and not tensor.is_nested
        and not tensor.is_quantized
    )
    dtype = str(tensor.dtype).removeprefix("torch.")
    if not is_plain or dtype not in _DTYPES:
        return tensor.__reduce_ex__(5)
    flat = tensor.resolve_conj().resolve_neg().contiguous().reshape(-1)
    buffer = pickle.PickleBuffer(flat.view(torch.uint8).numpy())
    return _rebuild_tensor, (buffer, dtype, tuple(tensor.shape))


def _rebuild_tensor(buffer: Any, dtype: str, shape: tuple[int, ...]) -> Any:
    return _core.tensor_over_buffer(buffer, dtype, shape)


_DTYPES = frozenset(
    [
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "complex64", "complex128", "bfloat16"),
        *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
    ]
)
