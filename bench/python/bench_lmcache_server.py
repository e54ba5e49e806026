"""LMCache's own server beside `penstock lmcache serve`: the same unmodified worker classes, in one
process, with a paged cache of torch tensors, take turns on both.

Run it with the interpreter of the environment that has lmcache (`./dev environments`):

    build/lmcache/bin/python bench/python/bench_lmcache_server.py

Every turn stores tokens that neither has, looks them up, and retrieves them into other blocks. They
are compared while the clock is stopped; then both are cleared, so that slots are warm memory. On a
busy machine look at the processor time, cpu_ms, of worker and server together.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lmcache.v1.multiprocess.custom_types import IPCCacheServerKey
from lmcache.v1.multiprocess.transfer_context import create_transfer_context
from lmcache.v1.multiprocess.transport.factory import RequestClientFactory
from lmcache_servers import Running, lmcache_server, memcpy_milliseconds, penstock_server
from processes import new_name, run_guarded
from report import print_record
from watch import Watch

CHUNK, BLOCK = 256, 16  # tokens
WIDTH = CHUNK // BLOCK
WARM_UP = 3  # turns that do not count
WITHIN = 300.0  # seconds
LIMIT = 3600  # for all
CASES = {  # layers, heads, size of a head, chunks
    "0.25 MiB": (2, 2, 64, 1),
    "32 MiB": (32, 8, 128, 1),
    "4 x 32 MiB": (32, 8, 128, 4),
}


class Worker:
    """One engine's worker on one server."""

    def __init__(self, address: str, caches: dict[str, Any], model: str) -> None:
        self._client = RequestClientFactory.create(address)
        self._instance = int.from_bytes(os.urandom(7), "little")
        self._caches = caches
        self._model = model
        self._context: Any = create_transfer_context(
            caches, instance_id=self._instance, req_client=self._client, mode="engine_driven"
        )
        self._context.register(caches, model, 1, WIDTH, WITHIN)
        used = type(self._context.engine_driven_context).__name__
        assert used == "EngineDrivenContextShm", used

    def key(self, tokens: list[int], request: str, rank: int | None = 0) -> IPCCacheServerKey:
        return IPCCacheServerKey.from_token_ids(
            self._model, 1, rank, tokens, start=0, end=len(tokens), request_id=request
        )

    def store(self, tokens: list[int], request: str, blocks: list[int]) -> None:
        key = self.key(tokens, request)
        future = self._context.submit_store(request, key, self._caches, [blocks], None, WIDTH)
        assert future.result(timeout=WITHIN) is True

    def lookup(self, tokens: list[int], request: str) -> None:
        self._client.lookup(self.key(tokens, request, None), 1).result(timeout=WITHIN)
        while True:
            found = self._client.query_prefetch_status(request).result(timeout=WITHIN)
            if found is not None:
                break
        assert found == len(tokens) // CHUNK, found

    def retrieve(self, tokens: list[int], request: str, blocks: list[int]) -> None:
        key = self.key(tokens, request)
        future = self._context.submit_retrieve(request, key, self._caches, [blocks], None, WIDTH)
        assert future.result(timeout=WITHIN) is True

    def end(self, request: str) -> None:
        self._client.end_session(request).result(timeout=WITHIN)

    def clear(self) -> None:
        self._client.clear(True).result(timeout=WITHIN)

    def ping(self) -> None:
        assert self._client.ping(None).result(timeout=WITHIN) is True

    def close(self) -> None:
        self._context.unregister().result(timeout=WITHIN)
        self._context.close()
        self._client.close()


def report(case: str, watch: Watch, copied: int) -> None:
    print_record("lmcache_server", f"{case}: memcpy", ms=round(memcpy_milliseconds(copied), 3))
    for step in ("store", "lookup", "retrieve"):
        theirs, ours = watch.taken(step, "lmcache"), watch.taken(step, "penstock")
        (their_wall, their_work), (our_wall, our_work) = theirs.medians(), ours.medians()
        print_record(
            "lmcache_server",
            f"{case}: {step}",
            lmcache_ms=round(their_wall, 3),
            penstock_ms=round(our_wall, 3),
            times=round(their_wall / our_wall, 2),
            best_times=round(min(theirs.wall) / min(ours.wall), 2),
            lmcache_cpu_ms=round(their_work, 3),
            penstock_cpu_ms=round(our_work, 3),
            cpu_times=round(their_work / our_work, 2),
        )


def measure(case: str, servers: dict[str, Running], turns: int) -> None:
    layers, heads, size, chunks = CASES[case]
    shape = (2, 2 * chunks * WIDTH, BLOCK, heads, size)
    caches = {f"layer_{number}": torch.randn(shape).half() for number in range(layers)}
    source, target = list(range(chunks * WIDTH)), list(range(chunks * WIDTH, 2 * chunks * WIDTH))
    workers = {
        who: Worker(server.address, caches, f"{case}-{who}") for who, server in servers.items()
    }
    watch = Watch(WARM_UP)
    for turn in range(WARM_UP + turns):
        tokens = [turn * 1_000_000 + number for number in range(chunks * CHUNK)]
        for who in list(workers)[:: 1 if turn % 2 else -1]:
            worker, request = workers[who], f"{case}-{turn}"
            for cache in caches.values():
                cache[:, target] = 0
            steps: dict[str, Callable[[], None]] = {
                "store": partial(worker.store, tokens, request, source),
                "lookup": partial(worker.lookup, tokens, request),
                "retrieve": partial(worker.retrieve, tokens, request, target),
            }
            for step, act in steps.items():
                watch.time(step, who, act, servers[who])
            for cache in caches.values():
                assert torch.equal(cache[:, source], cache[:, target]), "not what was stored"
            worker.end(request)
            worker.clear()
    for worker in workers.values():
        worker.close()
    report(case, watch, sum(cache.nbytes for cache in caches.values()) // 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--case", choices=[*CASES], action="append", help="default: all")
    arguments = parser.parse_args()
    return run_guarded(LIMIT, lambda: run(arguments.case or [*CASES], arguments.turns))


def run(cases: list[str], turns: int) -> None:
    with (
        lmcache_server(new_name(), 1, CHUNK) as theirs,
        penstock_server(new_name(), 1, CHUNK) as ours,
    ):
        for case in cases:
            measure(case, {"lmcache": theirs, "penstock": ours}, turns)


if __name__ == "__main__":
    sys.exit(main())
