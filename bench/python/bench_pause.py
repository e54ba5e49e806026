"""64 B there and back after a pause, by processes that the kernel may place as it likes.

The other programs pin their processes and warm them up. Here both sides attach, sleep for a second,
as between two steps of an engine, and then talk: on an idle machine, and beside a loop on each
processor that computes. The first rounds, in which both find out how to wait, are not counted.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable

from kickmsg_links import KickmsgLink
from link import Link, Place
from links import PenstockLink, SocketLink
from payload import Payload
from ping_pong import PingPong
from processes import (
    CORES,
    fail_when_a_child_fails,
    fork_child,
    join_child,
    new_name,
    run_guarded,
    unpin,
)
from report import latency_fields, moment_fields, print_record

SIZE = 64
ROUNDS, UNCOUNTED = 4000, 500
PAUSE = 1.0  # seconds
KINDS: tuple[type[Link], ...] = (PenstockLink, KickmsgLink, SocketLink)


def echo(link: Link, payload: Payload, is_there: int) -> None:
    link.open_reader(0)
    os.write(is_there, b".")
    for sequence in range(ROUNDS):
        link.receive(checker(payload, sequence))
        link.answer(payload.numbered(sequence))
    link.close()


def checker(payload: Payload, sequence: int) -> Callable[[object], None]:
    return lambda message: payload.check(message, sequence)


def one_turn(kind: type[Link]) -> list[int]:
    """The round trips in ns of two processes that have just met, without the first ones."""
    link = kind(Place(new_name(), SIZE, 1))
    payload = Payload(SIZE)
    told, is_there = os.pipe()
    reader = fork_child(lambda: echo(link, payload, is_there))
    link.open_driver()
    os.read(told, 1)
    time.sleep(PAUSE)
    samples = []
    for sequence in range(ROUNDS):
        before = time.perf_counter_ns()
        link.send(payload.numbered(sequence))
        link.collect(checker(payload, sequence))
        samples.append(time.perf_counter_ns() - before)
    join_child(reader)
    link.close()
    os.close(told)
    os.close(is_there)
    return samples[UNCOUNTED:]


def p99(samples: list[int]) -> float:
    return statistics.quantiles(samples, n=100)[-1]


def run(load: str, turns: int) -> None:
    kinds = [kind for kind in KINDS if kind.suits(Place("", SIZE, 1))]
    taken: list[list[list[int]]] = [[] for _ in kinds]
    moments = []
    ping_pong = PingPong()
    for _ in range(turns):
        moments.append(ping_pong.play())
        for kind, samples in zip(kinds, taken, strict=True):
            samples.append(one_turn(kind))
    ping_pong.close()
    for kind, samples in zip(kinds, taken, strict=True):
        fields = latency_fields(samples, 1) | moment_fields(moments)
        tails = [p99(turn) for turn in samples]
        print_record("python_pause", kind.name, kind=load, turn_p99_ns=tails, **fields)


def compute() -> None:
    while True:
        pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    turns = 3 if parser.parse_args().quick else 10

    def body() -> None:
        fail_when_a_child_fails()
        unpin()
        run("idle", turns)
        loops = [fork_child(compute) for _ in CORES]
        run("beside busy loops", turns)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for loop in loops:
            os.kill(loop, signal.SIGKILL)
            os.waitpid(loop, 0)

    return run_guarded(300, body)


if __name__ == "__main__":
    sys.exit(main())
