"""Run by `./dev wheel` with the Python of a clean environment: the wheel alone must work.

Two processes, arrays in and out, the command, the stubs. Exits nonzero on any failure.
"""

import multiprocessing
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np

import penstock

NAME = f"wheel-smoke-{os.getpid()}"


def receive(handle, results) -> None:
    with penstock.Broadcast.attach(handle, rank=0, timeout=30) as reader:
        message = reader.recv(timeout=30)
        results.put((message["step"], int(message["tokens"].sum())))


def main() -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    tokens = np.arange(1000, dtype=np.int32)
    with penstock.Broadcast.create(NAME, readers=1) as writer:
        process = context.Process(target=receive, args=(writer.handle, results))
        process.start()
        writer.send({"step": 1, "tokens": tokens}, timeout=30)
        received = results.get(timeout=60)
        process.join(30)
    assert received == (1, int(tokens.sum())), received
    assert not Path(f"/dev/shm/penstock.{NAME}").exists()

    package = Path(penstock.__file__).parent
    assert Path(sys.prefix) in package.parents, f"not the wheel: {package}"
    assert (package / "py.typed").exists()
    assert (package / "_core.pyi").exists()
    assert not list(package.rglob("*.hpp")), "the wheel carries C++ headers"

    command = Path(sys.executable).with_name("penstock")
    assert subprocess.run([command, "ls", "--json"], check=True, capture_output=True).stdout
    demo = subprocess.run([command, "demo"], check=False, capture_output=True, text=True)
    assert demo.returncode == 1, demo
    assert "./dev demo" in demo.stderr, demo.stderr
    print(f"penstock {metadata.version('penstock')}: the wheel works alone")


if __name__ == "__main__":
    main()
