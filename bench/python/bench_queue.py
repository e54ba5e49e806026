"""Arrays from one or several producers to one consumer: messages a second, each one checked.

Every array has its producer and its number, and the consumer compares the rest with the expected
bytes. Contenders take turns in the same processes.
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

import numpy as np
from producers import run_places, take_turns
from queue_links import Array, QueuePlace, build_queue_links
from report import print_record

BYTES_A_TURN = 24 << 20


class Check:
    """Each producer's arrays in order, and whole."""

    def __init__(self, place: QueuePlace) -> None:
        self._wanted = pattern(place.tokens)[2:].tobytes()
        self._nbytes = place.nbytes
        self._next = [0] * place.producers

    def __call__(self, array: Array) -> None:
        producer, number = array[:2].tolist()
        # The cheapest comparison, without a copy: every contender pays for it.
        is_whole = array.nbytes == self._nbytes and self._wanted.startswith(array[2:].data)
        if number != self._next[producer] or not is_whole:
            raise RuntimeError(f"array {number} of producer {producer} is torn or out of turn")
        self._next[producer] = number + 1


def pattern(tokens: int) -> Array:
    return np.arange(1000, 1000 + tokens, dtype=np.int32)


def produce(link: Any, rank: int, tokens: int, first: int, count: int) -> None:
    array = pattern(tokens)
    array[0] = rank
    for number in range(first, first + count):
        array[1] = number
        link.put(array)


def run(place: QueuePlace, turns: int, quick: bool, only: list[str]) -> None:
    links = list(build_queue_links(place, only))
    share = max(16, BYTES_A_TURN // place.nbytes // place.producers // (4 if quick else 1))
    checks = [Check(place) for _ in links]

    def puts(link: Any, rank: int, first: int, count: int) -> None:
        produce(link, rank, place.tokens, first, count)

    rates = take_turns(links, place.producers, puts, checks, share, turns)
    for link, taken in zip(links, rates, strict=True):
        median = statistics.median(taken)
        print_record(
            "python_queue",
            link.name,
            tokens=place.tokens,
            producers=place.producers,
            messages_per_s=median,
            bytes_per_s=median * place.nbytes,
            turn_messages_per_s=taken,
        )


def main() -> int:
    return run_places(__doc__, QueuePlace, run)


if __name__ == "__main__":
    sys.exit(main())
