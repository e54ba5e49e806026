"""LMCache's server and `penstock lmcache serve` as child processes of a benchmark, and the
processor time that they use; and the time of a plain copy on this machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from processes import die_with_parent

STARTED_WITHIN = 600.0  # seconds: imports take minutes on a busy machine
ENDED_WITHIN = 60.0


@dataclass(frozen=True)
class Running:
    """A server that is ready."""

    address: str
    pid: int

    def processor_seconds(self) -> float:
        """The processor time of all its threads so far."""
        texts = [file.read_text() for file in Path(f"/proc/{self.pid}/task").glob("*/schedstat")]
        return sum(int(text.split()[0]) for text in texts) / 1e9


def memcpy_milliseconds(nbytes: int) -> float:
    """Milliseconds to copy so many bytes, from warm memory to warm memory."""
    source, target = torch.ones(nbytes, dtype=torch.uint8), torch.ones(nbytes, dtype=torch.uint8)
    taken = []
    for _ in range(15):
        begin = time.perf_counter()
        target.copy_(source)
        taken.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(taken)


@contextlib.contextmanager
def lmcache_server(pool: str, gibibytes: int, chunk_tokens: int) -> Iterator[Running]:
    """LMCache's own, with a pool in shared memory of that name; ready when this yields."""
    with free_port() as port, free_port() as http_port:
        command = [
            os.path.join(os.path.dirname(sys.executable), "lmcache"), "server",
            "--host", "127.0.0.1", "--port", str(port), "--http-port", str(http_port),
            "--l1-size-gb", str(gibibytes), "--no-l1-use-lazy", "--shm-name", pool,
            "--supported-transfer-mode", "engine_driven", "--chunk-size", str(chunk_tokens),
            "--eviction-policy", "LRU",
        ]  # fmt: skip
    with _running(command, port) as server:
        yield server


@contextlib.contextmanager
def penstock_server(pool: str, gibibytes: int, chunk_tokens: int) -> Iterator[Running]:
    """Penstock's, over a store of that name; ready when this yields."""
    with free_port() as port:
        command = [
            sys.executable, "-m", "penstock.cli.main", "lmcache", "serve", "--pool", pool,
            "--port", str(port), "--capacity", f"{gibibytes}GiB", "--populate",
            "--chunk-tokens", str(chunk_tokens),
        ]  # fmt: skip
    with _running(command, port) as server:
        yield server


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    """A port that no other process takes before the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


@contextlib.contextmanager
def _running(command: list[str], port: int) -> Iterator[Running]:
    with tempfile.TemporaryFile("w+") as log:
        # Ended in good order, so that it removes its files in /dev/shm.
        process = subprocess.Popen(
            command, stdout=log, stderr=log, preexec_fn=lambda: die_with_parent(signal.SIGTERM)
        )
        try:
            _wait_for(port, process)
            yield Running(f"tcp://127.0.0.1:{port}", process.pid)
        except BaseException:
            log.seek(0)
            print(log.read()[-4000:], file=sys.stderr)
            raise
        finally:
            _end(process)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + STARTED_WITHIN
    while process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if time.monotonic() > end:
            raise RuntimeError(f"{process.args} did not come up")
        time.sleep(0.1)
    raise RuntimeError(f"{process.args} ended with {process.returncode}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(ENDED_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
