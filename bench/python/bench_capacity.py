"""A Broadcast of 64 MiB beside one of 1 MiB: what a message costs should not depend on the room.

Round trips of bytes that are read in place, after a lap that takes every page of both. A turn is
four laps of the small ring, after one that brings it back into the cache.
"""

from __future__ import annotations

import argparse
import sys

from bench_messages import Contest
from link import Place
from links import PenstockViewLink
from ping_pong import PingPong
from processes import fail_when_a_child_fails, new_name, run_guarded
from report import latency_fields, moment_fields, print_record

KIB, MIB = 1 << 10, 1 << 20
SIZES = (16 * KIB, 64 * KIB, 256 * KIB)
SMALL, LARGE = MIB, 64 * MIB


class SmallRingLink(PenstockViewLink):
    name = "ring of 1 MiB"
    capacity = SMALL


class LargeRingLink(PenstockViewLink):
    name = "ring of 64 MiB"
    capacity = LARGE


def run(size: int, turns: int, ping_pong: PingPong) -> None:
    kinds = (SmallRingLink, LargeRingLink)
    links = [kind(Place(new_name(), size, 1)) for kind in kinds]
    contest = Contest(size, 1, links, buffers=1)
    samples: list[list[list[int]]] = [[] for _ in links]
    moments = []
    for contender in range(len(links)):
        contest.ping(contender, LARGE // size + 1, 0)
    for _ in range(turns):
        moments.append(ping_pong.play())
        for contender, taken in enumerate(samples):
            taken.append(contest.ping(contender, 4 * SMALL // size, SMALL // size))
    contest.leave()
    for link, taken in zip(links, samples, strict=True):
        fields = latency_fields(taken, 2) | moment_fields(moments)
        print_record("python_capacity", link.name, size=size, readers=1, **fields)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    turns = 8 if parser.parse_args().quick else 40

    def body() -> None:
        fail_when_a_child_fails()
        ping_pong = PingPong()
        for size in SIZES:
            run(size, turns, ping_pong)
        ping_pong.close()

    return run_guarded(120, body)


if __name__ == "__main__":
    sys.exit(main())
