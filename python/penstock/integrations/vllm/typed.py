"""The values that the typed codec carries exactly as pickle would, in a tenth of the time.

The typed codec makes a plain tensor of a Parameter, a writable array of a read-only one, and two
lists of one that occurs twice: such values are pickled.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

__all__ = ["carries"]

_ATOMS = frozenset((type(None), bool, int, float, str, bytes))
_KINDS = frozenset("biufc")
_MOST = 64  # items: a longer value is pickled, which looks at its items in C


def carries(value: Any, *, arrays: bool = True) -> bool:
    """Whether a typed copy equals a pickled one in everything, types and flags included.

    Without ``arrays`` no value that holds an array or a tensor is carried.
    """
    if type(value) in _ATOMS:
        return True
    torch = sys.modules.get("torch")
    tensor = None if torch is None else torch.Tensor
    left = [value]
    seen: set[int] = set()
    for one in left:  # grows meanwhile
        kind = type(one)
        if kind in _ATOMS:
            continue
        if len(left) > _MOST or id(one) in seen:
            return False
        seen.add(id(one))
        if kind is tuple or kind is list:
            left += one
        elif kind is dict:
            for key in one:
                if type(key) not in _ATOMS:
                    return False
            left += one.values()
        elif kind is np.ndarray:
            if not (arrays and _is_exact_array(one)):
                return False
        elif kind is tensor:
            if not (arrays and _is_exact_tensor(one)):
                return False
        else:
            return False
    return len(left) <= _MOST


def _is_exact_array(array: np.ndarray[Any, Any]) -> bool:
    dtype = array.dtype
    flags = array.flags
    return (
        dtype.kind in _KINDS
        and dtype.isnative
        and dtype.metadata is None
        and flags.writeable
        and (flags.c_contiguous or flags.f_contiguous)
    )


def _is_exact_tensor(tensor: Any) -> bool:
    from .tensors import is_plain

    return is_plain(tensor) and bool(tensor.is_contiguous()) and not tensor.__dict__
