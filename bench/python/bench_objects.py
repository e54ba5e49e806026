"""Python objects there and back: a small step of an engine, and one with an array.

Every receiver compares each object with the expected one. Contenders take turns in the same
processes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from link import Place
from links import build_links
from ping_pong import PingPong
from processes import fail_when_a_child_fails, new_name, pin_driver, run_guarded, unpin
from report import latency_fields, moment_fields, print_record
from stage import Stage

Make = Callable[[int], dict[str, Any]]


def small_step(sequence: int) -> dict[str, Any]:
    return {
        "step": sequence,
        "mode": "decode",
        "tokens": [11, 29, 3, 4077, 512, 8, 90, 2],
        "temperature": 0.7,
        "stop": False,
    }


def make_array_step() -> Make:
    tokens = np.arange(4096, dtype=np.int32)

    def array_step(sequence: int) -> dict[str, Any]:
        return {"step": sequence, "tokens": tokens}

    return array_step


def check(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    tokens = wanted["tokens"]
    if isinstance(tokens, np.ndarray):
        is_whole = got["step"] == wanted["step"] and np.array_equal(got["tokens"], tokens)
    else:
        is_whole = got == wanted
    if not is_whole:
        raise RuntimeError(f"step {wanted['step']} arrived torn or out of turn")


def run(
    kind: str, make: Make, turns: int, count: int, only: list[str], ping_pong: PingPong
) -> None:
    place = Place(new_name(), 64 << 10, 1)
    unpin()
    links = [link for link in build_links(place) if not only or link.name in only]
    sequences = [0] * len(links)

    def part(contender: int, rounds: int) -> None:
        link = links[contender]
        sequence = sequences[contender]
        for _ in range(rounds):
            wanted = make(sequence)
            link.receive_object(lambda got, wanted=wanted: check(got, wanted))
            link.answer_object(wanted)
            sequence += 1
        sequences[contender] = sequence

    def ping(contender: int, rounds: int, warm_up: int) -> list[int]:
        link = links[contender]
        sequence = sequences[contender]
        samples = []
        stage.begin(contender, rounds + warm_up)
        for _ in range(rounds + warm_up):
            wanted = make(sequence)
            before = time.perf_counter_ns()
            link.send_object(wanted)
            link.collect_object(lambda got, wanted=wanted: check(got, wanted))
            samples.append(time.perf_counter_ns() - before)
            sequence += 1
        stage.end()
        sequences[contender] = sequence
        return samples[warm_up:]

    def open_reader(rank: int) -> None:
        for link in links:
            link.open_reader(rank)

    def close() -> None:
        for link in links:
            link.close()

    stage = Stage(1, open_reader, part, close)
    for link in links:
        link.open_driver()
    pin_driver()
    samples: list[list[list[int]]] = [[] for _ in links]
    moments = []
    for turn in range(turns + 1):
        if turn > 0:
            moments.append(ping_pong.play())
        for contender in range(len(links)):
            taken = ping(contender, count, max(2, count // 10))
            if turn > 0:
                samples[contender].append(taken)
    stage.leave()
    close()
    for link, taken in zip(links, samples, strict=True):
        fields = latency_fields(taken, 1) | moment_fields(moments)
        print_record("python_object", link.name, kind=kind, readers=1, **fields)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--who", action="append", default=[])
    arguments = parser.parse_args()
    turns = 8 if arguments.quick else 30

    def body() -> None:
        fail_when_a_child_fails()
        ping_pong = PingPong()
        run("small dict", small_step, turns, 100, arguments.who, ping_pong)
        run("dict with int32[4096]", make_array_step(), turns, 100, arguments.who, ping_pong)
        ping_pong.close()

    return run_guarded(120, body)


if __name__ == "__main__":
    sys.exit(main())
