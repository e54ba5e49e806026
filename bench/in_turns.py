#!/usr/bin/env python3
"""Run the benchmark of two checkouts in turns, and print what has changed between them.

    python bench/in_turns.py ../before . --rounds 3 --only latency python_messages

Both are to be built (`./dev bench --quick` in each does that). The package and the C++ programs are
each checkout's own; the scripts are this one's. Whatever the machine does within the hour meets
both sides, and the order changes from round to round.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from compare import print_comparison
from readings import load, merge

HERE = Path(__file__).resolve().parent


def run(checkout: Path, file: Path, more: list[str]) -> None:
    """One run of one side, without its tables."""
    command = [
        str(checkout / ".venv" / "bin" / "python"),
        str(HERE / "run.py"),
        *("--programs", str(checkout / "build" / "release" / "bench")),
        *("--json", str(file)),
        *more,
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="a checkout")
    parser.add_argument("after", type=Path, help="another one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the files of the runs")
    given, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        files: dict[str, list[Path]] = {"before": [], "after": []}
        for number in range(given.rounds):
            order = ("before", "after") if number % 2 == 0 else ("after", "before")
            for side in order:
                file = folder / f"{side}-{number}.json"
                run(getattr(given, side).resolve(), file, more)
                files[side].append(file)
        sides = [merge([load(file) for file in of_side]) for of_side in files.values()]
    print_comparison(Console(width=None if sys.stdout.isatty() else 200), *sides)
    return 0


if __name__ == "__main__":
    sys.exit(main())
