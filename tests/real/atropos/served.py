"""Servers for tests with the real atroposlib: Penstock's, and Atropos' own beside it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import requests

WITHIN = 60.0  # seconds, a bound for everything
PENSTOCK = [sys.executable, "-m", "penstock.cli.main", "trajectories", "serve"]


def penstock_command(queue: str) -> list[str]:
    """The replacement of ``run-api``, on a free port that its first line on stderr names."""
    return [*PENSTOCK, "--queue", queue, "--fresh", "--host", "localhost", "--port", "0"]


def address_in(line: str) -> str:
    assert "http://" in line, line
    return line.split()[-1]


@contextlib.contextmanager
def penstock_server(queue: str | None = None) -> Iterator[str]:
    """Run ``penstock trajectories serve``; its address."""
    command = penstock_command(queue or f"atropos-{uuid.uuid4().hex[:8]}")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = address_in(process.stderr.readline())
            yield address
            requests.get(f"{address}/reset_data", timeout=WITHIN)  # an empty queue leaves nothing
        finally:
            process.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def atropos_server() -> Iterator[str]:
    """Run ``run-api``, which does not report when it is ready; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "atroposlib.cli.run_api", "--host", "127.0.0.1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*command, "--port", str(port)], **quiet) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(address, process)
            yield address
        finally:
            os.kill(process.pid, signal.SIGKILL)


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + WITHIN
    while True:
        with contextlib.suppress(requests.exceptions.ConnectionError):
            requests.get(f"{address}/info", timeout=WITHIN)
            return
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError("Atropos' own server did not start")
        time.sleep(0.05)


def register(address: str, batch_size: int, max_token_len: int = 0, **fields: object) -> None:
    """Register as a trainer does."""
    body = {
        "wandb_group": "g",
        "wandb_project": "p",
        "batch_size": batch_size,
        "max_token_len": max_token_len,
        "checkpoint_dir": "/ckpt",
        "save_checkpoint_interval": 0,
        "starting_step": 0,
        "num_steps": 100_000,
        **fields,
    }
    requests.post(f"{address}/register", json=body, timeout=WITHIN).raise_for_status()
