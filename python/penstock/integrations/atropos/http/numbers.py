"""Columns of numbers: JSON text to flat arrays, and back.

Text of plain numbers becomes an array without a Python object for each number. Any other content
becomes values first, which are charged for, and then the numbers that they stand for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .... import _core
from ....trajectories import TrajectoryGroup
from ....trajectories.columns import INTEGER_COLUMNS, FlatColumn
from ....trajectories.loose import LEVELS, column_from_lists
from .words import Invalid

__all__ = ["Charge", "Columns", "column_of", "cost_of_values", "cut", "text_of_column", "values_of"]

#: Called with the cost of a step before it; raises if that is too much.
Charge = Callable[[int], None]

#: Columns of one group that were cut out of its text, by name; inputs of ``column_of``.
Columns = dict[str, tuple[Any, ...]]

COST_OF_VALUE: Final = 64
_KINDS: Final = tuple((name, levels, name in INTEGER_COLUMNS) for name, levels in LEVELS.items())


def cost_of_values(text: bytes) -> int:
    """An upper bound: each value stands behind one of these characters, which text may contain
    too."""
    return COST_OF_VALUE * (text.count(b",") + text.count(b"[") + text.count(b"{"))


def values_of(text: bytes) -> Any:
    """The values of JSON text as Python reads it, with NaN and lone surrogates."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"the body is no JSON: {error}") from None


def cut(body: bytes, many: bool) -> tuple[bytes, dict[int, Columns]] | None:
    """The text of a group, or of a list of groups, with null for each long column of plain numbers;
    and those columns, by the group's index in the list. None: the text is to be read as a whole.

    If the remaining text is valid JSON the body was, except for NaN and the infinities in columns.
    """
    found = _core._cut_json_columns(body, many, _KINDS)
    if found is None:
        return None
    rest, columns = found
    groups: dict[int, Columns] = {}
    for at, name, column in columns:
        groups.setdefault(at, {})[name] = column
    return rest, groups


def column_of(name: str, source: Any, levels: int, charge: Charge) -> Any:
    """A column of lists of numbers, ``levels`` deep: a ``FlatColumn``, or an array for one level.

    ``source`` is JSON text, its value, or an item of ``Columns``. Raises InvalidArgument, which
    names the sequence.
    """
    if isinstance(source, bytes):
        read = _core._read_json_numbers(source, levels, name in INTEGER_COLUMNS)
        if read is None:
            charge(cost_of_values(source))
            return column_from_lists(name, values_of(source), levels)
    elif isinstance(source, tuple):
        read = source
    else:
        return column_from_lists(name, source, levels)
    dtype, values, lengths, widths = read
    if lengths is None:
        return _array(values, dtype)
    column = FlatColumn(
        _array(values, dtype),
        _array(lengths, "int64"),
        None if widths is None else _array(widths, "int32"),
    )
    if column.widths is not None:  # each list stood behind a bracket
        charge(COST_OF_VALUE * (1 + len(column.lengths) + len(column.widths)))
    return column


def _array(buffer: bytearray, dtype: str) -> npt.NDArray[Any]:
    return np.frombuffer(buffer, dtype) if buffer else np.empty(0, dtype)


def text_of_column(group: TrajectoryGroup, name: str) -> bytes:
    """One of ``group.columns`` as JSON; NaN stays NaN, because a lost batch would be worse."""
    values = group.flat(name)
    lengths = None if name == "scores" else np.ascontiguousarray(group.lengths)
    values = _writable(values).reshape(-1)
    return _core._write_json_numbers(values, str(values.dtype), lengths, group.widths(name))


def _writable(values: Any) -> npt.NDArray[Any]:
    """The same numbers in a dtype that can be written as text."""
    if not isinstance(values, np.ndarray):  # bfloat16, which NumPy does not have
        values = values.double().numpy()
    if values.dtype.kind == "f":
        return np.ascontiguousarray(values, np.float64)
    return np.ascontiguousarray(values, np.int32 if values.dtype == np.int32 else np.int64)
