#!/usr/bin/env python3
"""Run the benchmarks one after the other, print their results, and compare them with the targets.

`./dev bench` builds what is needed and calls this. Nothing else should run meanwhile: a figure from
a busy machine says little, and the load is printed for that reason.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console

from compare import Change, change_table, changes, print_comparison, worse_by
from figures import Figure, judge
from machine import describe_machine, one_line
from programs import CPP, PROGRAMS, PYTHON, Run, run_all, steps
from readings import as_json, load
from tables import result_table, tables

TRIES = 3  # in which a figure has to be worse by --limit


def grossly_worse(
    first: Run, arguments: argparse.Namespace, progress: Console
) -> tuple[list[Change], list[str]]:
    """The ratios that are worse by ``--limit`` in every try, and the programs that failed. Later
    tries run only the programs that the earlier ones leave in doubt."""
    baseline = load(arguments.compare)
    step_of = {record["bench"]: record["step"] for record in first.results.records}
    worse = worse_by(changes(baseline, first.readings), arguments.limit)
    failed: list[str] = []
    for _ in range(TRIES - 1):
        if not worse:
            break
        names = sorted({step_of[one.bench] for one in worse})
        progress.print(f"worse by {arguments.limit:g} ×, tried again: {', '.join(names)}")
        again = run_all(
            steps(arguments.programs, arguments.quick, names), arguments.programs, progress
        )
        failed += again.failed
        still = {one.name for one in worse}
        found = worse_by(changes(baseline, again.readings), arguments.limit)
        worse = [one for one in found if one.name in still]
    return worse, failed


def write_json(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def parse_arguments() -> argparse.Namespace:
    names = [*CPP, *(f"python_{name}" for name in PYTHON)]
    parser = argparse.ArgumentParser(
        prog="./dev bench", description=__doc__, epilog="example: ./dev bench --json figures.json"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every record here")
    parser.add_argument("--compare", type=Path, metavar="FILE",
                        help="what has changed since this file of --json")  # fmt: skip
    parser.add_argument("--limit", type=float, metavar="FACTOR",
                        help="fail if a ratio to the baseline's stays worse by it")  # fmt: skip
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the picture (.svg or .png)")
    parser.add_argument("--quick", action="store_true", help="a minute instead of several")
    parser.add_argument("--only", nargs="+", choices=names, default=[], metavar="NAME",
                        help=f"some of: {', '.join(names)}")  # fmt: skip
    parser.add_argument("--programs", type=Path, default=PROGRAMS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.limit and not arguments.compare:
        parser.error("--limit needs --compare")
    return arguments


def draw(path: Path, document: dict[str, object], progress: Console) -> None:
    try:
        from plot import draw_picture
    except ImportError:
        progress.print("no picture: matplotlib is not installed")
        return
    draw_picture(document, path)
    progress.print(f"picture: {path}", highlight=False)


def main() -> int:
    arguments = parse_arguments()
    progress = Console(stderr=True)
    output = Console(width=None if sys.stdout.isatty() else 200)
    machine = describe_machine()
    output.print(one_line(machine), highlight=False)
    begin = time.monotonic()
    every = steps(arguments.programs, arguments.quick, arguments.only)
    run = run_all(every, arguments.programs, progress)
    figures: list[Figure] = judge(run.results)
    for table in tables(run.results):
        output.print(table)
    output.print(result_table(figures))
    document = {
        "taken_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["./dev", "bench", *sys.argv[1:]]),
        "seconds": round(time.monotonic() - begin, 1),
        "quick": arguments.quick,
        "machine": machine,
        "failed": run.failed,
        "figures": [figure.as_dict() for figure in figures],
        "readings": as_json(run.readings),
        "records": run.results.records,
    }
    if arguments.json:
        write_json(arguments.json, document)
    if arguments.plot:
        draw(arguments.plot, document, progress)
    failed = run.failed
    worse: list[Change] = []
    if arguments.compare:
        print_comparison(output, load(arguments.compare), run.readings)
    if arguments.limit:
        worse, failed_again = grossly_worse(run, arguments, progress)
        failed = [*failed, *failed_again]
    if worse:
        title = f"FAILED: worse than the baseline by {arguments.limit:g} × in each of {TRIES} tries"
        output.print(change_table(title, worse))
    if failed:
        progress.print(f"FAILED: {', '.join(failed)}", style="bold red")
    return 1 if failed or worse else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
