"""`penstock bench`: a short figure of this machine: the time until another process has answered.
With --full it runs the repository's own benchmark, with all peers and sizes."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.cli import exits, output, units
from penstock.cli.command import Commands, add_command, positive_seconds

if TYPE_CHECKING:
    from penstock.cli import round_trips


def add_to(commands: Commands) -> None:
    parser = add_command(
        commands,
        "bench",
        run,
        summary="measure this machine, briefly",
        description=(
            "Sends Python values to another process, which reads each in full and answers; prints\n"
            "the time until the answer, beside multiprocessing.Queue in the same run."
        ),
        example="penstock bench\npenstock bench --full --repository ~/penstock --json",
    )
    parser.add_argument(
        "--seconds",
        type=positive_seconds,
        default=1.0,
        metavar="S",
        help="for each line and each peer (default 1)",
    )
    parser.add_argument(
        "--full", action="store_true", help="run the whole benchmark of a repository instead"
    )
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path(),
        metavar="DIRECTORY",
        help="a clone of Penstock, for --full (default: the current directory)",
    )


def run(args: argparse.Namespace) -> int:
    if args.full:
        return _run_repository(args.repository, as_json=args.json)
    from penstock.cli import round_trips  # imported here because it loads NumPy

    results = round_trips.measure(args.seconds)
    if args.json:
        output.print_json([asdict(result) | {"ratio": result.ratio} for result in results])
    else:
        print("\n".join(_text(results)))
    return exits.OK


def _text(results: list[round_trips.Result]) -> list[str]:
    header = ("until another process has answered", "p50", "p99", "Queue p50", "quicker by")
    rows = [
        (
            result.what,
            units.duration(result.p50),
            units.duration(result.p99),
            units.duration(result.queue_p50),
            f"{result.ratio:.0f} ×" if result.ratio >= 9.5 else f"{result.ratio:.1f} ×",
        )
        for result in results
    ]
    return [
        *output.columns([header, *rows], right=range(1, 5)),
        "",
        f"Queue: multiprocessing.Queue, in the same run, on {os.cpu_count()} processors.",
        "All sizes and peers: ./dev bench in the repository.",
    ]


def _run_repository(root: Path, *, as_json: bool) -> int:
    script = root / "dev"
    if not (root / "bench").is_dir() or not script.is_file():
        output.say(f"{root.resolve()} is no clone of Penstock: name one with --repository")
        return exits.ERROR
    command = [str(script.resolve()), "bench"]
    if not as_json:
        return subprocess.run(command, check=False).returncode
    with tempfile.NamedTemporaryFile(mode="r", suffix=".json") as file:
        # The tables go to stderr, so that stdout has only the JSON object.
        code = subprocess.run([*command, "--json", file.name], stdout=sys.stderr, check=False)
        sys.stdout.write(file.read())
    return code.returncode
