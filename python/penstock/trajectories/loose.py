"""Columns as older programs send them: values that stand for numbers, and lengths that do not fit.

Accepts what Atropos's server accepts: true and false, numbers as text, and 1.0 for whole numbers. A
column that does not have a value for each token stays plain lists, and an empty list stays an empty
list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import _core
from ..errors import InvalidArgument
from .columns import INTEGER_COLUMNS, FlatColumn, is_even, narrowed

__all__ = ["LEVELS", "NAMES", "column_from_lists", "fitting", "kind_of", "number_from", "to_lists"]

#: The columns of a group, and how many levels of lists each has.
LEVELS: Final[Mapping[str, int]] = {
    "tokens": 2,
    "masks": 2,
    "scores": 1,
    "advantages": 2,
    "ref_logprobs": 2,
    "inference_logprobs": 2,
    "distill_token_ids": 3,
    "distill_logprobs": 3,
}
NAMES: Final[Mapping[type, str]] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    dict: "an object",
}
_DISTILLED: Final = ("distill_token_ids", "distill_logprobs")
_WHOLE_TEXT: Final = re.compile(r"([+-]?\d+(?:_\d+)*)(?:\.0*)?")

#: Called with the number of values about to be made; raises if that is too many.
Charge = Callable[[int], None]


class _Kind(NamedTuple):
    words: str
    types: frozenset[type]  # types that can be put into an array directly
    dtype: npt.DTypeLike
    convert: Callable[[Any], Any]  # raises ValueError and TypeError


def kind_of(value: Any) -> str:
    """The kind of a JSON value, for errors."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, list):
        return "a list"
    return NAMES.get(type(value), type(value).__name__)


def number_from(value: Any, kind: type) -> Any:
    """The int or float that a value stands for. Raises ValueError or TypeError."""
    return (_WHOLE if kind is int else _REAL).convert(value)


def _whole(value: Any) -> int:
    if isinstance(value, str):
        text = _WHOLE_TEXT.fullmatch(value.strip())
        if text is None:
            raise ValueError(value)
        return int(text[1])
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError(value)
        return int(value)
    if isinstance(value, int):
        return int(value)  # also for true and false
    raise TypeError(value)


def _real(value: Any) -> float:
    if isinstance(value, int | float | str):
        return float(value)
    raise TypeError(value)


_WHOLE: Final = _Kind("whole numbers", frozenset({int}), np.int64, _whole)
_REAL: Final = _Kind("numbers", frozenset({int, float}), np.float64, _real)


def column_from_lists(name: str, value: Any, levels: int) -> Any:
    """A column of lists of Python's numbers, ``levels`` deep: a ``FlatColumn``, or of one level
    an array. Raises InvalidArgument, which names the sequence."""
    kind = _WHOLE if name in INTEGER_COLUMNS else _REAL
    if levels == 1:
        return _numbers(name, _list(name, value, "the field"), kind, "the field")
    rows = [
        _list(name, row, f"sequence {at} of")
        for at, row in enumerate(_list(name, value, "the field"))
    ]
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    if levels == 2:
        return FlatColumn(_joined(name, rows, kind), lengths, None)
    tokens = [
        [_list(name, token, f"a token in sequence {at} of") for token in row]
        for at, row in enumerate(rows)
    ]
    widths = np.fromiter(map(len, chain.from_iterable(tokens)), np.int32, sum(map(len, tokens)))
    return FlatColumn(
        _joined(name, [list(chain.from_iterable(row)) for row in tokens], kind), lengths, widths
    )


def _list(name: str, value: Any, where: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise InvalidArgument(f"{where} '{name}' is {kind_of(value)}: give a list")
    return value  # type: ignore[return-value]


def _joined(name: str, rows: list[list[Any]], kind: _Kind) -> npt.NDArray[Any]:
    try:
        return _numbers(name, list(chain.from_iterable(rows)), kind, "")
    except InvalidArgument:  # find the sequence at fault
        for at, row in enumerate(rows):
            _numbers(name, row, kind, f"sequence {at} of")
        raise


def _numbers(name: str, values: list[Any], kind: _Kind, where: str) -> npt.NDArray[Any]:
    quick = _core.integer_array(values) if kind is _WHOLE else _core.real_array(values)
    if quick is not None:
        return quick  # type: ignore[no-any-return]
    try:
        if not set(map(type, values)) <= kind.types:
            values = list(map(kind.convert, values))
        return narrowed(np.array(values, kind.dtype))
    except (ValueError, TypeError, OverflowError):
        raise InvalidArgument(f"{where} '{name}' holds something else than {kind.words}") from None


def fitting(
    columns: Mapping[str, Any], charge: Charge = lambda _: None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Columns that have a value for each token or sequence, and all others as plain lists.

    ``columns``: of ``column_from_lists``, including the tokens.
    """
    tokens = columns["tokens"].lengths
    fits: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for name, column in columns.items():
        if _fits(name, column, tokens, fits):
            fits[name] = column
        else:
            values = column.values if isinstance(column, FlatColumn) else column
            charge(len(values) + len(tokens))
            plain[name] = to_lists(column)
    return fits, plain


def _fits(name: str, column: Any, tokens: npt.NDArray[np.int64], fits: Mapping[str, Any]) -> bool:
    if not isinstance(column, FlatColumn):
        return len(column) == len(tokens)
    if not np.array_equal(column.lengths, tokens):
        return False
    other = next((fits[one] for one in _DISTILLED if one in fits and one != name), None)
    if name not in _DISTILLED or other is None:
        return True
    assert column.widths is not None
    if is_even(column.widths) and is_even(other.widths):
        return True
    return np.array_equal(column.widths, other.widths)


def to_lists(column: Any) -> list[Any]:
    """A ``FlatColumn`` or an array as lists."""
    if not isinstance(column, FlatColumn):
        return list(column.tolist())
    items = column.values.tolist()
    if column.widths is not None:
        items = _cut(items, column.widths.tolist())
    return _cut(items, column.lengths.tolist())


def _cut(values: list[Any], lengths: list[int]) -> list[Any]:
    """The list as several of these lengths."""
    cut = []
    begin = 0
    for length in lengths:
        cut.append(values[begin : begin + length])
        begin += length
    return cut
