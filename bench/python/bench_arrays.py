"""Large arrays from one process to another: received as one's own, and read in place.

    python bench/python/bench_arrays.py [--turns 9] [--mib 1 16 64]

The ways take turns; a round ends when the receiver has summed up the array, dropped it and answered
with the sum. ``recv_bytes_into`` has warm memory of the receiver's: what any copy costs.
"""

from __future__ import annotations

import argparse
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
    pin_driver,
    pin_reader,
    run_guarded,
)
from report import print_record

import penstock

MIB = 1 << 20
PATIENCE = 20.0
Sum = Callable[[], int]


def sum_of(words: np.ndarray) -> int:
    return int(np.add.reduce(words))


class Receiver:
    """The ways to receive, each of which returns the sum of what came."""

    def __init__(self, name: str, size: int) -> None:
        self.arrays = penstock.Broadcast.attach(name, rank=0, timeout=PATIENCE)
        self.answers = penstock.Broadcast.create(f"{name}.answers", readers=1)
        self.room = bytearray(size)
        self.ways: dict[str, Sum] = {
            "recv_view": self.view,
            "recv": lambda: sum_of(self.arrays.recv(timeout=PATIENCE)),
            "recv_bytes_into": self.into,
            "recv_bytes": lambda: sum_of(
                np.frombuffer(self.arrays.recv_bytes(timeout=PATIENCE), np.uint64)
            ),
        }

    def view(self) -> int:
        with self.arrays.recv_view(timeout=PATIENCE) as words:
            total = sum_of(words)
            del words
        return total

    def into(self) -> int:
        self.arrays.recv_bytes_into(self.room, timeout=PATIENCE)
        return sum_of(np.frombuffer(self.room, np.uint64))


WAYS = ("recv_view", "recv", "recv_bytes_into", "recv_bytes")


def receive(name: str, size: int, turns: int, rounds: int) -> None:
    pin_reader(0)
    receiver = Receiver(name, size)
    with receiver.arrays, receiver.answers:
        for _ in range(turns):
            for way in WAYS:
                for _ in range(rounds):
                    receiver.answers.send(receiver.ways[way](), timeout=PATIENCE)


def run(size: int, turns: int, rounds: int) -> None:
    name = new_name()
    words = np.random.default_rng(1).integers(0, 1 << 32, size // 8, dtype=np.uint64)
    with penstock.Broadcast.create(name, readers=1) as arrays:
        child = fork_child(lambda: receive(name, size, turns + 1, rounds))
        pin_driver()
        answers = penstock.Broadcast.attach(f"{name}.answers", rank=0, timeout=PATIENCE)
        taken: dict[str, list[float]] = {way: [] for way in WAYS}
        for turn in range(turns + 1):
            for way in WAYS:
                times = []
                for _ in range(rounds):
                    words[0] += 1
                    wanted = sum_of(words)
                    before = time.perf_counter()
                    (arrays.send_bytes if "bytes" in way else arrays.send)(words, timeout=PATIENCE)
                    total = answers.recv(timeout=PATIENCE)
                    times.append(time.perf_counter() - before)
                    if total != wanted:
                        raise RuntimeError(f"an array of {size} bytes arrived torn")
                if turn > 0:
                    taken[way].append(statistics.median(times))
        answers.close()
        join_child(child)
    for way in WAYS:
        ratios = [own / view for own, view in zip(taken[way], taken["recv_view"], strict=True)]
        print_record(
            "python_arrays",
            way,
            size=size,
            ms=round(statistics.median(taken[way]) * 1e3, 3),
            to_view=round(statistics.median(ratios), 2),
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--mib", type=int, nargs="+", default=[1, 16, 64])
    arguments = parser.parse_args()

    def body() -> None:
        fail_when_a_child_fails()
        for mib in arguments.mib:
            run(mib * MIB, arguments.turns, 20 if mib < 16 else 5)

    return run_guarded(300, body)


if __name__ == "__main__":
    sys.exit(main())
