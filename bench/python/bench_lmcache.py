"""PoolClient beside LMCache's own worker classes and server, over the same paged cache.

Both take turns in one process, both are warm, and the retrieved chunks are compared with the stored
ones. Run it where lmcache is installed (`./dev` makes build/lmcache):

    build/lmcache/bin/python bench/python/bench_lmcache.py --turns 15

LMCache's path is the one of vLLM's workers on one machine: gather into the server's shared memory,
and requests over ZMQ. It needs no GPU, and nor does this.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lmcache_servers import Running, lmcache_server, memcpy_milliseconds
from processes import new_name, run_guarded
from watch import Watch

from penstock.integrations.lmcache import EngineContext, PoolClient, PoolServer

CHUNK, BLOCK = 256, 16
WIDTH = CHUNK // BLOCK
WITHIN = 60.0  # seconds, for an answer
CAPACITY_GB = 2
LIMIT = 3600  # seconds, for all


@dataclass(frozen=True)
class Case:
    """One size of request."""

    name: str
    chunks: int
    layers: int
    heads: int
    dim: int


STEPS = ("store", "lookup", "retrieve")
CASES = (
    Case("0.25 MiB", 1, 2, 2, 64),
    Case("32 MiB", 1, 16, 16, 128),
    Case("4 x 32 MiB", 4, 16, 16, 128),
    Case("16 x 0.25 MiB", 16, 2, 2, 64),
)


class Cache:
    """An engine's paged cache in vLLM's layout: a tensor [2, blocks, block, heads, dim] per
    layer."""

    def __init__(self, case: Case) -> None:
        self.count = 2 * case.chunks * WIDTH
        shape = (2, self.count, BLOCK, case.heads, case.dim)
        torch.manual_seed(1)
        self.layers = {
            f"model.layers.{number}.self_attn.attn": torch.randn(shape).to(torch.float16)
            for number in range(case.layers)
        }
        self.copied = sum(layer.nbytes for layer in self.layers.values()) // 2
        order = torch.randperm(self.count).tolist()
        self.source, self.target = order[: self.count // 2], order[self.count // 2 :]

    def mark(self, turn: int) -> None:
        for layer in self.layers.values():
            layer[:, self.source, 0, 0, 0] = turn % 1000

    def is_equal(self) -> bool:
        return all(
            torch.equal(layer[:, self.source], layer[:, self.target])
            for layer in self.layers.values()
        )

    def wipe(self) -> None:
        for layer in self.layers.values():
            layer[:, self.target] = 0


class Penstock:
    """A pool on this machine, and its client."""

    def __init__(self, name: str, cache: Cache, populate: bool) -> None:
        self._server = PoolServer.open(name, capacity=f"{CAPACITY_GB}GiB", populate=populate)
        self._client = PoolClient.attach(self._server.name)
        context = EngineContext.of_kv_caches(
            "bench", "model", cache.layers, format="kv_blocks", chunk_tokens=CHUNK
        )
        self._client.register(context, cache.layers, populate=populate)
        self._cache = cache

    def store(self, tokens: list[int]) -> bool:
        return self._client.store(tokens, self._cache.source).is_complete

    def retrieve(self, tokens: list[int]) -> bool:
        return self._client.retrieve(tokens, self._cache.target).tokens == len(tokens)

    def lookup(self, tokens: list[int]) -> bool:
        return self._client.lookup(tokens) == len(tokens)

    def close(self) -> None:
        self._client.close()
        self._server.close()


class LMCache:
    """LMCache's worker classes with its server in another process."""

    def __init__(self, case: Case, cache: Cache, address: str) -> None:
        from lmcache.v1.multiprocess.transfer_context import create_transfer_context
        from lmcache.v1.multiprocess.transport.factory import RequestClientFactory

        self._client = RequestClientFactory.create(address)
        self._context = create_transfer_context(
            cache.layers, instance_id=os.getpid(), req_client=self._client, mode="engine_driven"
        )
        self._context.register(cache.layers, f"model-{case.name}", 1, WIDTH, WITHIN)
        self._model = f"model-{case.name}"
        self._cache = cache
        self._turn = 0

    def _key(self, tokens: list[int], worker: int | None = 0, is_new: bool = True) -> Any:
        from lmcache.v1.multiprocess.custom_types import IPCCacheServerKey

        self._turn += is_new
        self._request = f"request-{self._turn}"
        return IPCCacheServerKey.from_token_ids(
            self._model, worker_id=worker, token_ids=tokens, request_id=self._request,
            world_size=1, start=0, end=len(tokens),
        )  # fmt: skip

    def store(self, tokens: list[int]) -> bool:
        key = self._key(tokens)
        future = self._context.submit_store(
            self._request, key, self._cache.layers, [self._cache.source], None, WIDTH
        )
        return bool(future.result(timeout=WITHIN))

    def retrieve(self, tokens: list[int]) -> bool:
        key = self._key(tokens, is_new=False)  # of the look-up, which holds it for this
        future = self._context.submit_retrieve(
            self._request, key, self._cache.layers, [self._cache.target], None, WIDTH
        )
        return bool(future.result(timeout=WITHIN))

    def lookup(self, tokens: list[int]) -> bool:
        key = self._key(tokens, None)
        self._client.lookup(key, 1).result(timeout=WITHIN)
        while (found := self._client.query_prefetch_status(self._request).result(WITHIN)) is None:
            pass
        return int(found) == len(tokens) // CHUNK

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._context.unregister().result(timeout=WITHIN)
        self._context.close()


def run_case(case: Case, server: Running, turns: int, warm_up: int) -> None:
    cache = Cache(case)
    sides = {
        "LMCache": (LMCache(case, cache, server.address), [server]),
        "PoolClient": (Penstock(new_name(), cache, populate=True), []),
    }
    watch = Watch(warm_up)
    for turn in range(warm_up + turns):
        order = list(sides.items())
        for side, (engine, servers) in order if turn % 2 else order[::-1]:
            tokens = [turn * 100_000 + number for number in range(case.chunks * CHUNK)]
            cache.mark(turn)
            cache.wipe()
            for step in STEPS:
                watch.time(step, side, partial(do, getattr(engine, step), tokens), *servers)
            if not cache.is_equal():
                raise RuntimeError(f"{side}: what came back is not what was stored")
    report(case, watch, cache.copied)
    for engine, _ in sides.values():
        engine.close()


def report(case: Case, watch: Watch, copied: int) -> None:
    print(f"{case.name:>14} memcpy   {memcpy_milliseconds(copied):8.2f} ms", flush=True)
    for step in STEPS:
        theirs, their_work = watch.taken(step, "LMCache").medians()
        ours, our_work = watch.taken(step, "PoolClient").medians()
        print(
            f"{case.name:>14} {step:<8} LMCache {theirs:8.2f} ms   PoolClient {ours:7.2f} ms   "
            f"{theirs / ours:5.1f} x   processor time {their_work / our_work:5.1f} x",
            flush=True,
        )


def do(act: Callable[[list[int]], bool], tokens: list[int]) -> None:
    if not act(tokens):
        raise RuntimeError(f"{act.__qualname__} did not do it")


def first_stores(populate: bool) -> tuple[float, ...]:
    """Ms of a client's first store of 32 MiB and the median of later ones: processor, then wall.

    The server reserves all memory; the client is another process, as a worker is.
    """
    program = f"""
import statistics, sys
sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})
from bench_lmcache import *
case = CASES[1]
cache = Cache(case)
client = PoolClient.attach(sys.argv[1])
context = EngineContext.of_kv_caches("w", "m", cache.layers, format="kv_blocks", chunk_tokens=CHUNK)
client.register(context, cache.layers, populate={populate})
for _ in range(3):
    torch.stack([layer[:, cache.source] for layer in cache.layers.values()])  # the cache is warm
watch = Watch(0)
for turn in range(24):
    tokens = [turn * 100_000 + number for number in range(CHUNK)]
    store = partial(do, lambda tokens: client.store(tokens, cache.source).is_complete, tokens)
    watch.time("store", "", store)
taken = watch.taken("store", "")
for times in (taken.work, taken.wall):
    print(times[0], statistics.median(times[12:]))
"""
    name = new_name()
    with PoolServer.open(name, capacity=8 * (32 << 20) + (1 << 20), populate=True):
        output = subprocess.run(
            [sys.executable, "-c", program, name],
            stdout=subprocess.PIPE, text=True, timeout=WITHIN * 2, check=True,
        ).stdout  # fmt: skip
    return tuple(map(float, output.split()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: as it decides")
    parser.add_argument("--only", help="a case's name, or 'first'")
    arguments = parser.parse_args()
    return run_guarded(LIMIT, lambda: run(arguments))


def run(arguments: argparse.Namespace) -> None:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.only != "first":
        with lmcache_server(new_name(), CAPACITY_GB, CHUNK) as server:
            for case in CASES:
                if arguments.only in (None, case.name):
                    run_case(case, server, arguments.turns, arguments.warm_up)
    if arguments.only in (None, "first"):
        for populate in (False, True):
            first, later, first_wall, later_wall = first_stores(populate)
            print(
                f"first store of 32 MiB, populate={populate}: {first:.1f} ms of processor time, "
                f"later {later:.1f} ms, {first / later:.2f} x; wall {first_wall:.1f} and "
                f"{later_wall:.1f} ms, {first_wall / later_wall:.2f} x",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
