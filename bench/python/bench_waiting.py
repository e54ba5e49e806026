"""Waiting in Python: the cost of eight parked readers, and how soon a death is noticed.

Like bench/cpp/bench_waiting.cpp and bench_recovery.cpp, for Python.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import threading
import time

from processes import fork_child, join_child, new_name, run_guarded
from report import latency_fields, print_record

import penstock

PATIENCE = 20.0
SETTLING = 1.0  # a long wait begins with short sleeps; the first of a process starts a thread
CPUCLOCK_SCHED = 2


def used_seconds(pid: int) -> float:
    """Processor time of another process, to the nanosecond (its clock, see clock_getcpuclockid)."""
    return time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)


def is_asleep(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "S"


def measure_parked(seconds: float) -> None:
    readers = 8
    name = new_name()
    about_to_wait = [os.pipe() for _ in range(readers)]

    def read_one(rank: int) -> None:
        with penstock.Broadcast.attach(name, rank, timeout=PATIENCE) as reader:
            os.write(about_to_wait[rank][1], b".")
            if reader.recv_bytes() != b"the end":
                raise RuntimeError("another message came")

    pids = [fork_child(lambda rank=rank: read_one(rank)) for rank in range(readers)]
    with penstock.Broadcast.create(name, readers=readers) as writer:
        writer.wait_ready(timeout=PATIENCE)
        for rank, pid in enumerate(pids):
            os.read(about_to_wait[rank][0], 1)
            while not is_asleep(pid):
                os.sched_yield()
        time.sleep(SETTLING)
        begin = time.monotonic()
        before = [used_seconds(pid) for pid in pids]
        time.sleep(seconds)
        used = [used_seconds(pid) - start for pid, start in zip(pids, before, strict=True)]
        span = time.monotonic() - begin
        writer.send_bytes(b"the end")
        for pid in pids:
            join_child(pid)
    print_record(
        "python_parked",
        "penstock",
        readers=readers,
        seconds=span,
        processor_seconds=sum(used),
        worst_share=max(used) / span,
        reader_processor_seconds=used,
    )


class Killer:
    """Kills a process at a random moment from another thread, and records the time."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._killed_at = 0
        self._thread = threading.Thread(target=self._kill)
        self._thread.start()

    def _kill(self) -> None:
        time.sleep(random.uniform(0.001, 0.06))
        self._killed_at = time.perf_counter_ns()
        os.kill(self._pid, signal.SIGKILL)

    def join(self) -> int:
        self._thread.join()
        os.waitpid(self._pid, 0)
        return self._killed_at


def reader_dies() -> int:
    """The time from the death of a reader until the writer that waits for it gets PeerDied, in
    ns."""
    name = new_name()

    def idle() -> None:
        with penstock.Broadcast.attach(name, 0, timeout=PATIENCE):
            signal.pause()

    pid = fork_child(idle)
    with penstock.Broadcast.create(name, readers=1, capacity="64KiB") as writer:
        writer.wait_ready(timeout=PATIENCE)
        message = bytes(1024)
        try:
            while True:
                writer.send_bytes(message, timeout=0)
        except penstock.Timeout:
            pass
        killer = Killer(pid)
        try:
            writer.send_bytes(message, timeout=PATIENCE)
        except penstock.PeerDied:
            return time.perf_counter_ns() - killer.join()
        raise RuntimeError("a writer blocked by a dead reader got no PeerDied")


def writer_dies() -> int:
    """The time from the death of a writer until its parked reader gets PeerDied, in ns."""
    name = new_name()

    def idle() -> None:
        with penstock.Broadcast.create(name, readers=1):
            signal.pause()

    pid = fork_child(idle)
    with penstock.Broadcast.attach(name, 0, timeout=PATIENCE) as reader:
        killer = Killer(pid)
        try:
            reader.recv_bytes(timeout=PATIENCE)
        except penstock.PeerDied:
            return time.perf_counter_ns() - killer.join()
        raise RuntimeError("a reader of a dead writer got no PeerDied")


def consumer_dies() -> int:
    """The time from the death of a consumer until a parked one gets its message, in ns."""
    name = new_name()
    taken, tell = os.pipe()

    def idle() -> None:
        with penstock.Queue.attach(name, timeout=PATIENCE).get_many(timeout=PATIENCE):
            os.write(tell, b".")
            signal.pause()

    with penstock.Queue.create(name) as queue:
        queue.put("kept")
        pid = fork_child(idle)
        os.read(taken, 1)
        killer = Killer(pid)
        if queue.get(timeout=PATIENCE) != "kept":
            raise RuntimeError("another message came")
        returned = time.perf_counter_ns()
    os.close(taken)
    os.close(tell)
    return returned - killer.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    times = 5 if arguments.quick else 50

    def body() -> None:
        for what, measure in (
            ("reader killed, writer gets PeerDied", reader_dies),
            ("writer killed, reader gets PeerDied", writer_dies),
            ("consumer killed, another gets its message", consumer_dies),
        ):
            turns = [[measure()] for _ in range(times)]
            print_record("python_recovery", "penstock", what=what, **latency_fields(turns, 1))
        measure_parked(2 if arguments.quick else 10)

    return run_guarded(120, body)


if __name__ == "__main__":
    sys.exit(main())
