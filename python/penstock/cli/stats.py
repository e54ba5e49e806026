"""Statistics as rows of text, and the growth of counters; both follow from the tables in C++."""

from __future__ import annotations

from penstock.cli import output, units
from penstock.metrics import Statistics

Rates = dict[str, float]


def rates(after: Statistics, before: Statistics, seconds: float) -> Rates:
    """The growth of each counter per second: ``{"accepted_per_s": 12.0}``."""
    return {
        f"{name}_per_s": (getattr(after, name) - getattr(before, name)) / seconds
        for name, kind, *_ in after._table
        if kind == "counter"
    }


def lines(stats: Statistics, growth: Rates | None) -> list[str]:
    """A line for each statistic: name, value, rate of a counter, and what it means."""
    rows = [
        (
            f"    {name.replace('_', ' ')}",
            _shown(getattr(stats, name), unit),
            f"{_shown(growth[f'{name}_per_s'], unit)}/s" if growth and kind == "counter" else "",
            words,
        )
        for name, kind, unit, _, words in stats._table
        if kind != "part"
    ]
    return output.columns(rows, right=(1, 2))


def _shown(value: float | str | None, unit: str) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    return {"bytes": units.size, "seconds": units.duration}.get(unit, units.count)(value)
