"""The programs of the benchmark, run one after the other, each with a ping-pong before it."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from readings import Readings, readings_of
from results import MOMENT, Record, Results

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE.parent / "build" / "release" / "bench"
# The names of the C++ and the Python programs, in the order in which they run.
CPP = ("latency", "throughput", "writer_cost", "copy", "store", "tier", "waiting", "recovery")
PYTHON = (
    *("objects", "messages", "queue", "trajectories", "batches", "store", "tier", "kv", "http"),
    *("waiting", "pause", "capacity"),
)
PINGS = 2000  # round trips of the bare ping-pong before each program


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


def run_step(step: Step, programs: Path, progress: Console) -> tuple[list[Record], bool]:
    """The records of one program, and whether it succeeded."""
    begin = time.monotonic()
    moment = ping_pong(step.name, programs)
    records = []
    with (
        progress.status(f"{step.name} …"),
        subprocess.Popen(
            step.command,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PENSTOCK_BENCH_PROGRAMS": str(programs.resolve())},
        ) as program,
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
    return [{**record, "step": step.name} for record in moment + records], is_good


def ping_pong(step: str, programs: Path) -> list[Record]:
    """The bare ping-pong just before a step, one way: where the processors are. Nothing on one
    processor."""
    program = programs / "bench_ping_pong"
    if not program.exists() or len(os.sched_getaffinity(0)) < 2:
        return []
    lines = f"{PINGS // 10}\n{PINGS}\n"
    run = subprocess.run([str(program)], input=lines, capture_output=True, text=True, check=True)
    taken = [float(word) / 2 for word in run.stdout.splitlines()[1].split()]
    median = statistics.median(taken)
    return [{"bench": MOMENT, "who": "bare ping-pong", "p50_ns": median}]


@dataclass
class Run:
    """What some programs have printed, and which of them failed."""

    results: Results
    failed: list[str]

    @property
    def readings(self) -> Readings:
        return readings_of(self.results)


def run_all(every: Iterable[Step], programs: Path, progress: Console) -> Run:
    run = Run(Results(), [])
    for step in every:
        records, is_good = run_step(step, programs, progress)
        run.results.records += records
        if not is_good:
            run.failed.append(step.name)
    return run
