"""LMCache's own tests of the L2 adapter contract, from its source archive, run on Penstock's
adapters (l2_in_place.py). Their assertions are unchanged."""

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

# All tests are run.
QUICK = [
    f"{TESTS}/test_mock_l2_adapter.py",
    f"{TESTS}/test_fault_inject_l2_adapter.py",
    "examples/lmc_external_l2_adapter/tests/test_plugin.py",
]
# The users of an adapter: each file of the archive that mocks one.
CONTROLLERS = [
    f"{TESTS}/test_store_controller.py",
    f"{TESTS}/test_prefetch_controller.py",
    f"{TESTS}/test_distributed_storage_manager.py",
    f"{TESTS}/test_runtime_adapters.py",
    f"{TESTS}/test_cache_salt_l2_eviction.py",
    f"{TESTS}/test_report_status.py",
    f"{TESTS}/test_l1_l2_state_metrics.py",
    f"{TESTS}/serde/test_serde_e2e.py",
]
# LMCache's bridge for connectors: each test takes the half second in which its thread ends.
BRIDGE = [f"{TESTS}/test_native_connector_l2_adapter.py"]

in_the_full_tier = pytest.mark.skipif(
    os.environ.get("PENSTOCK_TEST_TIER") != "full", reason="in the full tier"
)
pytestmark = pytest.mark.skipif(not SOURCE.exists(), reason="./dev environments brings the source")


def run(files: list[str], folder: Path) -> None:
    """Run from another folder: the archive's own package has no compiled modules."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "l2_in_place"]
    command += ["-c", os.devnull, "--rootdir", str(SOURCE), "--import-mode=importlib"]
    command += [str(SOURCE / file) for file in files]
    paths = [str(HERE), str(ROOT / "tests" / "python")]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=570,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout


@pytest.mark.timeout(600)
def test_the_contract(tmp_path: Path) -> None:
    run(QUICK, tmp_path)


@in_the_full_tier
@pytest.mark.timeout(600)
def test_the_controllers(tmp_path: Path) -> None:
    run(CONTROLLERS, tmp_path)


@in_the_full_tier
@pytest.mark.timeout(600)
def test_the_bridge_for_connectors(tmp_path: Path) -> None:
    run(BRIDGE, tmp_path)
