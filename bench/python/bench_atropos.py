"""A group posted and a batch taken: Atropos' own server and Penstock's, in turns of one run.

    build/atropos/bin/python bench/python/bench_atropos.py [--turns 15]

The body is a BaseEnv's, gzip of 8 sequences of 4096 tokens with masks and logprobs, then the same
uncompressed; the answer is the one that the example trainer requests. The clock stops while the
client packs, unpacks and parses, which is the same for both.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

from report import print_record

SEQUENCES, TOKENS, PROMPT = 8, 4096, 1024
PATIENCE = 60.0
TRAINER = {
    "wandb_group": "bench",
    "wandb_project": "bench",
    "batch_size": SEQUENCES,
    "max_token_len": TOKENS,
    "checkpoint_dir": "",
    "save_checkpoint_interval": 0,
    "starting_step": 0,
    "num_steps": 1,
}
ASKS = {"Content-Type": "application/json", "Accept-Encoding": "gzip, deflate"}


class Server:
    """A server in its own process. Each request has its own connection, as BaseEnv's have."""

    def __init__(self, name: str, command: list[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.name = name
        self.posted: list[float] = []
        self.posted_plain: list[float] = []
        self.taken: list[float] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._port = port
        self._wait()
        self.ask("POST", "/register", json.dumps(TRAINER).encode())

    def _wait(self) -> None:
        end = time.monotonic() + PATIENCE
        while not self._is_there():
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError(f"{self.name} did not start")
            time.sleep(0.05)

    def _is_there(self) -> bool:
        try:
            self.ask("GET", "/info")
        except ConnectionRefusedError:
            return False
        return True

    def ask(self, method: str, route: str, body: bytes | None = None, **more: str) -> Any:
        """(seconds, answer's bytes, their Content-Encoding)."""
        headers = {**ASKS, **{name.replace("_", "-"): value for name, value in more.items()}}
        begun = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            connection.request(method, route, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        took = time.perf_counter() - begun
        if answer.status != 200:
            raise RuntimeError(f"{self.name}, {route}: {answer.status} {content[:200]!r}")
        return took, content, answer.headers.get("Content-Encoding")

    def turn(self, packed: bytes, plain: bytes, group: dict[str, Any]) -> None:
        took, _, _ = self.ask("POST", "/scored_data", packed, Content_Encoding="gzip")
        self.posted.append(took)
        self.take(group)
        took, _, _ = self.ask("POST", "/scored_data", plain)
        self.posted_plain.append(took)
        self.take(group)

    def take(self, group: dict[str, Any]) -> None:
        took, content, encoding = self.ask("GET", "/batch")
        self.taken.append(took)
        (came,) = json.loads(gzip.decompress(content) if encoding == "gzip" else content)["batch"]
        for name, values in group.items():
            if came[name] != values:
                raise RuntimeError(f"{self.name}: {name} came back as something else")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


def make_group() -> dict[str, Any]:
    dice = random.Random(1)
    tokens = [[dice.randrange(128_000) for _ in range(TOKENS)] for _ in range(SEQUENCES)]
    return {
        "tokens": tokens,
        "masks": [[-100] * PROMPT + row[PROMPT:] for row in tokens],
        "scores": [float(at) for at in range(SEQUENCES)],
        "inference_logprobs": [
            [1.0] * PROMPT + [-5 * dice.random() for _ in range(TOKENS - PROMPT)]
            for _ in range(SEQUENCES)
        ],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=15)
    turns = parser.parse_args().turns
    group = make_group()
    plain = json.dumps(group).encode()
    packed = gzip.compress(plain)
    queue = ["--queue", f"bench-atropos-{os.getpid()}", "--fresh"]
    servers = [
        Server("Atropos", ["atroposlib.cli.run_api"]),
        Server("Penstock", ["penstock.cli.main", "trajectories", "serve", *queue]),
    ]
    try:
        for _ in range(turns + 1):  # the first is the warm-up
            for server in servers:
                server.turn(packed, plain, group)
        medians = []
        for server in servers:
            turns_ms = {
                "post": [1e3 * one for one in server.posted[1:]],
                "plain_post": [1e3 * one for one in server.posted_plain[1:]],
                "batch": [1e3 * one for one in server.taken[2:]],
            }
            medians.append({name: statistics.median(times) for name, times in turns_ms.items()})
            print_record(
                "python_atropos",
                server.name,
                sequences=SEQUENCES,
                tokens=TOKENS,
                body_bytes=len(packed),
                plain_body_bytes=len(plain),
                **{f"{name}_ms": median for name, median in medians[-1].items()},
                **{f"turn_{name}_ms": times for name, times in turns_ms.items()},
            )
        theirs, ours = medians
        post, plain_post, batch = (theirs[name] / ours[name] for name in theirs)
        print(
            f"POST of gzip {post:.1f} times as fast, plain {plain_post:.1f} times, "
            f"GET /batch {batch:.1f} times",
            file=sys.stderr,
        )
    finally:
        for server in servers:
            server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
