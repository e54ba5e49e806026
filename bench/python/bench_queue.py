"""Arrays from one or several producers to one consumer: messages a second, each one checked.

Every array bears its producer and its number, and the consumer compares the rest with what it
should be. Contenders take turns in the same processes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from multiprocessing import Pipe
from typing import Any

import numpy as np
from processes import (
    fork_child,
    new_name,
    pin_driver,
    pin_reader,
    run_guarded,
    unpin,
)
from queue_links import Array, QueuePlace, build_queue_links
from report import print_record

TOKENS = (512, 4096, 32768)
PRODUCERS = (1, 4)
BYTES_A_TURN = 24 << 20


class Check:
    """Each producer's arrays in order, and whole."""

    def __init__(self, place: QueuePlace) -> None:
        self._wanted = pattern(place.tokens)[2:].tobytes()
        self._next = [0] * place.producers

    def __call__(self, array: Array) -> None:
        producer, number = array[:2].tolist()
        # The cheapest comparison there is: what it costs, every contender pays.
        if number != self._next[producer] or array[2:].tobytes() != self._wanted:
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


def producer_body(links: list[Any], rank: int, tokens: int, commands: Any) -> Callable[[], None]:
    def body() -> None:
        pin_reader(rank)
        for link in links:
            link.open_producer()
        sent = [0] * len(links)
        commands.send(None)
        while (command := commands.recv()) is not None:
            contender, count = command
            produce(links[contender], rank, tokens, sent[contender], count)
            sent[contender] += count
            commands.send(None)
        for link in links:
            link.close()

    return body


def run(place: QueuePlace, turns: int, quick: bool, only: list[str]) -> None:
    unpin()
    links = [link for link in build_queue_links(place) if not only or link.name in only]
    pipes = []
    for rank in range(place.producers):
        ours, theirs = Pipe()
        fork_child(producer_body(links, rank, place.tokens, theirs))
        pipes.append(ours)
    for link in links:
        if hasattr(link, "open_consumer"):
            link.open_consumer()
    for pipe in pipes:
        pipe.recv()
    pin_driver()

    share = max(16, BYTES_A_TURN // place.nbytes // place.producers // (4 if quick else 1))
    rates: list[list[float]] = [[] for _ in links]
    checks = [Check(place) for _ in links]
    for turn in range(turns + 1):
        for contender, link in enumerate(links):
            count = max(8, share // 4) if turn == 0 else share
            begin = time.perf_counter()
            for pipe in pipes:
                pipe.send((contender, count))
            link.take(count * place.producers, checks[contender])
            seconds = time.perf_counter() - begin
            for pipe in pipes:
                pipe.recv()
            if turn > 0:
                rates[contender].append(count * place.producers / seconds)
    for pipe in pipes:
        pipe.send(None)
    for link in links:
        link.close()
    for _ in pipes:
        os.wait()
    for link, taken in zip(links, rates, strict=True):
        middle = sorted(taken)[len(taken) // 2]
        print_record(
            "python_queue",
            link.name,
            tokens=place.tokens,
            producers=place.producers,
            messages_per_s=middle,
            bytes_per_s=middle * place.nbytes,
            turn_messages_per_s=taken,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--who", action="append", default=[])
    parser.add_argument("--tokens", type=int, action="append", default=[])
    arguments = parser.parse_args()
    turns = 3 if arguments.quick else 9

    def body() -> None:
        for tokens in arguments.tokens or TOKENS:
            for producers in PRODUCERS:
                place = QueuePlace(new_name(), tokens, producers)
                run(place, turns, arguments.quick, arguments.who)

    return run_guarded(300, body)


if __name__ == "__main__":
    sys.exit(main())
