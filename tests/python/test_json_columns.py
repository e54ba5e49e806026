"""Columns of numbers in JSON equal the results of Python's own decoder, to the bit."""

from __future__ import annotations

import json
import math
import random
import struct
from typing import Any

import pytest

pytest.importorskip("msgspec")
from hypothesis import given
from hypothesis import strategies as st

from penstock import _core
from penstock.integrations.atropos.http import bodies
from penstock.integrations.atropos.http.bodies import (
    group_from_json,
    group_from_text,
    groups_from_text,
)
from penstock.integrations.atropos.http.numbers import column_of, cut
from penstock.trajectories import TrajectoryGroup

NUMBERS = r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?"
COLUMNS = [("tokens", 2, True), ("distill_token_ids", 3, True), ("advantages", 2, False)]


def free(_cost: int) -> None:
    """Charge nothing."""


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


def read_real(text: str) -> float:
    (value,) = column_of("scores", f"[{text}]".encode(), 1, free).tolist()
    return float(value)


# --- one number ---------------------------------------------------------------------------------


@given(st.from_regex(NUMBERS, fullmatch=True))
def test_a_real_number_is_the_one_that_python_reads(text: str) -> None:
    value = json.loads(text)
    try:
        expected = float(value)
    except OverflowError:
        with pytest.raises(ValueError, match="something else than numbers"):
            read_real(text)
        return
    assert bits(read_real(text)) == bits(expected)


@given(st.integers(1, 10**6), st.from_regex(r"[0-9]{1,24}", fullmatch=True))
def test_whole_parts_of_which_64_bits_have_nothing(multiple: int, fraction: str) -> None:
    text = f"{multiple << 64}.{fraction}"
    assert bits(read_real(text)) == bits(float(text))


@given(st.floats(allow_nan=False))
def test_reals_that_python_writes_come_back(value: float) -> None:
    for text in (json.dumps(value), f"{value:.17e}" if math.isfinite(value) else "1"):
        assert bits(read_real(text)) == bits(float(json.loads(text)))


@given(st.integers(2**53, 2**63), st.integers(-19, 0))
def test_numbers_between_two_doubles(number: int, exponent: int) -> None:
    """Halves and their neighbours, where double rounding would show."""
    half = (number >> 10 << 10) + 512
    for one in (number, half - 1, half, half + 1, 2 * (number % 2**54) + 1):
        text = f"{one}e{exponent}"
        assert bits(read_real(text)) == bits(float(text))
        assert bits(read_real(str(one))) == bits(float(one))


@given(st.integers(1, 2**60), st.integers(1, 19))
def test_exact_halves_with_a_fraction(odd: int, places: int) -> None:
    """m / 2^places has a finite decimal text; with 54 bits it lies between two doubles."""
    number = (odd % 2**54 | 2**53 | 1) * 5**places
    text = f"{number}e-{places}"
    assert bits(read_real(text)) == bits(float(text))


@given(st.integers(-(2**66), 2**66))
def test_whole_numbers_are_exact(number: int) -> None:
    read = _core._read_json_numbers(f"[{number}]".encode(), 1, True)
    if -(2**63) <= number < 2**63:
        assert read is not None
        dtype, values, _, _ = read
        fits = -(2**31) <= number < 2**31
        assert dtype == ("int32" if fits else "int64")
        assert int.from_bytes(values, "little", signed=True) == number
    else:
        assert read is None


@pytest.mark.parametrize(
    "text",
    ["01", "-01", "-", "+1", "1.", ".5", "1.e5", "1e", "1e+", "0x1", "1_0", "--1", "nan", "-NaN"],
)
def test_invalid_numbers_are_refused(text: str) -> None:
    padded = f"[{text}{' ' * 9}]"  # eight letters at a time, and one by one
    for body in (f"[{text}]".encode(), padded.encode()):
        assert _core._read_json_numbers(body, 1, False) is None
        assert _core._read_json_numbers(body, 1, True) is None


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "-0", "-0.0", "-0e5", "0e-999"])
def test_odd_numbers(text: str) -> None:
    assert bits(read_real(text)) == bits(float(json.loads(text)))


# --- columns ------------------------------------------------------------------------------------

numbers_of = {
    True: st.integers(-(2**40), 2**40),
    False: st.one_of(st.floats(allow_nan=False), st.integers(-(2**60), 2**60)),
}


@pytest.mark.parametrize(("name", "levels", "integers"), COLUMNS)
@given(data=st.data())
def test_a_column_equals_its_lists(
    name: str, levels: int, integers: bool, data: st.DataObject
) -> None:
    values: Any = numbers_of[integers]
    for _ in range(levels):
        values = st.lists(values, max_size=6)
    lists = data.draw(values)
    blanks = data.draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n\t", " : "), ("\r,", ":")]))
    text = json.dumps(lists, separators=blanks).encode()
    read, expected = column_of(name, text, levels, free), column_of(name, lists, levels, free)
    for one, other in zip(read, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.dtype == other.dtype
            assert one.tobytes() == other.tobytes()


# --- bodies -------------------------------------------------------------------------------------


def long_group(dice: random.Random, tokens: int = 300) -> dict[str, Any]:
    lengths = [tokens, 0, tokens + 7]

    def rows(make: Any) -> list[list[Any]]:
        return [[make() for _ in range(length)] for length in lengths]

    return {
        "tokens": rows(lambda: dice.randrange(128_000)),
        "masks": rows(lambda: dice.choice([-100, 1, 2**33])),
        "scores": [0.5, -1.0, 3],
        "advantages": rows(lambda: dice.choice([1, 0.0, dice.random()])),
        "ref_logprobs": None,
        "inference_logprobs": rows(lambda: -5 * dice.random()),
        "distill_token_ids": rows(lambda: [dice.randrange(9)] * dice.randrange(3)),
        "messages": [[{"role": "user", "content": 'tokens":[[1]], "'}]] * 3,
        "overrides": [{"tokens": [[1, 2]]}] * 3,
        "env_id": 3,
        "other": {"tokens": [1, {"masks": "]}"}]},
    }


def whole(body: bytes, many: bool, patch: pytest.MonkeyPatch) -> Any:
    """The body read without cutting columns out."""
    with patch.context() as patched:
        patched.setattr(bodies, "cut", lambda *_: None)
        return outcome(body, many)


def outcome(body: bytes, many: bool) -> Any:
    """The groups, or the message of the refusal; and the cost."""
    costs: list[int] = []
    try:
        if many:
            return groups_from_text(body, costs.append), sum(costs)
        return [group_from_text(body, costs.append)], sum(costs)
    except ValueError as error:
        return type(error), str(error)


def texts_of(groups: list[TrajectoryGroup]) -> list[bytes]:
    return [bodies.group_to_text(one) for one in groups]


def test_long_columns_are_cut_out_and_short_ones_are_not() -> None:
    group = long_group(random.Random(1))
    for body, many in ((group, False), ([group, {"tokens": [[1]]}, group], True)):
        found = cut(json.dumps(body).encode(), many)
        assert found is not None
        rest, columns = found
        left = json.loads(rest)
        for at, one in enumerate(left if many else [left]):
            cut_out = {"tokens", "masks", "advantages", "inference_logprobs", "distill_token_ids"}
            assert set(columns.get(at, {})) == (cut_out if at != 1 else set())
            given = body[at] if many else body  # type: ignore[index]
            for name, value in given.items():
                assert one[name] == (None if name in columns.get(at, {}) else value)


@pytest.mark.parametrize(
    "body",
    [
        b'{"tokens":[' + b"1," * 2000 + b'1],"tokens":[[1]]}',  # which of them counts?
        b'{"to\\u006bens":[' + b"1," * 2000 + b"1]}",
        b'{"tokens":[' + b"1," * 2000 + b"1]",
        b'[{"tokens":[' + b"1," * 2000 + b"1]}]",
        b'{"tokens":[' + b"1," * 2000 + b'1],"images":"' + b"x" * 5000 + b'"}',  # not worth it
        b"",
        b"[",
        b"{" * 5000,
        b'{"tokens":' * 5000,
        b'{"tokens":' + b"[" * 5000,
        b'{"tokens":[' + b"1," * 2000 + b'"',
    ],
)
def test_bodies_left_to_the_other_reader(body: bytes) -> None:
    assert cut(body, many=False) is None


@pytest.mark.parametrize("many", [False, True])
def test_a_body_with_columns_cut_out_is_the_same_group(
    many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(2)
    for tokens in (3, 200, 2_000):
        group = long_group(dice, tokens)
        text = json.dumps([group, group] if many else group).encode()
        groups, cost = outcome(text, many)
        others, other_cost = whole(text, many, monkeypatch)
        assert (
            texts_of(groups) == texts_of(others) == texts_of([group_from_json(group)] * (1 + many))
        )
        assert cost == other_cost


def test_nan_in_a_long_column_costs_no_more_than_its_text() -> None:
    group = long_group(random.Random(3))
    group["advantages"][0][5] = float("nan")
    group["inference_logprobs"][2][0] = float("-inf")
    text = json.dumps(group).encode()
    (read,), cost = outcome(text, many=False)
    assert texts_of([read]) == texts_of([group_from_json(group)])
    group["advantages"][0][5] = group["inference_logprobs"][2][0] = 0
    assert cost == outcome(json.dumps(group).encode(), many=False)[1]


@pytest.mark.parametrize("seed", range(4))
def test_damaged_bodies_are_refused_in_the_same_words(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes inserted, removed, exchanged: the same groups, or the same refusal."""
    dice = random.Random(seed)
    many = seed % 2 == 1
    group = long_group(dice)
    good = json.dumps([group, group] if many else group).encode()
    ends = [at for at in range(len(good)) if good[at : at + 1] in b'{}:"' or good[at] == ord("[")]
    taken = 0
    for _ in range(150):
        bad = bytearray(good)
        for _ in range(dice.choice([1, 1, 2])):
            at = dice.choice([dice.randrange(len(bad)), min(dice.choice(ends), len(bad) - 1)])
            piece = dice.choice([b"", b",", b"]", b"[", b'"', b"\\", b"1", b"-", b".", b"e", b"{"])
            bad[at : at + dice.choice([0, 1, 1, 9])] = piece
        body = bytes(bad)
        got, expected = outcome(body, many), whole(body, many, monkeypatch)
        if isinstance(expected[0], list):
            taken += 1
            assert texts_of(got[0]) == texts_of(expected[0])
        else:
            assert got == expected
    assert 0 < taken < 150
