"""Numbers for people: sizes, times, counts and rates. Every screen and table of the command formats
them by these functions."""

from __future__ import annotations


def size(count: float) -> str:
    """A number of bytes: "17 B", "4.0 KiB", "1.5 GiB"."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        count /= 1024
        if count < 1023.95 or unit == "TiB":
            return f"{count:.1f} {unit}"
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """A span of time, three digits at most: "850 ns", "31 µs", "4.2 ms", "1.5 s", "12 min"."""
    if seconds >= 120:
        return f"{seconds / 60:.0f} min"
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        scaled = seconds * factor
        if scaled >= 0.9995:
            return f"{scaled:.1f} {unit}" if scaled < 9.95 else f"{scaled:.0f} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def count(number: float) -> str:
    """A whole number with thousands set apart: "41,220"."""
    return f"{number:,.0f}"


def plural(number: int, thing: str) -> str:
    """ "1 reader", "4 readers"."""
    return f"{count(number)} {thing}" if number == 1 else f"{count(number)} {thing}s"


def gigabytes(bytes_per_second: float) -> str:
    """A rate in GB/s with a sensible number of decimals."""
    rate = bytes_per_second / 1e9
    return f"{rate:.1f}" if rate >= 9.95 else f"{rate:.2f}"


def percent(share: float) -> str:
    """A share of one processor: "38 %", "0.4 %"."""
    return f"{share * 100:.1f} %" if 0 < share < 0.0995 else f"{share * 100:.0f} %"
