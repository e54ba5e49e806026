"""Columns of numbers: JSON text to flat arrays, and back.

Text of plain numbers becomes an array without a Python object for each. Whatever else the text
holds becomes values first, which are charged for, and then what they stand for.
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

#: Is told what a step will cost, and raises where that is too much.
Charge = Callable[[int], None]

#: Columns of one group that were cut out of its text, by name: what ``column_of`` takes for them.
Columns = dict[str, tuple[Any, ...]]

COST_OF_VALUE: Final = 64
_KINDS: Final = tuple((name, levels, name in INTEGER_COLUMNS) for name, levels in LEVELS.items())


def cost_of_values(text: bytes) -> int:
    """Each value stands behind one of these; text may hold more of them."""
    return COST_OF_VALUE * (text.count(b",") + text.count(b"[") + text.count(b"{"))


def values_of(text: bytes) -> Any:
    """What JSON stands for, as Python reads it: NaN and half characters too."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"the body is no JSON: {error}") from None


def cut(body: bytes, many: bool) -> tuple[bytes, dict[int, Columns]] | None:
    """The text of a group, or of a list of them, with null for each long column of plain numbers;
    and those columns, by the group's place in the list. None: it is read as a whole.

    Where what is left is valid JSON the body was, but for NaN and the infinities in columns.
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
    """A column of lists of numbers, ``levels`` deep: a ``FlatColumn``, or of one level an array.

    ``source`` is JSON text, its value, or of ``Columns``. Raises InvalidArgument, which names the
    sequence.
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
    """One of ``group.columns`` as JSON; NaN stays NaN, as a lost batch would be worse."""
    values = group.flat(name)
    lengths = None if name == "scores" else np.ascontiguousarray(group.lengths)
    values = _writable(values).reshape(-1)
    return _core._write_json_numbers(values, str(values.dtype), lengths, group.widths(name))


def _writable(values: Any) -> npt.NDArray[Any]:
    """The same numbers in a dtype that has a text."""
    if not isinstance(values, np.ndarray):  # bfloat16, which NumPy has not
        values = values.double().numpy()
    if values.dtype.kind == "f":
        return np.ascontiguousarray(values, np.float64)
    return np.ascontiguousarray(values, np.int32 if values.dtype == np.int32 else np.int64)
