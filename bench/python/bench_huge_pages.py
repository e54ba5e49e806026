"""What huge pages spare: in a store another process attaches to, and under received ``bytes``.

    python bench/python/bench_huge_pages.py [--turns 9]

A store of 256 MiB in small pages (``populate``) and in huge ones, in turns: its creation, and in a
fresh process the first touch of each page (one word each), and reading all of it afterwards.
``recv_bytes`` of 64 MiB, which asks for huge pages, in processes that may and may not have them.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from processes import (
    fail_when_a_child_fails,
    fork_child,
    join_child,
    new_name,
    pin_reader,
    run_guarded,
)
from report import print_record

import penstock

MIB = 1 << 20
STORED, RECEIVED = 256 * MIB, 64 * MIB
ROUNDS = 5
PR_SET_THP_DISABLE = 41
Figures = dict[str, float]


def ms_of(act: Callable[[], object]) -> float:
    before = time.perf_counter()
    act()
    return (time.perf_counter() - before) * 1e3


def in_fresh_process(body: Callable[[], Figures]) -> Figures:
    """What ``body`` returns in a forked child."""
    reading, writing = os.pipe()

    def report() -> None:
        pin_reader(0)
        os.write(writing, json.dumps(body()).encode())

    child = fork_child(report)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        figures = json.loads(answer.read())
    join_child(child)
    return dict(figures)


def read_stored(name: str) -> Figures:
    with penstock.Store.attach(name) as store, store.get("words") as words:
        first = ms_of(lambda: words[::512].sum())
        reads = [ms_of(words.sum) for _ in range(ROUNDS)]
    return {"touch_ms": first, "read_ms": statistics.median(reads)}


def store_turn(is_huge: bool) -> Figures:
    name = new_name()
    before = time.perf_counter()
    with penstock.Store.create(
        name, capacity=STORED + 2 * MIB, populate=not is_huge, huge_pages=is_huge
    ) as store:
        create = (time.perf_counter() - before) * 1e3
        store.put("words", np.ones(STORED // 8, dtype=np.uint64))
        huge = store.stats().huge_page_bytes / MIB
        return {
            "create_ms": create,
            **in_fresh_process(lambda: read_stored(name)),
            "huge_mib": huge,
        }


def receive(name: str, may_have: bool) -> Figures:
    if not may_have and ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0:
        raise RuntimeError("prctl(PR_SET_THP_DISABLE) is refused")
    with penstock.Broadcast.attach(name, rank=0) as reader:
        times = [ms_of(lambda: reader.recv_bytes(timeout=20)) for _ in range(ROUNDS)]
    return {"recv_ms": statistics.median(times)}


def bytes_turn(is_huge: bool) -> Figures:
    name = new_name()
    message = np.ones(RECEIVED, dtype=np.uint8)
    with penstock.Broadcast.create(name, readers=1, capacity="4MiB") as writer:
        for _ in range(ROUNDS):
            writer.send_bytes(message)  # all are there before the clock starts
        return in_fresh_process(lambda: receive(name, is_huge))


def median_of(turns: list[Figures]) -> Figures:
    return {key: round(statistics.median(one[key] for one in turns), 2) for key in turns[0]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=9)
    turns = parser.parse_args().turns

    def body() -> None:
        fail_when_a_child_fails()
        for what, turn in (("store", store_turn), ("recv_bytes", bytes_turn)):
            taken: dict[bool, list[Figures]] = {False: [], True: []}
            for _ in range(turns):
                for is_huge, figures in taken.items():
                    figures.append(turn(is_huge))
            for is_huge, figures in taken.items():
                pages = "huge pages" if is_huge else "small pages"
                print_record("python_huge_pages", f"{what}, {pages}", **median_of(figures))

    return run_guarded(300, body)


if __name__ == "__main__":
    sys.exit(main())
