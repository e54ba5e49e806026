"""A MessageQueue of vLLM's, or of Penstock in its place, with forked readers, used as by the
executor."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from processes import fork_child, join_child

ACK = b"x"
LATENCY, BURST, SYNC, ASK, END = range(5)


@dataclass(frozen=True)
class Modules:
    """What to measure: a module with MessageQueue, and Penstock's policy of waiting."""

    name: str
    broadcast: Any
    waiting: str = "balanced"

    def queue(self, *arguments: Any, **named: Any) -> Any:
        os.environ["PENSTOCK_VLLM_WAITING"] = self.waiting
        return self.broadcast.MessageQueue(*arguments, **named)


class Crew:
    """A writer, in this process, and its readers. Used as a context."""

    def __init__(self, modules: Modules, readers: int, *, answers: bool = False) -> None:
        """With ``answers`` each reader has a queue back, as workers have."""
        self.readers = readers
        self._sent = multiprocessing.RawArray("q", 1)
        self._latencies = multiprocessing.RawArray("q", readers)
        self._acks, self._ack = os.pipe()
        chunk = 16 << 20 if answers else 24 << 20  # as the executor's, and by default
        self.queue = modules.queue(readers, readers, max_chunk_bytes=chunk)
        handle = self.queue.export_handle()
        pipes = [multiprocessing.Pipe(duplex=False) for _ in range(readers)]
        self.children = [
            fork_child(lambda rank=rank: self._read(modules, handle, rank, pipes[rank][1], answers))
            for rank in range(readers)
        ]
        self.answers = []
        for ours, _ in pipes:
            told = ours.recv()
            if answers:
                self.answers.append(modules.broadcast.MessageQueue.create_from_handle(told, 0))
        self.queue.wait_until_ready()
        for one in self.answers:
            one.wait_until_ready()

    def _read(
        self, modules: Modules, handle: Any, rank: int, told: Connection, answers: bool
    ) -> None:
        queue = modules.broadcast.MessageQueue.create_from_handle(handle, rank)
        answer = modules.queue(1, 1) if answers else None
        told.send(answer.export_handle() if answer is not None else None)
        queue.wait_until_ready()
        if answer is not None:
            answer.wait_until_ready()
        while True:
            what, *rest = queue.dequeue(indefinite=True)
            now = time.perf_counter_ns()
            if what == ASK:
                answer.enqueue((1, rest))
                continue
            if what == LATENCY:
                self._latencies[rank] = now - self._sent[0]
            if what in (LATENCY, BURST):
                check(rest[0])
            if what != BURST:
                os.write(self._ack, ACK)
            if what == END:
                return

    def send(self, what: int, payload: Any = None) -> None:
        self.queue.enqueue((what, payload))

    def wait(self) -> None:
        """For all readers to have done what was sent last."""
        left = self.readers
        while left:
            left -= len(os.read(self._acks, left))

    def one_way(self, payload: Any) -> list[int]:
        """Nanoseconds from before the enqueue to after the dequeue, of each reader."""
        self._sent[0] = time.perf_counter_ns()
        self.send(LATENCY, payload)
        self.wait()
        return list(self._latencies)

    def round_trip(self) -> int:
        """Nanoseconds of a call as the executor makes it: one broadcast, an answer of each."""
        began = time.perf_counter_ns()
        self.queue.enqueue((ASK, "execute_model", (list(range(32)),), {}, None))
        for one in self.answers:
            one.dequeue()
        return time.perf_counter_ns() - began

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.send(END)
        self.wait()
        for child in self.children:
            join_child(child)
        self.close()

    def close(self) -> None:
        """Without the readers, which are dead."""
        for one in (self.queue, *self.answers):
            getattr(one, "close", one.shutdown)()
        self.answers.clear()
        del self.queue
        os.close(self._acks)
        os.close(self._ack)


def payload(nbytes: int) -> dict[str, Any]:
    """What is sent: an array in a dict."""
    return {"data": np.full(nbytes, nbytes % 251, np.uint8), "nbytes": nbytes}


def check(received: Any) -> None:
    data, nbytes = received["data"], received["nbytes"]
    if data.nbytes != nbytes or data[0] != nbytes % 251 or data[-1] != nbytes % 251:
        raise RuntimeError("a message came out as something else")


def processor_of(pids: list[int]) -> Callable[[], float]:
    """Reads the processor time of all threads of processes, in seconds, to the nanosecond."""

    def read() -> float:
        tasks = [task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()]
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    return read
