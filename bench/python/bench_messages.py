"""Messages of bytes in Python: latency by size and readers, and throughput.

Like bench/cpp/bench_latency.cpp and bench_throughput.cpp, with the peers that Python programmers
have. Contenders take turns in the same processes, and with a bare ping-pong, which tells where the
processors were.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bare_links import SharedBufferLink
from link import Link, Place
from links import build_links
from payload import Payload
from ping_pong import PING_PONG, PingPong
from processes import fail_when_a_child_fails, new_name, pin_driver, run_guarded, unpin
from report import latency_fields, moment_fields, print_record
from stage import Stage

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Case:
    """The amount of work with messages of one size and one reader."""

    size: int
    latency_turns: int
    latency_count: int
    pour_turns: int
    pour_count: int


CASES = (
    Case(64, 120, 100, 5, 10_000),
    Case(1 * KIB, 120, 100, 5, 10_000),
    Case(16 * KIB, 10, 50, 4, 2_000),
    Case(256 * KIB, 8, 20, 3, 200),
    Case(1 * MIB, 6, 10, 3, 50),
    Case(16 * MIB, 4, 4, 3, 6),
    Case(64 * MIB, 3, 2, 2, 3),
)
READERS = (1, 2, 4, 8)
SIZES_FOR_MANY = (64, 1 * MIB)
SIZES_IN_A_QUICK_RUN = (64, 1 * KIB, 1 * MIB, 16 * MIB)


class Contest:
    """Some contenders with messages of one size and one number of readers."""

    def __init__(self, size: int, readers: int, links: list[Link], buffers: int) -> None:
        unpin()
        self.size = size
        self.readers = readers
        self.links = links
        self.payload = Payload(size, buffers)
        self.sequences = [0] * len(self.links)
        self.pouring = False
        self.stage = Stage(readers, self._open_reader, self._part, self._close)
        for link in self.links:
            link.open_driver()
        pin_driver()

    def _open_reader(self, rank: int) -> None:
        for link in self.links:
            link.open_reader(rank)

    def _close(self) -> None:
        for link in self.links:
            link.close()

    def _part(self, contender: int, count: int) -> None:
        """A reader's part in a turn: to answer, or, with a negative count, only to check."""
        link = self.links[contender]
        payload = self.payload
        sequence = self.sequences[contender]

        def check(message: object) -> None:
            payload.check(message, sequence)

        for _ in range(abs(count)):
            link.receive(check)
            if count > 0:
                link.answer(payload.numbered(sequence))
            sequence += 1
        self.sequences[contender] = sequence

    def ping(self, contender: int, count: int, warm_up: int) -> list[int]:
        """Round trips, with one sample in ns for each after the warm-up."""
        link = self.links[contender]
        payload = self.payload
        sequence = self.sequences[contender]
        samples = []

        def check(message: object) -> None:
            payload.check(message, sequence)

        self.stage.begin(contender, count + warm_up)
        for _ in range(count + warm_up):
            before = time.perf_counter_ns()
            link.send(payload.numbered(sequence))
            link.collect(check)
            samples.append(time.perf_counter_ns() - before)
            sequence += 1
        self.stage.end()
        self.sequences[contender] = sequence
        return samples[warm_up:]

    def pour(self, contender: int, count: int) -> float:
        """Send as fast as possible; messages a second until the last reader had the last one."""
        link = self.links[contender]
        payload = self.payload
        first = self.sequences[contender]
        # Small messages are made before, since a peer's thread may send them later.
        messages = [bytearray(payload.numbered(first + i)) for i in range(self._ready(count))]
        self.stage.begin(contender, -count)
        before = time.perf_counter_ns()
        if messages:
            for message in messages:
                link.send(message)
        else:
            for sequence in range(first, first + count):
                link.send(payload.numbered(sequence))
        after = self.stage.end()
        self.sequences[contender] = first + count
        return count / ((after - before) * 1e-9)

    @property
    def share(self) -> int:
        """By how much fewer messages a turn has than with one reader."""
        return 1 if self.readers == 1 else 2 * self.readers

    def _ready(self, count: int) -> int:
        return count if self.size <= 16 * KIB else 0

    def leave(self) -> None:
        self.stage.leave()
        self._close()


def report_latency(contest: Contest, who: str, turns: Sequence[Sequence[float]]) -> None:
    place = {"size": contest.size, "readers": contest.readers}
    print_record("python_latency", who, **place, **latency_fields(turns, 2))


def report_throughput(
    contest: Contest, link: Link, rates: list[float], count: int, moments: list[list[float]]
) -> None:
    rate = statistics.median(rates)
    print_record(
        "python_throughput",
        link.name,
        size=contest.size,
        readers=contest.readers,
        count=count * len(rates),
        messages_per_s=rate,
        bytes_per_s=rate * contest.size,
        turn_messages_per_s=rates,
        **moment_fields(moments),
    )


def is_over(turn: int, end: float) -> bool:
    """Bounds the time: on a busy machine there are fewer turns, for all alike."""
    fewest = 3
    return turn >= fewest and time.monotonic() > end


def take_latency(contest: Contest, case: Case, quick: bool, ping_pong: PingPong) -> None:
    contenders = range(len(contest.links))
    count = max(2, case.latency_count // contest.share)
    turns = max(2, case.latency_turns // (4 if quick else 1))
    samples: list[list[list[int]]] = [[] for _ in contenders]
    moments: list[list[float]] = []
    end = time.monotonic() + (1 if quick else 4)
    for turn in range(turns + 1):
        if is_over(turn, end):
            break
        if turn > 0:
            moments.append(ping_pong.play())
        for contender in contenders:
            taken = contest.ping(contender, count, max(2, count // 10))
            if turn > 0:
                samples[contender].append(taken)
    if any(moments):
        report_latency(contest, PING_PONG, moments)
    for contender, link in enumerate(contest.links):
        report_latency(contest, link.name, samples[contender])


def take_throughput(contest: Contest, case: Case, quick: bool, ping_pong: PingPong) -> None:
    pouring = {index: link for index, link in enumerate(contest.links) if link.pours}
    count = max(2, case.pour_count // contest.share // (4 if quick else 1))
    rates: dict[int, list[float]] = {contender: [] for contender in pouring}
    moments: list[list[float]] = []
    end = time.monotonic() + (1 if quick else 4)
    for turn in range((3 if quick else case.pour_turns) + 1):
        if is_over(turn, end):
            break
        if turn > 0:
            moments.append(ping_pong.play())
        for contender in pouring:
            rate = contest.pour(contender, count)
            if turn > 0:
                rates[contender].append(rate)
    for contender, link in pouring.items():
        report_throughput(contest, link, rates[contender], count, moments)


def run_case(case: Case, readers: int, quick: bool, only: list[str], ping_pong: PingPong) -> None:
    place = Place(new_name(), case.size, readers)
    links = build_links(place, (SharedBufferLink,))
    wanted = [link for link in links if not only or link.name in only]
    # Some peers' threads send later: more buffers than messages that can be under way.
    contest = Contest(case.size, readers, wanted, min(place.queue_length, 32) + 4)
    take_latency(contest, case, quick, ping_pong)
    take_throughput(contest, case, quick, ping_pong)
    contest.leave()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--size", type=int, action="append", default=[])
    parser.add_argument("--readers", type=int, action="append", default=[])
    parser.add_argument("--who", action="append", default=[])
    arguments = parser.parse_args()

    def body() -> None:
        fail_when_a_child_fails()
        ping_pong = PingPong()
        for case in CASES:
            for readers in READERS:
                is_wanted = (not arguments.size or case.size in arguments.size) and (
                    not arguments.readers or readers in arguments.readers
                )
                is_skipped = arguments.quick and (
                    readers not in (1, READERS[-1]) or case.size not in SIZES_IN_A_QUICK_RUN
                )
                if is_wanted and not is_skipped and (readers == 1 or case.size in SIZES_FOR_MANY):
                    run_case(case, readers, arguments.quick, arguments.who, ping_pong)
        ping_pong.close()

    return run_guarded(300, body)


if __name__ == "__main__":
    sys.exit(main())
