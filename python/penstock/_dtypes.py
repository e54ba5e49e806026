"""Dtypes and shapes as users write them, parsed in one place: everything that ``numpy.empty``
takes, the dtypes of PyTorch, and the names of ml_dtypes."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from . import _core
from .errors import InvalidArgument

__all__ = ["is_torch_dtype", "native_name", "parse_dtype", "parse_shape"]


def is_torch_dtype(dtype: Any) -> bool:
    """Whether it is a dtype of PyTorch."""
    return type(dtype).__module__ == "torch" and type(dtype).__name__ == "dtype"


def parse_dtype(dtype: Any) -> tuple[Any, tuple[int, ...]]:
    """The NumPy dtype of an array with this dtype, and the shape of one item, which is ``()``
    except for a dtype such as ``("f4", (2,))``.

    Raises InvalidArgument for anything else, and for the dtypes of PyTorch.
    """
    import numpy as np

    if is_torch_dtype(dtype):
        raise InvalidArgument(f"{dtype} is a dtype of PyTorch, and NumPy's is asked for")
    try:
        one = np.empty((), dtype)
    except (TypeError, ValueError) as error:
        if not isinstance(dtype, str):
            raise InvalidArgument(f"{dtype!r} is no dtype: {error}") from error
        return _core.dtype_named(dtype), ()  # NumPy knows ml_dtypes' types once that is imported
    return one.dtype, one.shape


def parse_shape(shape: Any) -> tuple[int, ...]:
    """A tuple of ints from one number or a sequence of numbers of any integer type.

    Raises InvalidArgument for anything else, and for negative numbers.
    """
    dims: tuple[int, ...]
    try:
        dims = (operator.index(shape),)
    except TypeError:
        dims = _indices(shape)
    if any(dim < 0 for dim in dims):
        raise InvalidArgument(f"shape is {shape!r}: no dimension is negative")
    return dims


def native_name(dtype: Any) -> str:
    """``float16`` for ``torch.float16``, ``numpy.float16``, ``"f2"`` and every other form of it.

    Raises InvalidArgument for anything else, and for another byte order than this machine's.
    """
    try:
        hash(dtype)
    except TypeError:
        return _name_of(dtype)
    return _known_name_of(dtype)


@lru_cache(maxsize=256)
def _known_name_of(dtype: Any) -> str:
    """Cached: needed for every array of every batch, and NumPy takes 5 us to make a name."""
    return _name_of(dtype)


def _name_of(dtype: Any) -> str:
    if is_torch_dtype(dtype):
        return str(dtype).removeprefix("torch.")
    parsed, item = parse_dtype(dtype)
    if item or not parsed.isnative:
        raise InvalidArgument(
            f"dtype is {dtype!r}: give one number's, in this machine's byte order"
        )
    return str(parsed.name)


def _indices(shape: Any) -> tuple[int, ...]:
    try:
        if isinstance(shape, str | bytes) or not isinstance(shape, Iterable):
            raise TypeError("it is neither a number nor a sequence of them")
        return tuple(operator.index(dim) for dim in shape)
    except TypeError as error:
        raise InvalidArgument(f"shape is {shape!r}: {error}") from error
