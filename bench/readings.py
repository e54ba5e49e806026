"""The figures of a run that another run can be compared with, each with the spread that it had.

A figure is what Penstock needed beside its yardstick, turn by turn: a bare limit where the case has
one, else a peer. Such a ratio holds on other machines, and on this one when the host has moved its
processors. Cases without a yardstick give their own times and rates, for runs on one machine.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from results import Record, Results
from wording import size

# The lists that hold one value for each turn, and whether more is better.
TURNS = {
    "turn_p50_ns": False,
    "turn_p99_ns": False,
    "turn_processor_ns": False,
    "turn_messages_per_s": True,
    "turn_groups_per_s": True,
    "turn_batches_per_s": True,
}
# Single values, measured over a whole case, and whether more is better.
SINGLE = {"worst_share": False, "used_bytes": False, "operations_per_s": True, "hit_rate": True}
# What tells two cases of one benchmark apart.
PLACE = (
    *("size", "readers", "kind", "operation", "tokens", "producers", "processes", "mode", "what"),
    *("trace", "policy"),
)
SMALL = 1 << 10  # up to here a message costs the lines that carry it: beside a ping-pong
BARE = ("bare ping-pong", "bare shared buffer", "bare ring")
# In each benchmark, the first of these that takes part is the yardstick.
YARDSTICKS = {
    "latency": ("bare ping-pong", "bare shared buffer", "unix socket"),
    "python_latency": ("bare shared buffer", "unix socket"),
    "throughput": ("bare ring", "unix socket"),
    "python_throughput": ("unix socket",),
    "python_object": ("unix socket",),
    "python_pause": ("unix socket",),
    "python_capacity": ("ring of 1 MiB",),
    "copy": ("plain copy, same memory",),
    "store_put": ("plain copy, same memory",),
    "tier": ("plain commands",),
    "python_tier": ("redis-py",),
    "python_tier_hit": ("plain Store",),
    "wake": ("bare futex",),
    "python_queue": ("multiprocessing.Queue",),
    "python_trajectories": ("multiprocessing.Queue",),
    "python_batches": ("plain copy",),
    "python_kv": ("plain copy",),
    "python_store": ("shared_memory each",),
}
# Benchmarks whose contenders are named by what Penstock does, and the others among them.
ONLY_PENSTOCK = (
    *("python_batches", "python_capacity", "python_kv", "python_http", "python_tier_hit"),
    "store_pair",
)
PLAIN = ("plain", "blocks")
FEWEST_FOR_DECILES = 8


@dataclass(frozen=True)
class Reading:
    """One figure of one side: its median, and the band in which most of its turns lay."""

    middle: float
    low: float
    high: float
    count: int  # of turns, or of runs; 1: no spread was seen
    more_is_better: bool
    yardstick: str  # "" if the figure is absolute
    is_own: bool  # False: a peer or a bare limit, which no change of Penstock reaches

    @property
    def is_ratio(self) -> bool:
        return self.yardstick != ""


Readings = dict[str, Reading]


def band(values: Sequence[float]) -> tuple[float, float]:
    """The inner eight tenths, or the whole range where there are few values."""
    if len(values) < FEWEST_FOR_DECILES:
        return min(values), max(values)
    deciles = statistics.quantiles(values, n=10, method="inclusive")
    return deciles[0], deciles[-1]


def _reading(values: Sequence[float], more: bool, yardstick: str, is_own: bool) -> Reading:
    low, high = band(values)
    middle = statistics.median(values)
    return Reading(middle, low, high, len(values), more, yardstick, is_own)


def _place(record: Record) -> tuple[tuple[str, Any], ...]:
    return tuple((key, record[key]) for key in PLACE if key in record)


def _name(record: Record, measure: str, yardstick: str) -> str:
    words = [size(value) if key == "size" else str(value) for key, value in _place(record)]
    where = f" [{', '.join(words)}]" if words else ""
    beside = f" to {yardstick}" if yardstick else ""
    return f"{record['bench']}{where}: {record.get('who', 'penstock')}, {measure}{beside}"


def _is_own(record: Record) -> bool:
    who = record.get("who", "penstock")
    if record["bench"] in ONLY_PENSTOCK:
        return not who.startswith(PLAIN)
    return who.startswith("penstock")


def _yardstick(results: Results, record: Record) -> Record | None:
    wanted = YARDSTICKS.get(record["bench"], ())
    # Beside a line that goes to and fro, large messages and several readers say nothing.
    if record.get("size", 0) > SMALL or record.get("readers", 1) > 1:
        wanted = tuple(name for name in wanted if name != "bare ping-pong")
    place = dict(_place(record))
    found = (results.one(record["bench"], who=who, **place) for who in wanted)
    return next((one for one in found if one is not None), None)


def _turn_readings(results: Results, record: Record) -> Iterator[tuple[str, Reading]]:
    # Bare limits are where others are read beside: how they compare tells only of the placement.
    yardstick = None if record.get("who") in BARE else _yardstick(results, record)
    for key, more in TURNS.items():
        if key not in record:
            continue
        own = record[key]
        beside = ""
        if yardstick is not None and yardstick is not record:
            beside = yardstick["who"]
            own = [a / b for a, b in zip(own, yardstick[key], strict=True)]
        measure = key.removeprefix("turn_")
        yield _name(record, measure, beside), _reading(own, more, beside, _is_own(record))


def readings_of(results: Results) -> Readings:
    """Every figure of one run, by its name."""
    found: Readings = {}
    for record in results.records:
        found.update(_turn_readings(results, record))
        for key, more in SINGLE.items():
            if key in record:
                name = _name(record, key, "")
                found[name] = _reading([record[key]], more, "", _is_own(record))
    return found


def merge(runs: Sequence[Readings]) -> Readings:
    """Several runs of one build: the median of their medians, and the band that they reach."""
    if len(runs) == 1:
        return runs[0]
    merged: Readings = {}
    for name, first in runs[0].items():
        every = [run[name] for run in runs if name in run]
        middles = [one.middle for one in every]
        # Two runs say little about how far runs lie apart: their turns count as well.
        few = len(every) < 3
        low = min(one.low if few else one.middle for one in every)
        high = max(one.high if few else one.middle for one in every)
        merged[name] = Reading(
            statistics.median(middles),
            low,
            high,
            sum(one.count for one in every) if few else len(every),
            first.more_is_better,
            first.yardstick,
            first.is_own,
        )
    return merged


def load(path: Path) -> Readings:
    """The readings of a file that `--json` or `--baseline` has written."""
    document = json.loads(path.read_text())
    if "readings" in document:
        return {name: Reading(**fields) for name, fields in document["readings"].items()}
    return readings_of(Results(document["records"]))


def as_json(readings: Readings) -> dict[str, dict[str, Any]]:
    """In the form that `load` reads."""
    return {name: {**asdict(one), **_rounded(one)} for name, one in readings.items()}


def _rounded(one: Reading) -> dict[str, float]:
    return {key: float(f"{getattr(one, key):.4g}") for key in ("middle", "low", "high")}


def ratios(readings: Readings) -> Readings:
    """The figures that hold on other machines."""
    return {name: one for name, one in readings.items() if one.is_ratio}
