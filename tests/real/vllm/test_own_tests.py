"""vLLM's own tests of the two modules, from its source archive, on its own modules and on Penstock's.
Their assertions are unchanged. WHITE_BOX lists those that hold for one design only, with the test of
ours that says the same by behaviour; every other one passes on both."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from environment import OWN, PENSTOCK, environment

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[2] / "build" / "vllm-src"
TESTS = SOURCE / "tests"
FILES = (
    "distributed/test_shm_broadcast.py",
    "distributed/test_shm_buffer.py",
    "distributed/test_shm_storage.py",
    "distributed/test_mq_connect_ip.py",
    "v1/executor/test_multiproc_executor.py",
    "v1/executor/test_multiproc_executor_timeout.py",
    "multimodal/test_cache.py",
)
WITHIN = 900  # seconds

#: The test, what of vLLM's design it asks for, and the file and test of ours.
WHITE_BOX = {
    "test_message_queue_idle_wake": (
        "counts the calls of SpinCondition.wait in a spinning reader; ours sleeps in one call",
        "python/test_vllm_queue.py::test_an_idle_reader_uses_no_processor_and_wakes",
    ),
}

pytestmark = pytest.mark.skipif(not SOURCE.exists(), reason="./dev vllm brings the source")


def outcomes(modules: str, folder: Path) -> dict[str, str]:
    """Of each test: "passed", "skipped", or its error."""
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "own_conftest", "-c", os.devnull, "--rootdir", str(TESTS), "--noconftest"]
    command += ["--import-mode=importlib", f"--junitxml={report}", "--timeout=300"]
    command += [str(TESTS / file) for file in FILES]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**environment(modules), "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout[-4000:] + done.stderr[-4000:]
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        problem = next((one for one in case if one.tag in ("failure", "error", "skipped")), None)
        outcome = "passed"
        if problem is not None:
            outcome = "skipped" if problem.tag == "skipped" else problem.get("message", "failed")
        found[case.get("name", "")] = outcome
    return found


@pytest.mark.timeout(WITHIN + 60)
def test_on_vllms_modules(tmp_path: Path) -> None:
    found = outcomes(OWN, tmp_path)
    assert {name: one for name, one in found.items() if one not in ("passed", "skipped")} == {}
    assert sum(one == "passed" for one in found.values()) == 112


@pytest.mark.timeout(WITHIN + 60)
def test_on_penstock(tmp_path: Path) -> None:
    found = outcomes(PENSTOCK, tmp_path)
    failed = {name for name, one in found.items() if one not in ("passed", "skipped")}
    assert failed == set(WHITE_BOX), {name: found[name] for name in failed ^ set(WHITE_BOX)}
    assert sum(one == "passed" for one in found.values()) == 112 - len(WHITE_BOX)


@pytest.mark.parametrize("name", WHITE_BOX)
def test_what_is_left_out_is_tested_here(name: str) -> None:
    _, ours = WHITE_BOX[name]
    file, _, function = ours.partition("::")
    text = (HERE.parents[1] / file).read_text()
    assert re.search(rf"^(async )?def {function}\(", text, re.MULTILINE), ours
