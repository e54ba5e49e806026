"""Groups to Atropos' own server and to Penstock, in one run: put and take of whole groups of lists.

Runs in an environment with the real atroposlib (build/atropos, which the tests make):

    build/atropos/bin/python bench/python/bench_atropos_transport.py [--quick]

As in the programs: an environment has lists, posts them as gzipped JSON and waits; the trainer
requests a batch and has lists again. Contenders take turns in one process, beside their servers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import json
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import requests
from http_links import TRAINER, Server
from processes import new_name, run_guarded
from report import print_record

from penstock.integrations.atropos import BatchSource, Transport

SEQUENCES = 8
TOKENS = 4096
WITHIN = 60.0


def make_group() -> dict[str, Any]:
    """A group as from an engine: a quarter is prompt."""
    dice = random.Random(1)
    tokens = [[dice.randrange(128_000) for _ in range(TOKENS)] for _ in range(SEQUENCES)]
    prompt = TOKENS // 4
    return {
        "tokens": tokens,
        "masks": [[-100] * prompt + row[prompt:] for row in tokens],
        "scores": [dice.random() for _ in range(SEQUENCES)],
        "inference_logprobs": [
            [1.0] * prompt + [-dice.random() for _ in range(TOKENS - prompt)] for _ in tokens
        ],
    }


class Http:
    """The client's defaults on both sides: gzip for large bodies."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self._address = address
        self._session = requests.Session()
        body = {**TRAINER, "batch_size": SEQUENCES, "max_token_len": TOKENS}
        self._session.post(f"{address}/register", json=body, timeout=WITHIN).raise_for_status()
        self._session.get(f"{address}/batch", timeout=WITHIN)

    def put(self, group: dict[str, Any]) -> None:
        body = gzip.compress(json.dumps(group).encode())
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        url = f"{self._address}/scored_data"
        self._session.post(url, data=body, headers=headers, timeout=WITHIN).raise_for_status()

    def take(self) -> dict[str, Any]:
        while True:
            answer = self._session.get(f"{self._address}/batch", timeout=WITHIN).json()
            if answer["batch"]:
                (group,) = answer["batch"]
                return dict(group)

    def close(self) -> None:
        self._session.close()


class SharedMemory:
    """``transport="shm"``, and a trainer that wants lists."""

    name = "penstock, shared memory"

    def __init__(self, queue: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._source = BatchSource.open(queue, sequences=SEQUENCES)
        self._transport = self._loop.run_until_complete(
            Transport.attach(queue, environment="bench", group_size=SEQUENCES, env_id=0)
        )

    def put(self, group: dict[str, Any]) -> None:
        self._loop.run_until_complete(self._transport.put([group]))

    def take(self) -> dict[str, Any]:
        (group,) = self._source.get(WITHIN)["batch"]
        return dict(group)

    def close(self) -> None:
        self._transport.close()
        self._source.close()
        self._loop.close()


class Arrays(SharedMemory):
    """The same, and a trainer that uses the arrays of ``next_batch()``."""

    name = "penstock, shared memory, arrays"

    def take(self) -> dict[str, Any]:
        with self._source.reader.next_batch(SEQUENCES, timeout=WITHIN) as batch:
            return {name: batch[name] for name in batch}


def timed(call: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    begin = time.perf_counter()
    value = call(*arguments)
    return time.perf_counter() - begin, value


def check(group: dict[str, Any], taken: dict[str, Any]) -> None:
    for name in ("tokens", "masks", "inference_logprobs"):
        column = taken[name] if isinstance(taken[name], list) else taken[name].tolist()
        if column != group[name]:
            raise RuntimeError(f"{name} came out as something else")


def start_atropos() -> tuple[subprocess.Popen[bytes], str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "atroposlib.cli.run_api", "--host", "127.0.0.1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*command, "--port", str(port)], **quiet)  # type: ignore[call-overload]
    address = f"http://127.0.0.1:{port}"
    end = time.monotonic() + WITHIN
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(requests.exceptions.ConnectionError):
            requests.get(f"{address}/info", timeout=WITHIN)
            return process, address
        time.sleep(0.1)
    raise RuntimeError("Atropos' own server did not start")


def run(turns: int) -> None:
    group = make_group()
    process, theirs = start_atropos()
    server = Server(new_name())
    links = [
        Http("atropos' own server", theirs),
        Http("penstock, http", f"http://127.0.0.1:{server.port}"),
        SharedMemory(new_name()),
        Arrays(new_name()),
    ]
    puts: list[list[float]] = [[] for _ in links]
    takes: list[list[float]] = [[] for _ in links]
    for turn in range(turns + 1):
        for link, put, take in zip(links, puts, takes, strict=True):
            put_seconds, _ = timed(link.put, group)
            take_seconds, taken = timed(link.take)
            check(group, taken)
            if turn > 0:  # the first warms up
                put.append(put_seconds)
                take.append(take_seconds)
    for link in links:
        link.close()
    server.close()
    process.send_signal(signal.SIGKILL)
    process.wait()
    both = [
        statistics.median(map(sum, zip(*one, strict=True))) for one in zip(puts, takes, strict=True)
    ]
    for link, put, take, sum_of_both in zip(links, puts, takes, both, strict=True):
        print_record(
            "python_atropos_transport",
            link.name,
            sequences=SEQUENCES,
            tokens=TOKENS,
            put_ms=1e3 * statistics.median(put),
            take_ms=1e3 * statistics.median(take),
            both_ms=1e3 * sum_of_both,
            times_atropos=both[0] / sum_of_both,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    turns = 3 if parser.parse_args().quick else 15
    return run_guarded(300, lambda: run(turns))


if __name__ == "__main__":
    sys.exit(main())
