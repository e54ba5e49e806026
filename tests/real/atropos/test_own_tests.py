"""Atropos' own tests, run on Penstock's replacements. Their assertions are unchanged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("atroposlib", reason="needs the real atroposlib")
import queue_in_place_of_utils
from atroposlib.api import utils
from tiers import in_full_tier

pytestmark = pytest.mark.timeout(240)  # whole suites, which start servers and sleep

API = ("test_api_legacy", "test_api_compression", "test_api_messages_handling")
UTILS = ("test_heterogeneous_packing", "test_heterogeneous_batching", "test_min_batch_allocation")


def run(plugin: str, modules: list[str], report: Path) -> dict[str, str]:
    """The outcome of each test: "passed", or its error."""
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


@in_full_tier
def test_the_server_passes_the_tests_of_atropos_server(tmp_path: Path) -> None:
    modules = [f"atroposlib.tests.{one}" for one in API]
    outcomes = run("in_place_of_run_api", modules, tmp_path / "report.xml")
    assert {name: one for name, one in outcomes.items() if one != "passed"} == {}
    assert len(outcomes) == 36


@in_full_tier
def test_a_queue_makes_the_batches_of_atropos_functions(tmp_path: Path) -> None:
    """All but one: test_heterogeneous_envs expects no batch where a correct one exists, as shown
    below."""
    modules = [f"atroposlib.tests.test_utils.{one}" for one in UTILS]
    outcomes = run("queue_in_place_of_utils", modules, tmp_path / "report.xml")
    failed = {name for name, one in outcomes.items() if one != "passed"}
    assert failed == {"test_heterogeneous_envs"}
    assert len(outcomes) == 33


def test_a_right_batch_is_found_where_atropos_function_finds_none() -> None:
    """The queue and the minimum shares of its test_heterogeneous_envs."""
    sizes = {0: [2], 6: [2, 2, 2], 2: [4] * 5, 3: [8] * 3}  # of groups, by environment
    waiting = [
        {"tokens": [[at]] * size, "env_id": env_id}
        for env_id, groups in sizes.items()
        for at, size in enumerate(groups)
    ]
    minima = {0: 0.1, 3: 0.5}
    configs = [
        {"registered_id": env_id, "connected": True, "min_batch_allocation": share}
        for env_id, share in minima.items()
    ]
    theirs, _ = utils.grab_batch_with_minimum_allocations(list(waiting), 16, configs)
    assert theirs is None
    batch, rest = queue_in_place_of_utils.grab_batch_with_minimum_allocations(waiting, 16, configs)
    assert sum(len(one["tokens"]) for one in batch) == 16
    for env_id, share in minima.items():
        came = sum(len(one["tokens"]) for one in batch if one["env_id"] == env_id)
        assert came >= 16 * share
    assert sorted(map(id, batch + rest)) == sorted(map(id, waiting))  # each once, whole
