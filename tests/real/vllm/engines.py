"""Runs of generate.py, each an engine of its own, by the tests."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environment import environment

HERE = Path(__file__).resolve().parent
WITHIN = 600.0  # seconds: an engine starts in one minute, or in five on a busy machine


@dataclass(frozen=True)
class Run:
    """What an engine answered, and what it and its processes logged."""

    tokens: list[list[list[int]]]  #: of each turn and prompt
    seconds: list[float]
    workers_seconds: list[float]
    paced_processors: dict[str, float]  #: in use by the workers, by steps a second
    segments: list[str]
    log: str
    left: list[str]  #: in /dev/shm, after it has ended


def generate(
    model: Path, folder: Path, modules: str, *, images: bool = False, **engine: Any
) -> Run:
    """An engine of the model in ``model``, with these modules and arguments. ``folder`` is for its
    output. Raises AssertionError with its log if it fails."""
    output, log = folder / "answers.json", folder / "log"
    command = [sys.executable, str(HERE / "generate.py"), str(model), str(output)]
    command += ["--engine", json.dumps(engine), *(["--images"] if images else [])]
    with log.open("w") as written:
        done = subprocess.run(
            command,
            env=environment(modules),
            cwd=folder,
            stdout=written,
            stderr=subprocess.STDOUT,
            timeout=WITHIN,
            check=False,
        )
    said = log.read_text(errors="replace")
    assert done.returncode == 0, said[-6000:]
    end = time.monotonic() + 10  # multiprocessing's tracker ends after the program
    while penstocks_files() and time.monotonic() < end:
        time.sleep(0.1)
    return Run(**json.loads(output.read_text()), log=said, left=penstocks_files())


def penstocks_files() -> list[str]:
    return sorted(file.name for file in Path("/dev/shm").glob("penstock.*"))
