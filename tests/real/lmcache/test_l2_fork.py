"""The L2 adapter in a process that forks: the child has none of its threads, and must end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lmcache", reason="lmcache is not installed in this environment")

WITHIN = 120.0
SCRIPT = """
import os, sys
from penstock.integrations.lmcache.l2 import PenstockL2Adapter
adapter = PenstockL2Adapter({"name": sys.argv[1], "capacity": "1MiB"})
with adapter._lock:  # as its thread has it now and then
    child = os.fork()
    if child == 0:
        sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert adapter.report_status()["is_healthy"]
adapter.close()
"""


def test_a_forked_child_ends_in_any_state_of_the_adapters_thread(name: str) -> None:
    try:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, name], timeout=WITHIN, check=False, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()
    finally:
        Path(f"/dev/shm/penstock.{name}").unlink(missing_ok=True)
