"""One or several producers and one consumer: contenders take turns in the same processes.

A producer waits in a pipe between turns, so a contender that is not on costs nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from typing import Any

from processes import (
    fail_when_a_child_fails,
    fork_child,
    join_child,
    new_name,
    pin_driver,
    pin_reader,
    run_guarded,
    unpin,
)

TOKENS = (512, 4096, 32768)
PRODUCERS = (1, 4)
TURN_SECONDS = 0.5  # a slow contender gets fewer messages, by its rate in the warm-up
CASE_SECONDS = 25.0  # then a case ends, with fewer turns for all
LEAST = 8  # messages of a producer in a turn
LEAST_TURNS = 3

Produce = Callable[[Any, int, int, int], None]  # link, rank, first number, count
Check = Callable[[Any], None]


def _producer_body(
    links: Sequence[Any], rank: int, produce: Produce, commands: Any
) -> Callable[[], None]:
    def body() -> None:
        pin_reader(rank)
        for link in links:
            link.open_producer()
        sent = [0] * len(links)
        commands.send(None)
        while (command := commands.recv()) is not None:
            contender, count = command
            begin = time.perf_counter()
            produce(links[contender], rank, sent[contender], count)
            seconds = time.perf_counter() - begin
            sent[contender] += count
            commands.send(seconds)
        for link in links:
            link.close()

    return body


class Producers:
    """Forks and pins the producers, and opens every link on both sides."""

    def __init__(self, links: Sequence[Any], count: int, produce: Produce) -> None:
        unpin()
        fail_when_a_child_fails()  # otherwise the others would wait for it
        self._links = links
        self._pipes = []
        self._pids = []
        for rank in range(count):
            ours, theirs = Pipe()
            self._pids.append(fork_child(_producer_body(links, rank, produce, theirs)))
            self._pipes.append(ours)
        for link in links:
            if hasattr(link, "open_consumer"):
                link.open_consumer()
        for pipe in self._pipes:
            pipe.recv()
        pin_driver()

    def rate(self, contender: int, count: int, check: Check) -> float:
        """Messages a second when each producer puts ``count``."""
        messages = count * len(self._pipes)
        begin = time.perf_counter()
        for pipe in self._pipes:
            pipe.send((contender, count))
        self._links[contender].take(messages, check)
        seconds = time.perf_counter() - begin
        for pipe in self._pipes:
            pipe.recv()
        return messages / seconds

    def rates_apart(
        self, contender: int, count: int, use: Callable[[Any], None]
    ) -> tuple[float, float]:
        """Messages a second put, while the consumer waits, and then taken."""
        for pipe in self._pipes:
            pipe.send((contender, count))
        put_seconds = max(pipe.recv() for pipe in self._pipes)
        messages = count * len(self._pipes)
        begin = time.perf_counter()
        self._links[contender].take(messages, use)
        return messages / put_seconds, messages / (time.perf_counter() - begin)

    def leave(self) -> None:
        """End the producers."""
        for pipe in self._pipes:
            pipe.send(None)
        for link in self._links:
            link.close()
        for pid in self._pids:
            join_child(pid)


def take_turns(
    links: Sequence[Any],
    producers: int,
    produce: Produce,
    checks: Sequence[Check],
    share: int,
    turns: int,
) -> list[list[float]]:
    """The messages a second of each turn, by link.

    Each producer puts ``share`` in a turn, or as many as take half a second.
    """
    stage = Producers(links, producers, produce)
    shares = []
    for contender, check in enumerate(checks):
        rate = stage.rate(contender, max(LEAST, share // 4), check)
        shares.append(max(LEAST, min(share, int(rate * TURN_SECONDS / producers))))
    rates: list[list[float]] = [[] for _ in links]
    end = time.monotonic() + CASE_SECONDS
    for turn in range(turns):
        if turn >= LEAST_TURNS and time.monotonic() > end:
            break
        for contender, check in enumerate(checks):
            rates[contender].append(stage.rate(contender, shares[contender], check))
    stage.leave()
    return rates


def run_places(
    description: str | None,
    make_place: Callable[[str, int, int], Any],
    run: Callable[[Any, int, bool, list[str]], None],
) -> int:
    """The program of a benchmark: every number of tokens and producers, or the requested ones."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--who", action="append", default=[])
    parser.add_argument("--tokens", type=int, action="append", default=[])
    arguments = parser.parse_args()
    turns = 3 if arguments.quick else 9

    def body() -> None:
        for tokens in arguments.tokens or TOKENS:
            for producers in PRODUCERS:
                place = make_place(new_name(), tokens, producers)
                run(place, turns, arguments.quick, arguments.who)

    return run_guarded(300, body)
