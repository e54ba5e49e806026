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
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console

from compare import print_comparison
from figures import Figure, judge
from machine import describe_machine, one_line
from readings import load, readings_of
from results import Record, Results
from tables import result_table, tables

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE.parent / "build" / "release" / "bench"
# The names of the C++ and the Python programs, in the order in which they run.
CPP = ("latency", "throughput", "writer_cost", "copy", "store", "tier", "waiting", "recovery")
PYTHON = (
    *("objects", "messages", "queue", "trajectories", "batches", "store", "tier", "kv", "http"),
    "waiting",
)


@dataclass(frozen=True)
class Step:
    """One program of the benchmark."""

    name: str
    command: list[str]


def steps(programs: Path, quick: bool, only: list[str]) -> Iterator[Step]:
    options = ["--quick"] if quick else []
    for name in CPP:
        if not only or name in only:
            yield Step(name, [str(programs / f"bench_{name}"), *options])
    for name in PYTHON:
        if not only or f"python_{name}" in only:
            script = HERE / "python" / f"bench_{name}.py"
            yield Step(f"python_{name}", [sys.executable, str(script), *options])


def run_step(step: Step, progress: Console) -> tuple[list[Record], bool]:
    """The records of one program, and whether it succeeded."""
    begin = time.monotonic()
    records = []
    with (
        progress.status(f"{step.name} …"),
        subprocess.Popen(step.command, stdout=subprocess.PIPE, text=True) as program,
    ):
        try:
            assert program.stdout is not None
            records.extend(json.loads(line) for line in program.stdout)
        except BaseException:
            # Its guardian kills its processes and cleans up.
            program.send_signal(signal.SIGTERM)
            raise
    is_good = program.returncode == 0 and bool(records)
    state = "done" if is_good else f"FAILED with code {program.returncode}"
    progress.print(f"{step.name}: {state} in {time.monotonic() - begin:.0f} s", highlight=False)
    return records, is_good


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
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the picture (.svg or .png)")
    parser.add_argument("--quick", action="store_true", help="a minute instead of several")
    parser.add_argument("--only", nargs="+", choices=names, default=[], metavar="NAME",
                        help=f"some of: {', '.join(names)}")  # fmt: skip
    parser.add_argument("--programs", type=Path, default=PROGRAMS, help=argparse.SUPPRESS)
    return parser.parse_args()


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
    results = Results()
    failed = []
    begin = time.monotonic()
    for step in steps(arguments.programs, arguments.quick, arguments.only):
        records, is_good = run_step(step, progress)
        results.records += records
        if not is_good:
            failed.append(step.name)
    figures: list[Figure] = judge(results)
    for table in tables(results):
        output.print(table)
    output.print(result_table(figures))
    document = {
        "taken_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["./dev", "bench", *sys.argv[1:]]),
        "seconds": round(time.monotonic() - begin, 1),
        "quick": arguments.quick,
        "machine": machine,
        "failed": failed,
        "figures": [figure.as_dict() for figure in figures],
        "records": results.records,
    }
    if arguments.json:
        write_json(arguments.json, document)
    if arguments.compare:
        print_comparison(output, load(arguments.compare), readings_of(results))
    if arguments.plot:
        draw(arguments.plot, document, progress)
    if failed:
        progress.print(f"FAILED: {', '.join(failed)}", style="bold red")
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
