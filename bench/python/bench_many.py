"""Many messages a call beside one a call: put_many() of lists, and get_many(), in one process.

    python bench/python/bench_many.py [--turns 9]

Values are bytes objects of 64 B and 4 KiB, 64 a call; the ways take turns within each turn.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

from report import print_record

import penstock

MESSAGES, AT_ONCE = 1024, 64
SIZES = (64, 4096)


def put_one_by_one(queue: penstock.Queue, values: list[bytes]) -> None:
    for value in values:
        queue.put(value)


def put_many(queue: penstock.Queue, values: list[bytes]) -> None:
    for first in range(0, MESSAGES, AT_ONCE):
        queue.put_many(values[first : first + AT_ONCE])


def get_one_by_one(queue: penstock.Queue) -> None:
    for _ in range(MESSAGES):
        queue.get(timeout=0)


def get_many(queue: penstock.Queue) -> None:
    left = MESSAGES
    while left:
        with queue.get_many(AT_ONCE, timeout=0) as batch:
            left -= len(batch)


def timed(act: Callable[[], None]) -> float:
    """Microseconds per message."""
    begun = time.perf_counter()
    act()
    return (time.perf_counter() - begun) / MESSAGES * 1e6


def run(size: int, turns: int) -> None:
    values = [bytes(size)] * MESSAGES
    taken: dict[str, list[float]] = {name: [] for name in ("put", "put_many", "get", "get_many")}
    with penstock.Queue.create(f"bench-many-{os.getpid()}", slots=2 * MESSAGES) as queue:
        for _ in range(turns):
            taken["put"].append(timed(lambda: put_one_by_one(queue, values)))
            taken["get"].append(timed(lambda: get_one_by_one(queue)))
            taken["put_many"].append(timed(lambda: put_many(queue, values)))
            taken["get_many"].append(timed(lambda: get_many(queue)))
    best = {name: min(times) for name, times in taken.items()}
    for name, microseconds in best.items():
        print_record("python_many", name, size=size, us_a_message=round(microseconds, 3))
    print(
        f"{size} B: put_many {best['put'] / best['put_many']:.2f} times the rate of put, "
        f"get_many {best['get'] / best['get_many']:.2f} times that of get"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=9)
    given = parser.parse_args()
    for size in SIZES:
        run(size, given.turns)


if __name__ == "__main__":
    main()
