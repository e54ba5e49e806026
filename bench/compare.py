#!/usr/bin/env python3
"""Print what differs between two runs by more than the noise that they saw.

`./dev bench --compare BASELINE.json` compares the run with a file that `--json` wrote, perhaps in
another checkout. This program compares files, several of each side if there are:

    python bench/compare.py before.json after.json
    python bench/compare.py --before b1.json b2.json b3.json --after a1.json a2.json a3.json

The ratios of some runs, which hold on other machines of their kind, are written into a baseline by

    python bench/compare.py --baseline bench/baseline.json r1.json r2.json r3.json

A figure has changed if the bands of the two sides do not meet (eight tenths of its turns; with
three runs of a side or more, the range of their medians) and the medians lie further apart than
nine of ten of the peers' and bare limits' do, which are the same programs on both sides.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from readings import BARE, Reading, Readings, as_json, load, merge, ratios
from wording import count, nanoseconds, times

LEAST_FLOOR = 1.05  # what no run can tell apart, however calm its peers
SINGLE_FLOOR = 1.5  # for figures of which no spread is known
CALM_SHARE = 0.9  # of the unchanged programs, which stay within the floor


@dataclass(frozen=True)
class Change:
    """One figure on both sides."""

    name: str
    before: Reading
    after: Reading

    @property
    def bench(self) -> str:
        return re.split(r"[: ]", self.name, maxsplit=1)[0]

    @property
    def factor(self) -> float:
        """How many times better it is after: below 1, worse."""
        if self.before.middle <= 0 or self.after.middle <= 0:
            return 1.0 if self.before.middle == self.after.middle else math.nan
        factor = self.after.middle / self.before.middle
        return factor if self.before.more_is_better else 1 / factor

    @property
    def size(self) -> float:
        """The same, whichever way: 1 or more."""
        return max(self.factor, 1 / self.factor)

    @property
    def bands_meet(self) -> bool:
        return self.before.low <= self.after.high and self.after.low <= self.before.high

    @property
    def spread(self) -> float:
        """How far the wider band reaches from its median, as a factor."""
        sides = (self.before, self.after)
        return max(max(one.high / one.middle, one.middle / one.low) for one in sides if one.low > 0)


def changes(before: Readings, after: Readings) -> list[Change]:
    """The figures of Penstock and of the others that both sides have."""
    both = (name for name in after if name in before)
    pairs = (Change(name, before[name], after[name]) for name in both)
    return [one for one in pairs if not math.isnan(one.factor)]


def floor_of(every: list[Change]) -> float:
    """How far unchanged programs lie apart: what a change has to exceed."""
    others = sorted(one.size for one in every if not one.before.is_own and one.before.is_ratio)
    if not others:
        return LEAST_FLOOR
    return max(LEAST_FLOOR, others[min(int(CALM_SHARE * len(others)), len(others) - 1)])


def beyond_noise(every: list[Change]) -> list[Change]:
    """What has changed, the worst first. The floor is that of the figure's own benchmark."""
    floors = {
        bench: floor_of([one for one in every if one.bench == bench])
        for bench in {one.bench for one in every}
    }

    def is_beyond(one: Change) -> bool:
        floor = floors[one.bench]
        if min(one.before.count, one.after.count) == 1:
            return one.size > max(floor, SINGLE_FLOOR)
        return not one.bands_meet and one.size > floor

    return sorted((one for one in every if one.before.is_own and is_beyond(one)), key=_worst_first)


def _worst_first(one: Change) -> float:
    return one.factor


def worse_by(every: list[Change], limit: float) -> list[Change]:
    """Ratios that are worse than all the baseline saw by this factor: no chance on any machine."""

    def is_worse(one: Change) -> bool:
        if one.before.more_is_better:
            return one.after.middle * limit < one.before.low
        return one.after.middle > one.before.high * limit

    own = (one for one in every if one.before.is_own and one.before.is_ratio)
    return sorted((one for one in own if is_worse(one)), key=_worst_first)


def _value(name: str, one: Reading) -> str:
    if one.is_ratio:
        return times(one.middle) if one.middle >= 0.1 else f"{one.middle:.3g} ×"
    measure = name.rpartition(", ")[2]
    if measure.endswith("_ns"):
        return nanoseconds(one.middle)
    if measure.endswith("_per_s"):
        return f"{count(one.middle)}/s"
    return f"{one.middle:.3g}"


def change_table(title: str, found: list[Change]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in ("figure", "before", "after", "change", "spread"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for one in found:
        colour, word = ("green", "better") if one.factor > 1 else ("red", "worse")
        table.add_row(
            one.name.replace("[", r"\["),
            _value(one.name, one.before),
            _value(one.name, one.after),
            f"[{colour}]{one.size:.2f} × {word}[/{colour}]",
            "unknown" if one.before.count == 1 else f"{one.spread:.2f} ×",
        )
    return table


def _moment(every: list[Change]) -> Iterator[str]:
    """The bare limits of both sides, at their smallest size: where the processors were."""
    shown = set()
    for one in every:
        who = one.name.partition(": ")[2].partition(", ")[0]
        if who in BARE and (one.bench, who) not in shown:
            shown.add((one.bench, who))
            sides = (nanoseconds(side.middle) for side in (one.before, one.after))
            yield f"{one.name}: {' before, '.join(sides)} after"


def print_comparison(output: Console, before: Readings, after: Readings) -> list[Change]:
    """Print what changed; returns every figure that both sides have."""
    every = changes(before, after)
    own = [one for one in every if one.before.is_own]
    found = beyond_noise(every)
    for line in _moment(every):
        output.print(line, highlight=False, markup=False)
    if found:
        output.print(change_table("Changed by more than the noise", found))
    output.print(
        f"{len(found)} of {len(own)} figures have changed by more than the noise; "
        f"nine of ten unchanged programs lie within {floor_of(every):.2f} ×",
        highlight=False,
    )
    missing = [name for name, one in before.items() if one.is_own and name not in after]
    if missing:
        output.print(f"{len(missing)} figures of the baseline were not measured", highlight=False)
    return every


def write_baseline(path: Path, runs: list[Path]) -> None:
    """One line for each figure, so that a new baseline shows what has moved."""
    readings = as_json(ratios(merge([load(run) for run in runs])))
    lines = (f"{json.dumps(name)}: {json.dumps(one)}" for name, one in sorted(readings.items()))
    path.write_text('{"readings": {\n' + ",\n".join(lines) + "\n}}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare runs of ./dev bench.")
    parser.add_argument("files", nargs="*", type=Path, help="one file of each side")
    parser.add_argument("--before", nargs="+", type=Path, default=[], metavar="FILE")
    parser.add_argument("--after", nargs="+", type=Path, default=[], metavar="FILE")
    parser.add_argument("--baseline", type=Path, help="write the ratios of the files here instead")
    given = parser.parse_args()
    if given.baseline and given.files:
        write_baseline(given.baseline, given.files)
        return 0
    if len(given.files) == 2:
        given.before, given.after = given.files[:1], given.files[1:]
    elif given.files or not given.before or not given.after:
        parser.error("name two files, or some after --before and some after --after")
    output = Console(width=None if sys.stdout.isatty() else 200)
    sides = (merge([load(path) for path in side]) for side in (given.before, given.after))
    print_comparison(output, *sides)
    return 0


if __name__ == "__main__":
    sys.exit(main())
