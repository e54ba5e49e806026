"""A real engine, two workers: the same token ids with vLLM's own modules and with Penstock's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from engines import WITHIN, Run, generate
from environment import OWN, PENSTOCK

pytestmark = pytest.mark.timeout(3 * WITHIN)

ACTIVE = r"Penstock is vLLM \S+'s message queue and object store in (\S+) \(pid \d+\)"


def check_penstock_was_used(run: Run) -> None:
    """By every process, for all queues, of which none is left."""
    processes = set(re.findall(ACTIVE, run.log))
    assert {"MainProcess", "EngineCore", "VllmWorker-0", "VllmWorker-1"} <= processes, run.log
    queues = [name for name in run.segments if name.startswith("penstock.vllm-mq-")]
    assert len(queues) == 4, run.segments  # to the workers, from each, and between them
    assert not any(name.startswith("psm_") for name in run.segments)
    assert run.left == []


def test_text(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    theirs = generate(llama, tmp_path_factory.mktemp("own"), OWN)
    ours = generate(llama, tmp_path_factory.mktemp("penstock"), PENSTOCK)
    assert "Penstock" not in theirs.log
    assert ours.tokens == theirs.tokens
    assert len({tuple(one) for one in ours.tokens[0]}) == 8, "each prompt has its own answer"
    check_penstock_was_used(ours)
    print(f"seconds for 480 tokens: {theirs.seconds} with vLLM's modules, {ours.seconds}")
    for rate, processors in theirs.paced_processors.items():
        print(f"processors at {rate} steps/s: {processors:.3f}, {ours.paced_processors[rate]:.3f}")
    # At 50 the workers' own work takes all of the time between two steps, where a processor needs
    # 12 ms for each: then there is no wait to compare.
    assert ours.paced_processors["50"] < 1.1 * theirs.paced_processors["50"]
    assert ours.paced_processors["5"] < theirs.paced_processors["5"] / 5, "readers sleep"


@pytest.fixture(scope="module")
def images_of_vllm(paligemma: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = generate(paligemma, tmp_path_factory.mktemp("own"), OWN, images=True)
    assert len({tuple(one) for one in run.tokens[0]}) == 4, "each image has its own answer"
    return run


@pytest.mark.parametrize(
    "engine",
    [
        {"mm_processor_cache_type": "shm"},
        {"mm_processor_cache_type": "lru"},
        {"mm_processor_cache_type": "lru", "enable_shm_tensor_arena": True},
    ],
    ids=["shm", "lru", "arena"],
)
def test_images(
    engine: dict[str, object], images_of_vllm: Run, paligemma: Path, tmp_path: Path
) -> None:
    ours = generate(paligemma, tmp_path, PENSTOCK, images=True, **engine)
    assert ours.tokens == images_of_vllm.tokens
    check_penstock_was_used(ours)
    has_store = any(name.startswith("penstock.vllm_mm_") for name in ours.segments)
    assert has_store == (engine["mm_processor_cache_type"] == "shm"), ours.segments
