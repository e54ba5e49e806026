"""A column of a group: the values of all its sequences in one array."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import _core
from ..errors import InvalidArgument

__all__ = [
    "INTEGER_COLUMNS",
    "FlatColumn",
    "check_count",
    "check_tokens",
    "flatten",
    "flatten_distilled",
    "is_even",
    "lengths_of",
    "listed",
    "narrowed",
    "shape_distilled",
    "split",
]

#: Columns of integers that stand for tokens; all others are real numbers.
INTEGER_COLUMNS = frozenset({"tokens", "masks", "distill_token_ids"})

Lengths = npt.NDArray[np.int64]


class FlatColumn(NamedTuple):
    """A column whose values are contiguous already."""

    values: npt.NDArray[Any]
    lengths: Lengths  #: of its sequences, in tokens
    widths: npt.NDArray[np.int32] | None  #: values for each token; None: one


def listed(values: Any, depth: int = 1) -> Any:
    """Values in ``depth`` levels of sequences that can be counted and iterated twice.

    Generators, iterators, ``map`` and the like become lists; arrays and sequences stay as they
    are. Sets and mappings stay too, and are refused later: they have no order.
    """
    if hasattr(values, "dtype") or isinstance(values, set | frozenset | Mapping):
        return values
    if not isinstance(values, Sequence):
        if not isinstance(values, Iterable):
            return values
        values = list(values)
    return values if depth == 1 else [listed(one, depth - 1) for one in values]


def as_array(values: Any, integers: bool) -> Any:
    """An array unchanged; Python's numbers as int32 if they all fit, otherwise int64 or float64."""
    if hasattr(values, "dtype"):
        return _on_the_host(values)
    quick = _core.integer_array(values) if integers else _core.real_array(values)
    if quick is not None:
        return quick
    array = np.asarray(listed(values))
    if array.size == 0:
        return array.astype(np.int32 if integers else np.float64)
    if not integers:
        return array.astype(np.float64) if array.dtype.kind in "iub" else array
    return narrowed(array)


def narrowed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Integers as int32 where they all fit."""
    if array.dtype == np.int64 and (array.size == 0 or _fit_int32(array)):
        return array.astype(np.int32)
    return array


def _fit_int32(array: npt.NDArray[Any]) -> bool:
    limits = np.iinfo(np.int32)
    return bool(array.min() >= limits.min and array.max() <= limits.max)


def _on_the_host(values: Any) -> Any:
    if isinstance(values, np.ndarray):
        return values
    if str(values.dtype) == "torch.bfloat16":
        return values.detach().cpu()  # NumPy has no such dtype
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return np.asarray(values)


def _join(arrays: Sequence[Any]) -> Any:
    if len(arrays) == 1:
        return arrays[0]
    if isinstance(arrays[0], np.ndarray):
        return np.concatenate(arrays)
    import torch

    return torch.cat(list(arrays))


def _refuse(column: str, title: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"column '{column}' of {title} {why}; nothing was put")


def lengths_of(tokens: Any, title: str) -> Lengths:
    """How many tokens each sequence has."""
    try:
        if isinstance(tokens, set | frozenset | Mapping):
            raise TypeError
        lengths = np.fromiter((len(sequence) for sequence in tokens), np.int64, len(tokens))
    except TypeError:
        raise _refuse(
            "tokens", title, "is not a list of sequences: give one array for each"
        ) from None
    return check_tokens(lengths, title)


def check_count(lengths: Lengths, title: str) -> Lengths:
    """Checks that there is at least one sequence."""
    if len(lengths) == 0:
        raise _refuse("tokens", title, "is empty: a group has 1 sequence at least")
    return lengths


def check_tokens(lengths: Lengths, title: str) -> Lengths:
    """Checks that there is at least one sequence, and that each has a token."""
    if (check_count(lengths, title) == 0).any():
        empty = int(np.argmin(lengths))
        raise _refuse("tokens", title, f"has no token in sequence {empty}")
    return lengths


def flatten(column: str, values: Any, lengths: Lengths, title: str) -> Any:
    """All sequences of a per-token column in one row."""
    integers = column in INTEGER_COLUMNS
    _check_count(column, values, lengths, title)
    if getattr(values, "ndim", 0) == 2 and hasattr(values, "dtype"):
        return _rows_in_a_row(column, as_array(values, integers), lengths, title)
    arrays = [as_array(sequence, integers) for sequence in values]
    for at, (array, length) in enumerate(zip(arrays, lengths, strict=True)):
        if array.ndim != 1:
            raise _refuse(column, title, f"has {array.ndim} dimensions in sequence {at}, not 1")
        _check_length(column, at, len(array), int(length), title)
    _check_same_dtype(column, arrays, title)
    return _join(arrays)


def _rows_in_a_row(column: str, array: Any, lengths: Lengths, title: str) -> Any:
    """Sequences of one length, (sequences, tokens): without a copy if they are contiguous
    already."""
    for at, length in enumerate(lengths.tolist()):
        _check_length(column, at, array.shape[1], length, title)
    return array.reshape(-1)


def flatten_distilled(
    column: str, values: Any, lengths: Lengths, title: str
) -> tuple[Any, npt.NDArray[np.int32] | None]:
    """The same for a column with several values for each token: (tokens, k); or, if k differs, all
    values in one row and their number for each token."""
    integers = column in INTEGER_COLUMNS
    _check_count(column, values, lengths, title)
    for at, (sequence, length) in enumerate(zip(values, lengths, strict=True)):
        _check_length(column, at, len(sequence), int(length), title)
    widths = np.fromiter(
        (len(token) for sequence in values for token in sequence), np.int32, int(lengths.sum())
    )
    if is_even(widths):
        arrays = [as_array(sequence, integers) for sequence in values]
        _check_same_dtype(column, arrays, title)
        return _join(arrays), None
    tokens = [as_array(token, integers) for sequence in values for token in sequence]
    _check_same_dtype(column, tokens, title)
    return _join(tokens), widths


def shape_distilled(
    flat: npt.NDArray[Any], widths: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32] | None]:
    """The same for numbers that are in one row already."""
    return (flat.reshape(len(widths), -1), None) if is_even(widths) else (flat, widths)


def is_even(widths: npt.NDArray[np.int32]) -> bool:
    """Whether every token has the same number of values, and at least one."""
    return bool(widths.size > 0 and widths[0] > 0 and (widths == widths[0]).all())


def split(flat: Any, lengths: Lengths) -> list[Any]:
    """The sequences of a column, as views."""
    ends = np.cumsum(lengths).tolist()
    return [flat[end - length : end] for end, length in zip(ends, lengths.tolist(), strict=True)]


def _check_count(column: str, values: Any, lengths: Lengths, title: str) -> None:
    if len(values) != len(lengths):
        raise _refuse(
            column, title, f"has {len(values)} sequences where the tokens have {len(lengths)}"
        )


def _check_length(column: str, at: int, length: int, tokens: int, title: str) -> None:
    if length != tokens:
        raise _refuse(
            column, title, f"has {length} values in sequence {at} where the tokens have {tokens}"
        )


def _check_same_dtype(column: str, arrays: list[Any], title: str) -> None:
    """Joining would silently convert them to the widest; Python's integers may be joined."""
    first = arrays[0].dtype
    if all(array.dtype == first for array in arrays):
        return
    dtypes = {str(array.dtype) for array in arrays}
    if dtypes != {"int32", "int64"}:
        raise _refuse(column, title, f"mixes {' and '.join(sorted(dtypes))}")
