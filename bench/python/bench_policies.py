"""The wait policies: 64 B there and back with a pause before each, and the processor time it costs.

Run by hand: `.venv/bin/python bench/python/bench_policies.py [--pause MILLISECONDS]`. The policies
take turns; no process is pinned.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import get_args

from processes import fork_child, join_child, new_name, run_guarded
from report import latency_fields, print_record

import penstock
from penstock.handle import Waiting

PATIENCE = 20.0
MESSAGE = bytes(64)
END = b"the end"


def echo(there: str, back: str, policy: Waiting) -> None:
    """Answers each message; at the end it sends the share of a processor that it took."""
    with (
        penstock.Broadcast.create(back, readers=1, waiting=policy) as writer,
        penstock.Broadcast.attach(there, 0, timeout=PATIENCE) as reader,
    ):
        writer.wait_ready(timeout=PATIENCE)
        writer.send_bytes(reader.recv_bytes())
        begin, used = time.perf_counter(), time.process_time()
        while (message := reader.recv_bytes()) != END:
            writer.send_bytes(message)
        share = (time.process_time() - used) / (time.perf_counter() - begin)
        stats = reader.stats()
        writer.send([share, stats.spin_seconds, stats.spins_won, stats.waits_slept])


def measure(policy: Waiting, rounds: int, pause: float) -> tuple[list[int], list[float]]:
    """Times of the rounds in ns; the echo's share of a processor and its statistics of waiting."""
    there, back = new_name(), new_name()
    with penstock.Broadcast.create(there, readers=1, waiting=policy) as writer:
        child = fork_child(lambda: echo(there, back, policy))
        with penstock.Broadcast.attach(back, 0, timeout=PATIENCE) as reader:
            writer.wait_ready(timeout=PATIENCE)
            writer.send_bytes(MESSAGE)
            reader.recv_bytes(timeout=PATIENCE)
            samples = []
            for _ in range(rounds):
                time.sleep(pause)
                begin = time.perf_counter_ns()
                writer.send_bytes(MESSAGE)
                reader.recv_bytes(timeout=PATIENCE)
                samples.append(time.perf_counter_ns() - begin)
            writer.send_bytes(END)
            costs = reader.recv(timeout=PATIENCE)
        join_child(child)
    return samples, costs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--pause", type=float, default=2.0, metavar="MILLISECONDS")
    arguments = parser.parse_args()
    turns, rounds = (2, 100) if arguments.quick else (5, 500)

    def body() -> None:
        measured = {policy: ([], []) for policy in get_args(Waiting)}
        for _ in range(turns):
            for policy, (samples, costs) in measured.items():
                times, cost = measure(policy, rounds, arguments.pause / 1e3)
                samples.append(times)
                costs.append(cost)
        for policy, (samples, costs) in measured.items():
            shares, spun, won, slept = zip(*costs, strict=True)
            print_record(
                "python_policies",
                "penstock",
                waiting=policy,
                pause_ms=arguments.pause,
                processor_share=sum(shares) / turns,
                spin_seconds=sum(spun),
                spins_won=sum(won),
                waits_slept=sum(slept),
                **latency_fields(samples, 1),
            )

    return run_guarded(300, body)


if __name__ == "__main__":
    sys.exit(main())
