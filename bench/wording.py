"""Numbers formatted for people."""

from __future__ import annotations


def _with_unit(value: float, units: tuple[tuple[float, str], ...]) -> str:
    for size, unit in units:
        if value >= size:
            scaled = value / size
            return f"{scaled:.0f} {unit}" if scaled >= 100 else f"{scaled:.3g} {unit}"
    return f"{value:.3g} {units[-1][1]}"


def nanoseconds(value: float) -> str:
    return _with_unit(value, ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1, "ns")))


def count(value: float) -> str:
    return _with_unit(value, ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))).rstrip()


def size(value: int) -> str:
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if value >= 1 << power:
            return f"{value / (1 << power):.3g} {unit}"
    return f"{value} B"


def times(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f} ×" if value >= 20 else f"{value:.2f} ×" if value < 10 else f"{value:.1f} ×"
