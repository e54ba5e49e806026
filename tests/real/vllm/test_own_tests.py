"""vLLM's own tests of the two modules, from its source archive, on its own modules and on
Penstock's. Their assertions are unchanged. WHITE_BOX lists those that hold for one design only,
with the test of ours that says the same by behaviour; every other one passes on both."""

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

COUNTS = "counts calls of vLLM's own functions on the way of a message"
QUEUE = "python/test_vllm_queue.py"
REMOTE = (
    "readers on other machines, which this version does not serve",
    f"{QUEUE}::test_readers_on_other_machines_are_refused_in_words",
)
#: The test, what it asks of vLLM's design, and the file and test of ours.
WHITE_BOX = {
    "test_message_queue_idle_wake": (
        "counts the calls of SpinCondition.wait by a reader that spins; ours sleeps in one call",
        f"{QUEUE}::test_an_idle_reader_uses_no_processor",
    ),
    "test_message_queue_busy_to_idle": (
        "the same",
        f"{QUEUE}::test_an_idle_reader_uses_no_processor",
    ),
    "test_tensor_broadcast": (COUNTS, f"{QUEUE}::test_a_tensor_arrives_as_pickle_carries_it"),
    **{
        f"test_broadcast_retains_values_after_ring_reuse[{case}]": (
            COUNTS,
            f"{QUEUE}::test_what_is_received_is_not_overwritten_by_later_messages",
        )
        for case in (
            "inline-tensor", "inline-numpy", "inline-numpy_readonly", "shm_oob-tensor",
            "shm_oob-numpy", "overflow-tensor", "overflow-numpy", "overflow-numpy_readonly",
        )
    },
    "test_reader_rechecks_shm_after_idle_wait_timeout_without_notify": (
        "replaces the poller of a notification, which may be lost; ours has none",
        f"{QUEUE}::test_an_idle_reader_uses_no_processor",
    ),
    "test_tensor_arena_registry_is_weak_and_survives_shutdown": (
        "reads the registry of vLLM's ShmTensorArena",
        f"{QUEUE}::test_large_tensors_of_an_arena_stay_in_shared_memory",
    ),
    "test_arena_broadcast": (
        "reads the addresses and the list of releases of vLLM's ShmTensorArena",
        f"{QUEUE}::test_large_tensors_of_an_arena_stay_in_shared_memory",
    ),
    "test_blocking_unread_object": (
        "wants an unread object to block all others",
        "python/test_vllm_objects.py::test_an_object_that_was_never_read_blocks_only_itself",
    ),
    "test_remote_subscribe_addr_unique_concurrent_writers": REMOTE,
    "test_mq_bind_with_local_ip": REMOTE,
    "test_mq_bind_with_non_local_ip_fails": REMOTE,
    "test_mq_bind_defaults_to_local_ip": REMOTE,
}  # fmt: skip
#: Whose configuration the tests read from the network, and of what kind it is.
MODELS = {
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": "LlavaOnevision",
    "llava-hf/llava-v1.6-mistral-7b-hf": "LlavaNext",
}

pytestmark = pytest.mark.skipif(not SOURCE.exists(), reason="./dev vllm brings the source")


def make_models(folder: Path) -> None:
    """Folders in the place of names, with what the tests read: configuration and tokenizer."""
    import transformers
    from tiny_models import tokenizer

    for name, kind in MODELS.items():
        config = getattr(transformers, f"{kind}Config")()
        config.architectures = [f"{kind}ForConditionalGeneration"]
        config.save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)


def outcomes(modules: str, folder: Path) -> dict[str, str]:
    """Of each test: "passed", "skipped", or its error."""
    make_models(folder)
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "own_conftest", "-c", os.devnull, "--rootdir", str(TESTS), "--noconftest"]
    command += [f"--junitxml={report}", "--timeout=300"]
    command += ["-o", "asyncio_default_fixture_loop_scope=function"]
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
    assert sum(one == "passed" for one in found.values()) == 118


@pytest.mark.timeout(WITHIN + 60)
def test_on_penstock(tmp_path: Path) -> None:
    found = outcomes(PENSTOCK, tmp_path)
    failed = {name for name, one in found.items() if one not in ("passed", "skipped")}
    assert failed == set(WHITE_BOX), {name: found[name] for name in failed ^ set(WHITE_BOX)}
    assert sum(one == "passed" for one in found.values()) == 118 - len(WHITE_BOX)


@pytest.mark.parametrize("name", WHITE_BOX)
def test_what_is_left_out_is_tested_here(name: str) -> None:
    _, ours = WHITE_BOX[name]
    file, _, function = ours.partition("::")
    text = (HERE.parents[1] / file).read_text()
    assert re.search(rf"^(async )?def {function}\(", text, re.MULTILINE), ours
