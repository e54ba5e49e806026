"""The KV pool beside plain copies of the same bytes: four chunks of 256 tokens, 16 layers, 64 MiB.

A store gathers scattered blocks of a paged cache into the pool, which is full, so that each evicts
the oldest; a retrieve scatters them into other blocks. Every retrieve is compared with the stored
bytes while the clock is stopped. All contenders take turns in one process.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from processes import new_name, pin_driver, run_guarded
from report import latency_fields, print_record

from penstock.integrations.lmcache import EngineContext, PoolClient, PoolServer

CHUNKS, CHUNK, BLOCK = 4, 256, 16
LAYERS, HEADS, DIM = 16, 8, 128
BLOCKS = 256  # of the cache
WIDTH = CHUNK // BLOCK
POOL_REQUESTS = 4  # the pool's room, in requests
WARM_UP = 6  # turns that do not count: the pool is full and warm then

Blocks = npt.NDArray[np.int64]


class Engine:
    """One worker with a paged cache of float16, [2, blocks, block, heads, dim] for each layer."""

    def __init__(self) -> None:
        random = np.random.default_rng(1)
        self.caches = [
            random.integers(-99, 99, (2, BLOCKS, BLOCK, HEADS, DIM)).astype(np.float16)
            for _ in range(LAYERS)
        ]
        context = EngineContext.of_one_group(
            "bench", "model", num_layers=LAYERS, token_shape=(HEADS, DIM), dtype="float16",
            block_size=BLOCK,
        )  # fmt: skip
        self.nbytes = CHUNKS * context.groups[0].slot_bytes(CHUNK)
        room = POOL_REQUESTS * self.nbytes + (1 << 20)
        self._server = PoolServer.open(new_name(), capacity=room)
        self._client = PoolClient.attach(self._server.name)
        self._client.register(context, self.caches)
        self._random = random
        self._turn = 0
        self.next_request()

    def next_request(self) -> None:
        """New tokens, and blocks to gather from and to scatter into."""
        self._turn += 1
        self._tokens = np.arange(CHUNKS * CHUNK) + self._turn
        blocks = self._random.permutation(BLOCKS)[: 2 * CHUNKS * WIDTH]
        self.source, self.target = np.split(blocks, 2)
        for layer in self.caches:
            layer[:, self.source, 0, 0, 0] = self._turn

    def store(self) -> None:
        if not self._client.store(self._tokens, self.source).is_complete:
            raise RuntimeError("a request was not stored")

    def retrieve(self) -> None:
        if self._client.retrieve(self._tokens, self.target).tokens != len(self._tokens):
            raise RuntimeError("a request was not there any more")

    def lookup(self) -> None:
        if self._client.lookup(self._tokens) != len(self._tokens):
            raise RuntimeError("a request was not there any more")

    def check(self) -> None:
        for layer in self.caches:
            if not np.array_equal(layer[:, self.source], layer[:, self.target]):
                raise RuntimeError(f"turn {self._turn}: what came is not what was stored")

    def close(self) -> None:
        self._client.close()
        self._server.close()


class Plain:
    """The same bytes into plain arrays: block by block as a gather, and at once as a memcpy."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        shape = (LAYERS, 2, CHUNKS * WIDTH, BLOCK, HEADS, DIM)
        self._rooms = np.zeros(shape, np.float16)
        self._whole = np.ones(shape, np.float16)

    def copy(self) -> None:
        np.copyto(self._rooms, self._whole)

    def gather(self) -> None:
        blocks = self._engine.source.tolist()
        for cache, room in zip(self._engine.caches, self._rooms, strict=True):
            for plane, rows in zip(cache, room, strict=True):
                for place, block in enumerate(blocks):
                    rows[place] = plane[block]

    def scatter(self) -> None:
        blocks = self._engine.target
        for cache, room in zip(self._engine.caches, self._rooms, strict=True):
            for plane, rows in zip(cache, room, strict=True):
                plane[blocks] = rows


def nanoseconds_of(act: Callable[[], Any]) -> int:
    begin = time.perf_counter_ns()
    act()
    return time.perf_counter_ns() - begin


def run(turns: int) -> None:
    pin_driver()
    engine = Engine()
    plain = Plain(engine)
    contenders: dict[str, Callable[[], None]] = {
        "blocks to a plain array": plain.gather,
        "plain copy": plain.copy,  # and what is scattered below is not what a retrieve brings
        "store": engine.store,
        "store, cached before": engine.store,
        "lookup": engine.lookup,
        "blocks from a plain array": plain.scatter,
        "retrieve": engine.retrieve,
    }
    samples: dict[str, list[list[int]]] = {name: [] for name in contenders}
    for turn in range(WARM_UP + turns):
        engine.next_request()
        for name, act in contenders.items():
            nanoseconds = nanoseconds_of(act)
            if turn >= WARM_UP:
                samples[name].append([nanoseconds])
        engine.check()
    engine.close()
    for name, taken in samples.items():
        print_record("python_kv", name, nbytes=engine.nbytes, **latency_fields(taken, 1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    turns = 15 if parser.parse_args().quick else 100
    return run_guarded(240, lambda: run(turns))


if __name__ == "__main__":
    sys.exit(main())
