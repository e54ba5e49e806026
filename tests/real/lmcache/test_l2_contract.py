"""LMCache's own tests of what an L2 adapter must do, from its source archive, with Penstock's
adapters in the place of those that they test (l2_in_place.py). Their assertions are unchanged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
SOURCE = ROOT / "build" / "lmcache-src"
TESTS = "tests/v1/distributed"

# Left out: it asks that a store take as long as the mock's simulated bandwidth wants.
LEFT_OUT = ["test_store_completion_is_delayed_by_bandwidth"]

QUICK = [
    f"{TESTS}/test_mock_l2_adapter.py",
    f"{TESTS}/test_fault_inject_l2_adapter.py",
    "examples/lmc_external_l2_adapter/tests/test_plugin.py",
]
# LMCache's bridge for connectors: each test takes the half second in which its thread ends.
THOROUGH = [
    f"{TESTS}/test_native_connector_l2_adapter.py",
]

pytestmark = pytest.mark.skipif(not SOURCE.exists(), reason="./dev environments brings the source")


def run(files: list[str], folder: Path) -> None:
    """From another folder: the archive's own package has no compiled modules."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "l2_in_place"]
    command += ["-c", os.devnull, "--rootdir", str(SOURCE), "--import-mode=importlib"]
    for name in LEFT_OUT:
        command += ["-k", f"not {name}"]
    command += [str(SOURCE / file) for file in files]
    paths = [str(HERE), str(ROOT / "tests" / "python")]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.timeout(600)
def test_the_contract(tmp_path: Path) -> None:
    run(QUICK, tmp_path)


@pytest.mark.timeout(600)
@pytest.mark.skipif(os.environ.get("PENSTOCK_TEST_TIER") != "full", reason="in the full tier")
def test_the_bridge_for_connectors(tmp_path: Path) -> None:
    run(THOROUGH, tmp_path)
