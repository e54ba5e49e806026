"""`penstock trajectories serve` in its own process, and requests of its clients."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

WITHIN = 30.0  # seconds, a bound for everything

REGISTRATION = {
    "wandb_group": "g",
    "wandb_project": "p",
    "batch_size": 4,
    "max_token_len": 2048,
    "checkpoint_dir": "/ckpt",
    "save_checkpoint_interval": 7,
    "starting_step": 3,
    "num_steps": 100,
}


def make_group(number: int, sequences: int = 2, **fields: Any) -> dict[str, Any]:
    tokens = [[number, at, 7] for at in range(sequences)]
    return {
        "tokens": tokens,
        "masks": [[-100, at, 7] for at in range(sequences)],
        "scores": [float(number)] * sequences,
        **fields,
    }


@contextlib.contextmanager
def served(name: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`penstock trajectories serve` on a free port: the process and its address."""
    command = [sys.executable, "-m", "penstock.cli.main", "trajectories", "serve"]
    options = ["--queue", name, "--port", "0", *arguments]
    with subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert "http://" in line, line
            yield process, line.split()[-1]
        finally:
            process.kill()
