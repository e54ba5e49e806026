"""The README's examples are real: run here, or equal to a file that is built and run. The second
tier's example needs a server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from redis_server import RedisServer, why_no_server

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def run_example(example: str, folder: Path, **environment: str) -> None:
    script = folder / "example.py"
    script.write_text(example, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""


@pytest.mark.parametrize("number", range(4))
def test_the_python_examples_run(tmp_path: Path, number: int) -> None:
    assert len(blocks("python")) == 4
    run_example(blocks("python")[number], tmp_path)


@pytest.mark.skipif(bool(why_no_server), reason=why_no_server)
def test_the_example_of_the_second_tier_runs(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "second_tier.md").read_text(encoding="utf-8")
    (example,) = blocks("python", text)
    server = RedisServer(tmp_path)
    try:
        run_example(example, tmp_path, PENSTOCK_SECOND_TIER=server.url)
        assert len([name for name in server.names() if ":o:" in name]) == 100
    finally:
        server.kill()


def test_the_cpp_example_is_the_one_that_is_built_and_run() -> None:
    (example,) = blocks("cpp")
    source = (ROOT / "examples" / "cmake" / "writer.cpp").read_text(encoding="utf-8")
    assert example == source


def test_the_two_commands_come_first() -> None:
    commands = [line.split("#")[0].strip() for line in blocks("sh")[0].splitlines()]
    assert commands == ["./dev demo", "./dev test"]
