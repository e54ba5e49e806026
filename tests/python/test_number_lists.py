"""Lists of Python numbers as arrays, and back: equal to NumPy's result, or left to NumPy."""

from __future__ import annotations

import gc
import math
import sys
from typing import Any

import numpy as np
import pytest

from penstock import _core
from penstock.trajectories import TrajectoryGroup

LIMITS = [-(2**31) - 1, -(2**31), -1, 0, 1, 256, 257, 2**31 - 1, 2**31, 2**53, -(2**63), 2**63 - 1]


@pytest.mark.parametrize("kind", [list, tuple])
def test_integers_take_the_narrowest_type_that_fits(kind: Any) -> None:
    for at in range(len(LIMITS)):
        values = kind([*LIMITS[3:8], LIMITS[at]])
        array = _core.integer_array(values)
        fits = min(values) >= -(2**31) and max(values) < 2**31
        assert array.dtype == (np.int32 if fits else np.int64)
        assert array.tolist() == list(values)
        assert array.flags.writeable
        assert array.flags.owndata or array.base is not None
    assert _core.integer_array(kind()).dtype == np.int32


def test_reals_are_float64() -> None:
    values = [0.1, -0.0, math.inf, 3, -(2**53), 2**53]
    array = _core.real_array(values)
    assert array.dtype == np.float64
    assert array.tolist() == values
    assert math.isnan(_core.real_array((math.nan,))[0])
    assert _core.real_array([]).dtype == np.float64


class Whole(int):
    pass


@pytest.mark.parametrize(
    "values",
    [[True], [1, None], ["1"], [[1]], [2**63], [-(2**63) - 1], [np.int64(1)], [Whole(1)], [1.0]],
)
def test_other_lists_than_plain_integers_are_left_to_numpy(values: list[Any]) -> None:
    assert _core.integer_array([*LIMITS, *values]) is None


@pytest.mark.parametrize("values", [[True], [None], ["1"], [[1.0]], [2**53 + 1], [np.float32(1)]])
def test_other_lists_than_plain_reals_are_left_to_numpy(values: list[Any]) -> None:
    assert _core.real_array([0.5, *values]) is None


@pytest.mark.parametrize("values", [None, 7, "12", range(3), {1}, {1: 2}, np.arange(3), iter([1])])
def test_only_lists_and_tuples_are_looked_into(values: Any) -> None:
    assert _core.integer_array(values) is None
    assert _core.real_array(values) is None


@pytest.mark.parametrize(
    "dtype", ["int8", "int32", "int64", "uint16", "float16", "float32", "float64", "bool"]
)
def test_an_array_as_a_list(dtype: str) -> None:
    array = np.array([0, 1, 100]).astype(dtype)
    for one in (array, array[::-1], array[:0], array.reshape(3, 1), array[0], array.copy()[1:]):
        made = _core.number_list(one)
        assert made == one.tolist()
        assert repr(made) == repr(one.tolist())
    read_only = array.copy()
    read_only.flags.writeable = False
    assert _core.number_list(read_only) == array.tolist()
    assert _core.number_list(np.array(["a", "b"])) == ["a", "b"]
    assert _core.number_list(array.astype(array.dtype.newbyteorder())) == array.tolist()


def test_nothing_is_leaked() -> None:
    value = 10**6
    before = sys.getrefcount(value)
    for _ in range(100):
        array = _core.integer_array([value] * 10)
        assert _core.number_list(array) == [value] * 10
        assert _core.integer_array([value, None]) is None
    del array
    gc.collect()
    assert sys.getrefcount(value) == before


def test_groups_of_lists_are_unchanged() -> None:
    lists = TrajectoryGroup(
        [[1, 2, 2**40], [3]],
        masks=[[-100, 2, 3], [3]],
        advantages=[[1, 2.5, 3], [4]],
        scores=[1, 2],
    )
    arrays = TrajectoryGroup(
        [np.array([1, 2, 2**40]), np.array([3])],
        masks=[np.array([-100, 2, 3], np.int32), np.array([3], np.int32)],
        advantages=[np.array([1, 2.5, 3]), np.array([4.0])],
        scores=np.array([1.0, 2.0]),
    )
    assert lists == arrays
