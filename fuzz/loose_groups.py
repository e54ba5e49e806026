"""Groups as old programs send them, each with the expected result.

Columns are present, null, empty, or of other lengths than the tokens; whole numbers may be true,
false, text or 1.0. All of that is valid, and comes back as the intended numbers.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["MARK", "LooseGroup", "loose_group"]

#: In a group's generation_params: its number.
MARK = "fuzz"
_OPTIONAL_REALS = ("advantages", "ref_logprobs", "inference_logprobs")
_OTHERS = ("messages", "overrides", "group_overrides", "images", "env_id")
_WORDS = ["", "naïve 😀", "\u0000", '"\\', "\ud800", "x" * 300]


class LooseGroup(NamedTuple):
    sent: dict[str, Any]
    wanted: dict[str, Any]


class _Column(NamedTuple):
    sent: Any
    wanted: Any


def loose_group(dice: random.Random, number: int) -> LooseGroup:
    """A group of one to three sequences."""
    lengths = [dice.choice([0, 1, 2, 5, 40]) for _ in range(dice.randint(1, 3))]
    columns = {
        "tokens": _rows(dice, lengths, _whole),
        "masks": _rows(dice, _other_lengths(dice, lengths), _whole),
        "scores": _row(dice, len(_other_lengths(dice, lengths)), _real),
        "distill_token_ids": _maybe(dice, lambda: _deep(dice, lengths, _whole)),
        "distill_logprobs": _maybe(dice, lambda: _deep(dice, lengths, _real)),
    }
    for name in _OPTIONAL_REALS:
        columns[name] = _maybe(dice, lambda: _rows(dice, _other_lengths(dice, lengths), _real))
    for name in _OTHERS:
        columns[name] = _maybe(dice, lambda name=name: _same(_other(dice, name)))
    columns["generation_params"] = _same({MARK: number})
    sent = {name: one.sent for name, one in columns.items()}
    for name in [name for name, value in sent.items() if value is None and dice.random() < 0.5]:
        del sent[name]
    return LooseGroup(sent, {name: one.wanted for name, one in columns.items()})


def _whole(dice: random.Random) -> _Column:
    wanted = dice.choice([0, 1, dice.randrange(1 << 17), -100, 2**31, -(2**40)])
    forms = [wanted, wanted, float(wanted), str(wanted), f" {wanted}.0 "]
    if wanted in (0, 1):
        forms.append(bool(wanted))
    return _Column(dice.choice(forms), wanted)


def _real(dice: random.Random) -> _Column:
    wanted = dice.choice([0.0, 1.0, -0.5, dice.random(), 1e-30, -3e300, 0.1])
    forms: list[Any] = [wanted, wanted, repr(wanted)]
    if wanted in (0.0, 1.0):
        forms += [bool(wanted), int(wanted)]
    return _Column(dice.choice(forms), wanted)


_Make = Callable[[random.Random], _Column]


def _row(dice: random.Random, count: int, make: _Make) -> _Column:
    if dice.random() < 0.5:  # without other notations
        wanted = [make(dice).wanted for _ in range(count)]
        return _Column(wanted, wanted)
    return _joined([make(dice) for _ in range(count)])


def _joined(columns: list[_Column]) -> _Column:
    return _Column([one.sent for one in columns], [one.wanted for one in columns])


def _rows(dice: random.Random, lengths: list[int], make: _Make) -> _Column:
    return _joined([_row(dice, length, make) for length in lengths])


def _deep(dice: random.Random, lengths: list[int], make: _Make) -> _Column:
    width = dice.choice([0, 1, 4])
    rows = [[width] * length for length in _other_lengths(dice, lengths)]
    if rows and rows[0] and dice.random() < 0.3:
        rows[0][0] = 3
    return _joined([_rows(dice, widths, make) for widths in rows])


def _other_lengths(dice: random.Random, lengths: list[int]) -> list[int]:
    kind = dice.randrange(6)
    if kind == 0:
        return []
    if kind == 1:
        return [1] * len(lengths)
    if kind == 2:
        return [*lengths, dice.randint(0, 3)]
    return lengths


def _maybe(dice: random.Random, make: Callable[[], _Column]) -> _Column:
    return make() if dice.random() < 0.5 else _same(None)


def _same(value: Any) -> _Column:
    return _Column(value, value)


def _other(dice: random.Random, name: str) -> Any:
    if name == "messages":
        return [[{"role": "user", "content": dice.choice(_WORDS)}], []]
    if name == "overrides":
        return dice.choice([[], [{"a": [1.5, None, dice.choice(_WORDS)]}]])
    if name == "group_overrides":
        return {"a": {"b": [True, 2**40]}}
    if name == "env_id":
        return dice.randrange(4)
    return dice.choice([[], ["png"], {"a": 1}, "text", 3])
