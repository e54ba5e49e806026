"""Atropos' own tests, with Penstock in the place of what they test. Their assertions are theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("atroposlib", reason="needs the real atroposlib")

pytestmark = pytest.mark.timeout(240)  # whole suites, which start servers and sleep

API = ("test_api_legacy", "test_api_compression", "test_api_messages_handling")
UTILS = ("test_heterogeneous_packing", "test_heterogeneous_batching", "test_min_batch_allocation")


def run(plugin: str, modules: list[str], report: Path) -> dict[str, str]:
    """The outcome of each test: "passed", or what it said."""
    here = str(Path(__file__).parent)
    options = ["-p", plugin, "-p", "no:cacheprovider", f"--junitxml={report}", "--pyargs"]
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, *modules],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])},
        cwd=report.parent,
        stdout=subprocess.DEVNULL,
        timeout=170,
        check=False,
    )
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        wrong = next(iter(case), None)
        outcomes[case.get("name", "")] = "passed" if wrong is None else wrong.get("message", "?")
    return outcomes


def test_the_server_passes_the_tests_of_atropos_server(tmp_path: Path) -> None:
    modules = [f"atroposlib.tests.{one}" for one in API]
    outcomes = run("in_place_of_run_api", modules, tmp_path / "report.xml")
    assert {name: one for name, one in outcomes.items() if one != "passed"} == {}
    assert len(outcomes) == 36


def test_a_queue_makes_the_batches_of_atropos_functions(tmp_path: Path) -> None:
    """But for one: test_heterogeneous_envs wants no batch where there is a right one."""
    modules = [f"atroposlib.tests.test_utils.{one}" for one in UTILS]
    outcomes = run("queue_in_place_of_utils", modules, tmp_path / "report.xml")
    failed = {name for name, one in outcomes.items() if one != "passed"}
    assert failed == {"test_heterogeneous_envs"}
    assert len(outcomes) == 33
