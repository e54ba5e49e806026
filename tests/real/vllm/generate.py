"""A program: makes an engine of the model in a folder, has it answer prompts, and writes the token
ids and what it took to a file as JSON.

    generate.py FOLDER OUTPUT [--images] [--engine '{"mm_processor_cache_type": "shm"}']
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from environment import ENGINE

TOKENS = 60
PACES = {50: 250, 5: 50}  # steps a second, and how many


def text_prompts() -> list[Any]:
    return [{"prompt_token_ids": [1, *range(7 + 13 * one, 17 + 13 * one)]} for one in range(8)]


def image_prompts() -> list[Any]:
    """Four images, of which each comes again."""
    import numpy as np
    from PIL import Image
    from tiny_models import IMAGE_SIDE

    prompts = []
    for seed in range(4):
        pixels = np.random.default_rng(seed).integers(0, 256, (IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8)
        image = Image.fromarray(pixels)
        prompts.append({"prompt": "w7 w8", "multi_modal_data": {"image": image}})
    return prompts


def workers_seconds() -> float:
    """Processor time that the workers of the engines on this machine took."""
    ticks = 0
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if b"VLLM::Worker" in (entry / "cmdline").read_bytes():
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def answer(engine: Any, prompts: list[Any], tokens: int) -> list[list[int]]:
    from vllm import SamplingParams

    asked = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
    answers = engine.generate(prompts, asked, use_tqdm=False)
    return [list(one.outputs[0].token_ids) for one in answers]


def paced(engine: Any, prompts: list[Any], rate: int) -> float:
    """Processors that the workers use at that many steps a second: a request of one token each."""
    answer(engine, prompts, 1)
    began, used = time.monotonic(), workers_seconds()
    for step in range(PACES[rate]):
        time.sleep(max(0.0, began + step / rate - time.monotonic()))
        answer(engine, prompts, 1)
    return (workers_seconds() - used) / (time.monotonic() - began)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("output", type=Path)
    parser.add_argument("--images", action="store_true")
    parser.add_argument("--engine", type=json.loads, default={})
    arguments = parser.parse_args()
    from vllm import LLM

    engine = LLM(arguments.folder, **ENGINE, **arguments.engine)
    found: dict[str, Any] = {"tokens": [], "seconds": [], "workers_seconds": []}
    prompts = image_prompts() if arguments.images else text_prompts()
    # Images again, which are in the cache then, and once more after it was emptied.
    for turn in range(3):
        if arguments.images and turn == 2:
            engine.reset_mm_cache()
        began, used = time.monotonic(), workers_seconds()
        found["tokens"].append(answer(engine, prompts, TOKENS))
        found["seconds"].append(time.monotonic() - began)
        found["workers_seconds"].append(workers_seconds() - used)
    rates = [] if arguments.images else PACES
    found["paced_processors"] = {str(rate): paced(engine, prompts[:1], rate) for rate in rates}
    found["segments"] = sorted(os.listdir("/dev/shm"))
    arguments.output.write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
