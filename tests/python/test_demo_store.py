"""`penstock demo --store` end to end: its account, and its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

DEMO = [sys.executable, "-m", "penstock.cli.main", "demo", "--store"]


def test_everything_is_accounted_for(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / str(number)).write_bytes(bytes([number]) * (1 << 20))
    done = subprocess.run(
        [*DEMO, str(tmp_path), "--seconds", "2", "--workers", "3", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    account = json.loads(done.stdout)
    assert account["ok"]
    assert account["hits"] > 0
    assert account["evicted"] > 0
    assert account["kills"] == account["deaths"] == 2
    assert account["wrong"] == account["left"] == account["unaccounted"] == 0
