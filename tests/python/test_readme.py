"""The README's examples are the real thing: run here, or equal to a file that is built and run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("number", range(4))
def test_the_python_examples_run(tmp_path: Path, number: int) -> None:
    example = blocks("python")[number]
    assert len(blocks("python")) == 4
    script = tmp_path / "example.py"
    script.write_text(example, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""


def test_the_cpp_example_is_the_one_that_is_built_and_run() -> None:
    (example,) = blocks("cpp")
    source = (ROOT / "examples" / "cmake" / "writer.cpp").read_text(encoding="utf-8")
    assert example == source


def test_the_two_commands_come_first() -> None:
    commands = [line.split("#")[0].strip() for line in blocks("sh")[0].splitlines()]
    assert commands == ["./dev demo", "./dev test"]
