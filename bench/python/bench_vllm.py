"""vLLM's own message queue and Penstock in its place, in turns in one run.

Runs in an environment with the real vLLM (build/vllm, which `./dev vllm` makes):

    build/vllm/bin/python bench/python/bench_vllm.py [--quick] [--json FILE] [--only PART ...]

No process is pinned. The bare ping-pong plays in each turn, where build/release/bench is there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.pop("PENSTOCK_VLLM", None)  # vLLM's modules are to be its own here

from ping_pong import PING_PONG, PingPong
from processes import fork_child, run_guarded
from report import latency_fields, moment_fields, print_record
from vllm_queues import BURST, SYNC, Crew, Modules, payload, processor_of
from vllm_tables import tables

SIZES = {
    "100 B": 100,
    "4 KiB": 4 << 10,
    "64 KiB": 64 << 10,
    "1 MiB": 1 << 20,
    "16 MiB": 16 << 20,
    "24 MiB": 24 << 20,
    "100 MiB": 100 << 20,
}
READERS = (1, 2, 4, 8)
OWN = "vLLM"
OURS = "Penstock"
GAP = 0.002  # between messages that are sent apart
CAP = 5.0  # seconds that a death may stay unnoticed

Records = list[dict[str, Any]]


def modules() -> list[Modules]:
    from vllm.distributed.device_communicators import shm_broadcast as own

    from penstock.integrations.vllm import leftovers
    from penstock.integrations.vllm import shm_broadcast as ours

    # Processes are forked here without multiprocessing, whose tracker does not learn of their end.
    leftovers.is_in_vllm = lambda: False
    if own is ours:
        raise SystemExit("vLLM's modules are Penstock's here: unset PENSTOCK_VLLM")
    return [
        Modules(OWN, own),
        Modules(OURS, ours),
        Modules(f"{OURS}, latency", ours, "latency"),
    ]


class Bench:
    """One run: its contenders, its records, and how much it does."""

    def __init__(self, quick: bool, turns: int) -> None:
        self.quick = quick
        self.turns = range(turns)
        self.contenders = modules()
        self.ping_pong = PingPong()
        self.records: Records = []

    def record(self, part: str, who: str, **fields: Any) -> None:
        self.records.append({"part": part, "who": who, **fields})
        print_record(f"vllm_{part}", who, **fields)


# --- messages ----------------------------------------------------------------------------------


def apart_count(nbytes: int, quick: bool) -> int:
    """Messages of a turn: some tenths of a second, whoever sends them."""
    most = 20 if quick else 120
    return max(3, min(most, (64 << 20) // nbytes))


def burst_count(nbytes: int, readers: int, quick: bool) -> int:
    most = 1000 if quick else 5000
    return max(3, min(most, (256 << 20) // nbytes // readers))


def measure_apart(crew: Crew, nbytes: int, count: int) -> tuple[list[int], float]:
    """The latencies at all readers, and the processors in use meanwhile."""
    value = payload(nbytes)
    crew.one_way(value)
    read = processor_of([os.getpid(), *crew.children])
    began, used = time.perf_counter(), read()
    samples: list[int] = []
    for _ in range(count):
        samples += crew.one_way(value)
        time.sleep(GAP)
    return samples, (read() - used) / (time.perf_counter() - began)


def measure_burst(crew: Crew, nbytes: int, count: int) -> float:
    """Messages a second, until all readers have received them."""
    value = payload(nbytes)
    began = time.perf_counter()
    for _ in range(count):
        crew.send(BURST, value)
    crew.send(SYNC)
    crew.wait()
    return count / (time.perf_counter() - began)


def messages(bench: Bench) -> None:
    for readers in READERS:
        for size, nbytes in SIZES.items():
            if bench.quick and nbytes > 24 << 20:
                continue
            one_size(bench, readers, size, nbytes)


def one_size(bench: Bench, readers: int, size: str, nbytes: int) -> None:
    latencies: dict[str, list[list[int]]] = {one.name: [] for one in bench.contenders}
    shares: dict[str, list[float]] = {one.name: [] for one in bench.contenders}
    rates: dict[str, list[float]] = {one.name: [] for one in bench.contenders}
    moments = []
    for _ in bench.turns:
        moments.append(bench.ping_pong.play())
        for one in bench.contenders:
            with Crew(one, readers) as crew:
                apart, share = measure_apart(crew, nbytes, apart_count(nbytes, bench.quick))
                latencies[one.name].append(apart)
                shares[one.name].append(share)
                rates[one.name].append(
                    measure_burst(crew, nbytes, burst_count(nbytes, readers, bench.quick))
                )
    for one in bench.contenders:
        bench.record(
            "messages",
            one.name,
            size=size,
            readers=readers,
            processors=statistics.median(shares[one.name]),
            messages_per_second=statistics.median(rates[one.name]),
            **latency_fields(latencies[one.name], 1),
            **moment_fields(moments),
        )


# --- calls -------------------------------------------------------------------------------------


def calls(bench: Bench) -> None:
    """One broadcast to two workers, and their two answers."""
    count = 50 if bench.quick else 300
    for gap in (0.0, 0.005, 0.02):
        turns: dict[str, list[list[int]]] = {one.name: [] for one in bench.contenders}
        shares: dict[str, list[float]] = {one.name: [] for one in bench.contenders}
        moments = []
        for _ in bench.turns:
            moments.append(bench.ping_pong.play())
            for one in bench.contenders:
                with Crew(one, 2, answers=True) as crew:
                    samples, share = measure_calls(crew, count, gap)
                turns[one.name].append(samples)
                shares[one.name].append(share)
        for one in bench.contenders:
            bench.record(
                "calls",
                one.name,
                gap_ms=gap * 1e3,
                workers_processors=statistics.median(shares[one.name]),
                **latency_fields(turns[one.name], 1),
                **moment_fields(moments),
            )


def measure_calls(crew: Crew, count: int, gap: float) -> tuple[list[int], float]:
    for _ in range(10):
        crew.round_trip()
    read = processor_of(crew.children)
    began, used = time.perf_counter(), read()
    samples = []
    for _ in range(count):
        samples.append(crew.round_trip())
        if gap:
            time.sleep(gap)
    return samples, (read() - used) / (time.perf_counter() - began)


# --- waiting -----------------------------------------------------------------------------------


def wakes(bench: Bench) -> None:
    """A message to readers that have waited for longer than vLLM's spin."""
    count = 2 if bench.quick else 6
    for readers in (1, 4):
        turns: dict[str, list[list[int]]] = {one.name: [] for one in bench.contenders}
        with contextlib.ExitStack() as stack:
            crews = {one.name: stack.enter_context(Crew(one, readers)) for one in bench.contenders}
            for _ in range(count):
                time.sleep(1.5)  # all of them park
                for name, crew in crews.items():
                    turns[name].append(crew.one_way(payload(100)))
                    time.sleep(1.2)
        for name, samples in turns.items():
            bench.record("wakes", name, readers=readers, **latency_fields(samples, 1))


def idle(bench: Bench) -> None:
    """Processor time of four readers after a message, in the first second and in the next three."""
    for one in bench.contenders:
        first, next_three = [], []
        for _ in bench.turns:
            with Crew(one, 4) as crew:
                read = processor_of(crew.children)
                crew.one_way(payload(100))
                begin = read()
                time.sleep(1.0)
                after_one = read()
                time.sleep(0.5)
                parked = read()
                time.sleep(3.0)
                first.append(after_one - begin)
                next_three.append(read() - parked)
        bench.record(
            "idle",
            one.name,
            first_second=statistics.median(first),
            next_three_seconds=statistics.median(next_three),
        )


# --- memory ------------------------------------------------------------------------------------


def in_shm() -> tuple[int, int]:
    """Bytes of /dev/shm that are taken, and that its files may take by their size."""
    facts = os.statvfs("/dev/shm")
    files = [file for file in os.scandir("/dev/shm") if file.is_file()]
    apparent = sum(file.stat().st_size for file in files)
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize, apparent


def memory(bench: Bench) -> None:
    """Of the queues of an engine with two workers: one to both, one back from each."""
    for one in bench.contenders[:2]:
        before = in_shm()
        with Crew(one, 2, answers=True) as crew:
            new = in_shm()
            for _ in range(50):
                crew.round_trip()
            small = in_shm()
            for _ in range(20):
                crew.send(BURST, payload(1 << 20))
            crew.send(SYNC)
            crew.wait()
            large = in_shm()
        bench.record(
            "memory",
            one.name,
            files_bytes=new[1] - before[1],
            new_bytes=new[0] - before[0],
            after_calls_bytes=small[0] - before[0],
            after_1_mib_bytes=large[0] - before[0],
        )


# --- deaths ------------------------------------------------------------------------------------


def deaths(bench: Bench) -> None:
    for one in bench.contenders[:2]:
        for who, act in (("reader", reader_dies), ("writer", writer_dies)):
            seconds = [act(one) for _ in range(1 if one.name == OWN or bench.quick else 5)]
            noticed = [each for each in seconds if each < CAP]
            bench.record(
                "deaths",
                one.name,
                dead=who,
                noticed=len(noticed),
                of=len(seconds),
                longest_ms=max(noticed) * 1e3 if noticed else None,
            )


@contextlib.contextmanager
def expected_deaths() -> Iterator[None]:
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def reader_dies(one: Modules) -> float:
    """Seconds from a reader's death to the writer's error; CAP if there is none."""
    with expected_deaths():
        crew = Crew(one, 1)
        crew.one_way(payload(100))
        os.kill(crew.children[0], signal.SIGKILL)
        died = time.perf_counter()
        error: BaseException | None = None
        try:
            while time.perf_counter() - died < CAP:
                crew.queue.enqueue((BURST, payload(1 << 20)), timeout=CAP)
        except TimeoutError:
            pass
        except Exception as raised:
            error = raised
        seconds = time.perf_counter() - died
        os.waitpid(crew.children[0], 0)
        crew.close()
    return seconds if error is not None else CAP


def writer_dies(one: Modules) -> float:
    """Seconds from the writer's death to the reader's error; CAP if there is none."""
    with expected_deaths():
        told, tell = os.pipe()
        handles, give = multiprocessing.Pipe(duplex=False)

        def write() -> None:
            queue = one.queue(1, 1)
            give.send(queue.export_handle())
            queue.wait_until_ready()
            os.write(tell, b"x")
            time.sleep(60)

        child = fork_child(write)
        queue = one.broadcast.MessageQueue.create_from_handle(handles.recv(), 0)
        queue.wait_until_ready()
        os.read(told, 1)
        os.kill(child, signal.SIGKILL)
        died = time.perf_counter()
        error: BaseException | None = None
        try:
            queue.dequeue(timeout=CAP)
        except TimeoutError:
            pass
        except Exception as raised:
            error = raised
        seconds = time.perf_counter() - died
        os.waitpid(child, 0)
        getattr(queue, "close", queue.shutdown)()
        for descriptor in (told, tell):
            os.close(descriptor)
    return seconds if error is not None else CAP


# --- the run -----------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Bench], None]] = {
    "messages": messages,
    "calls": calls,
    "wakes": wakes,
    "idle": idle,
    "memory": memory,
    "deaths": deaths,
}


def run(quick: bool, turns: int, only: list[str], output: Path | None) -> None:
    bench = Bench(quick, turns)
    began = time.monotonic()
    with open("/proc/loadavg") as file:
        print_record("vllm_machine", PING_PONG, load=file.read().split()[0], cores=os.cpu_count())
    for part in only or PARTS:
        PARTS[part](bench)
    bench.ping_pong.close()
    for line in tables(bench.records):
        print(line)
    print(f"\n{time.monotonic() - began:.0f} s")
    if output is not None:
        output.write_text(json.dumps(bench.records))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=[])
    arguments = parser.parse_args()
    turns = 1 if arguments.quick else arguments.turns
    return run_guarded(1800, lambda: run(arguments.quick, turns, arguments.only, arguments.json))


if __name__ == "__main__":
    sys.exit(main())
