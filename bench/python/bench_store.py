"""Arrays by key, put by one process and found by another, each one checked.

Contenders take turns in the same processes. Also the cost of finding and releasing an object in a
Store, for each size.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
from missing import Missing, leave_out
from processes import fork_child, join_child, new_name, pin_driver, run_guarded, unpin
from report import latency_fields, print_record
from store_links import build_store_links
from store_stage import Getting, Reading, StoreStage

import penstock

MIB = 1 << 20
# The number of objects in a turn, by size.
COUNTS = {64 << 10: 64, MIB: 16, 16 * MIB: 4}
OPERATIONS = ("put", "get", "get and read")
WARM_UP = 2  # turns of each size
LAPS = 3  # turns of the largest size that touch every page of the stores in both processes
CASE_SECONDS = 25.0  # then a size ends, with fewer turns for all
LEAST_TURNS = 3
GET_SIZES = (4096, MIB, 64 * MIB)
GETS = 100  # per sample: one is hardly longer than reading the clock


def opens_getter(link: Any) -> bool:
    try:
        link.open_getter()
    except Missing as reason:
        leave_out(f"store: {link.name}", reason)
        return False
    return True


class Contest:
    """The contenders on their stage."""

    def __init__(self, only: list[str]) -> None:
        unpin()
        links = list(build_store_links(only))
        self._stage = StoreStage(links)
        self._links = {at: link for at, link in enumerate(links) if opens_getter(link)}
        pin_driver()

    def run(self, size: int, count: int, turns: int, warm_up: int) -> dict[str, list[Any]]:
        """The samples of each turn, by contender."""
        uses = (Getting(size), Reading(size))  # as in OPERATIONS
        samples: dict[str, list[Any]] = {link.name: [] for link in self._links.values()}
        end = time.monotonic() + CASE_SECONDS
        for turn in range(warm_up + turns):
            if turn >= warm_up + LEAST_TURNS and time.monotonic() > end:
                break
            for contender, link in self._links.items():
                taken = self._stage.turn(contender, count, uses, size)
                if turn >= warm_up:
                    samples[link.name].append(taken)
        return samples

    def leave(self) -> None:
        self._stage.leave()
        for link in self._links.values():
            link.close()


def run_contest(turns: int, quick: bool, only: list[str], sizes: list[int]) -> None:
    contest = Contest(only)
    largest = max(COUNTS)
    contest.run(largest, COUNTS[largest], 0, LAPS)
    for size in sizes or COUNTS:
        count = COUNTS[size] // (2 if quick else 1)
        for name, taken in contest.run(size, count, turns, WARM_UP).items():
            for operation, of_turns in zip(OPERATIONS, zip(*taken, strict=True), strict=True):
                print_record(
                    "python_store",
                    name,
                    operation=operation,
                    size=size,
                    **latency_fields(of_turns, 1),
                )
    contest.leave()


def measure_gets(store: penstock.Store, key: str, samples: int) -> list[int]:
    """Nanoseconds of ``GETS`` look-ups and releases."""
    taken = []
    for _ in range(samples):
        begin = time.perf_counter_ns()
        for _ in range(GETS):
            with store.get(key):
                pass
        taken.append(time.perf_counter_ns() - begin)
    return taken


def run_gets(turns: int) -> None:
    pin_driver()
    store = penstock.Store.create(new_name(), capacity="128MiB")
    arrays = {size: np.arange(size // 8) for size in GET_SIZES}

    def put_all() -> None:
        with penstock.Store.attach(store.name) as own:
            for size, array in arrays.items():
                own.put(f"{size} bytes", array)

    join_child(fork_child(put_all))
    for size, array in arrays.items():
        key = f"{size} bytes"
        measure_gets(store, key, 10)
        taken = [measure_gets(store, key, 20) for _ in range(turns)]
        with store.get(key) as found:
            if not np.array_equal(found, array):
                raise RuntimeError(f"the object of {key} is not what was put")
        print_record("python_store_get", "penstock", size=size, **latency_fields(taken, GETS))
    store.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--who", action="append", default=[])
    parser.add_argument("--size", type=int, action="append", default=[], choices=COUNTS)
    arguments = parser.parse_args()
    turns = 5 if arguments.quick else 25

    def body() -> None:
        run_gets(2 * turns)
        run_contest(turns, arguments.quick, arguments.who, arguments.size)

    return run_guarded(240, body)


if __name__ == "__main__":
    sys.exit(main())
