"""A second tier beside plain commands to the same server over the same Unix socket, and a hit in
the first tier beside a plain Store's.

``put`` is write-through: the object is in shared memory and on the server when it returns. ``get``
misses in the first tier and reads through, into shared memory. All contenders take turns in one
process; every object is compared while the clock is stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from missing import Missing, leave_out
from processes import new_name, pin_driver, run_guarded, unpin
from redis_server import RedisServer
from report import latency_fields, print_record

import penstock

MIB = 1 << 20
# The number of objects in a turn, by size.
COUNTS = {64 << 10: 32, MIB: 8, 16 * MIB: 2}
HIT_SIZES = (4096, MIB)
HITS = 100  # per sample
WARM_UP = 2
CASE_SECONDS = 30.0  # then a size ends, with fewer turns for all
LEAST_TURNS = 3
ROOM = "256MiB"


class Tiered:
    """Two stores as on two machines: one puts, the other has an empty first tier."""

    name = "penstock"

    def __init__(self, server: RedisServer) -> None:
        self._stores = []
        for _ in range(2):
            tier = penstock.SecondTier(
                server.url, policy="write_through", prefix="tier:", request_timeout=30.0
            )
            store = penstock.Store.create(new_name(), capacity=ROOM, second_tier=tier)
            self._stores.append(store)
        self._putter, self._getter = self._stores

    def put(self, key: str, array: Any) -> None:
        self._putter.put_bytes(key, array)

    def get(self, key: str, use: Callable[[Any], None]) -> None:
        with self._getter.get(key) as found:
            use(found)

    def remove(self, key: str) -> None:
        self._putter.delete(key)
        self._getter.delete(key)

    def close(self) -> None:
        stats = self._getter.stats().second_tier
        assert stats is not None
        if stats.errors or stats.timeouts or stats.corrupt or not stats.hits:
            raise RuntimeError(f"not every get was a sound fetch: {stats}")
        for store in self._stores:
            store.close()


class Plain:
    """SET and GET by redis-py, with its parser in C."""

    name = "redis-py"

    def __init__(self, server: RedisServer) -> None:
        self._client = server.connect()

    def put(self, key: str, array: Any) -> None:
        self._client.set(key, array.data)

    def get(self, key: str, use: Callable[[Any], None]) -> None:
        use(self._client.get(key))

    def remove(self, key: str) -> None:
        self._client.delete(key)

    def close(self) -> None:
        self._client.close()


class Checked:
    """Stops the clock, and compares each object with the one that was put."""

    def __init__(self, wanted: Any) -> None:
        self._wanted = wanted
        self.stopped = 0

    def __call__(self, found: Any) -> None:
        self.stopped = time.perf_counter_ns()
        if not np.array_equal(np.frombuffer(found, np.uint8), self._wanted):
            raise RuntimeError("an object is not what was put")


def play_turn(link: Any, size: int, first: int) -> tuple[list[int], list[int]]:
    """Nanoseconds of each put, and of each get until the object is there."""
    keys = [f"object-{number}" for number in range(first, first + COUNTS[size])]
    base = np.arange(size // 8, dtype=np.int64)
    arrays = [(base + number).view(np.uint8) for number in range(first, first + len(keys))]
    puts, gets = [], []
    for key, array in zip(keys, arrays, strict=True):
        begin = time.perf_counter_ns()
        link.put(key, array)
        puts.append(time.perf_counter_ns() - begin)
    for key, array in zip(keys, arrays, strict=True):
        use = Checked(array)
        begin = time.perf_counter_ns()
        link.get(key, use)
        gets.append(use.stopped - begin)
    for key in keys:
        link.remove(key)
    return puts, gets


def run_contest(server: RedisServer, turns: int) -> None:
    links = [Tiered(server), Plain(server)]
    first = 0
    for size in COUNTS:
        samples: dict[str, list[Any]] = {link.name: [] for link in links}
        end = time.monotonic() + CASE_SECONDS
        for turn in range(WARM_UP + turns):
            if turn >= WARM_UP + LEAST_TURNS and time.monotonic() > end:
                break
            for link in links:
                taken = play_turn(link, size, first)
                first += COUNTS[size]
                if turn >= WARM_UP:
                    samples[link.name].append(taken)
        for name, of_turns in samples.items():
            for operation, taken in zip(("put", "get"), zip(*of_turns, strict=True), strict=True):
                print_record(
                    "python_tier",
                    name,
                    operation=operation,
                    size=size,
                    **latency_fields(taken, 1),
                )
    for link in links:
        link.close()


def measure_hits(store: Any, key: str) -> int:
    """Nanoseconds of ``HITS`` look-ups and releases."""
    begin = time.perf_counter_ns()
    for _ in range(HITS):
        with store.get(key):
            pass
    return time.perf_counter_ns() - begin


def run_hits(server: RedisServer, turns: int) -> None:
    pin_driver()
    plain = penstock.Store.create(new_name(), capacity=ROOM)
    tiered = penstock.Store.create(new_name(), capacity=ROOM, second_tier=server.url)
    contenders = {"plain Store": plain, "with a second tier": tiered}
    for size in HIT_SIZES:
        key, array = f"{size} bytes", np.arange(size // 8)
        for store in contenders.values():
            store.put(key, array)
            measure_hits(store, key)
        samples: dict[str, list[Any]] = {name: [] for name in contenders}
        for _ in range(turns):
            for name, store in contenders.items():
                samples[name].append([measure_hits(store, key) for _ in range(20)])
        for name, store in contenders.items():
            if not np.array_equal(store.get_copy(key), array):
                raise RuntimeError(f"the object of {name} is not what was put")
            print_record("python_tier_hit", name, size=size, **latency_fields(samples[name], HITS))
    for store in contenders.values():
        store.close()
    unpin()


def run(quick: bool) -> None:
    turns = 5 if quick else 40
    try:
        server = RedisServer()
    except (ImportError, Missing) as reason:
        leave_out("a second tier", reason)
        # Otherwise the step would count as failed.
        print_record("python_tier_left_out", "penstock", reason=str(reason))
        return
    run_hits(server, turns)
    run_contest(server, turns)
    server.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    return run_guarded(240, lambda: run(quick))


if __name__ == "__main__":
    sys.exit(main())
