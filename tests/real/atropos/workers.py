"""Programs beside the tests that start quickly: atroposlib is not imported here."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
from typing import Any
from urllib.parse import urlsplit

from penstock.integrations.atropos import ZeroCopySHMBuffer

__all__ = [
    "ENTRY",
    "ROWS",
    "SIZE",
    "WORKERS",
    "die_in_mid_post",
    "metadata_of",
    "row_of",
    "stop_in_mid_post",
    "stress",
    "work",
]

_WITHIN = 60.0

WORKERS, ROWS = 4, 500
SIZE, ENTRY = 256, 4096  # of the ring


def row_of(worker: int, number: int) -> list[int]:
    """A row that would differ if it were torn or mixed."""
    length = random.Random(worker * ROWS + number).choice([1, 64, 512, ENTRY])
    return [worker * ROWS + number] * length


def metadata_of(worker: int) -> dict[str, Any]:
    return {"env": worker, "logprobs": [-0.5] * 30}


def work(name: str, worker: int, barrier: Any) -> None:
    ring = ZeroCopySHMBuffer(name=name, create=False)
    barrier.wait(_WITHIN)
    for number in range(ROWS):
        metadata = metadata_of(worker)
        row = row_of(worker, number)
        while not ring.write_trajectory(row, float(number), f"worker_{worker}", number, metadata):
            pass
    ring.close()


def stress(name: str, rows: int) -> None:
    ring = ZeroCopySHMBuffer(name, size=640, entry_size=512)  # as a launcher does
    for number in range(rows):
        tokens = [number] * 512
        while not ring.write_trajectory(tokens, 1.0, instance_id="stress", rep_id=number):
            pass
    ring.close()


def _half_a_post(address: str) -> socket.socket:
    """A connection on which half of a group was sent."""
    body = json.dumps({"tokens": [[1] * 4096], "masks": [[1] * 4096], "scores": [1.0]}).encode()
    at = urlsplit(address)
    connection = socket.create_connection((at.hostname, at.port), _WITHIN)
    head = f"POST /scored_data HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body[: len(body) // 2])
    return connection


def die_in_mid_post(address: str) -> None:
    with _half_a_post(address):
        os.kill(os.getpid(), signal.SIGKILL)


def stop_in_mid_post(address: str) -> None:
    with _half_a_post(address):
        os.kill(os.getpid(), signal.SIGSTOP)
