"""examples/vllm_executor.py, with Penstock's modules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from peers import WITHIN

EXAMPLE = Path(__file__).parents[2] / "examples" / "vllm_executor.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLE), "--steps", "20", "--gap-ms", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, check=False)


def test_steps_are_answered() -> None:
    done = run()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("penstock: 20 steps of 2 workers")
    assert not done.stderr


def test_a_killed_worker_ends_it_and_is_named() -> None:
    done = run("--kill", "--steps", "60", "--gap-ms", "5")
    assert done.returncode == 1, done.stderr
    assert "PeerDied" in done.stdout
    assert "reader 1 of 'vllm-mq-" in done.stdout
    assert not done.stderr
