"""The measurement behind `penstock bench`: a value goes to another process, an answer comes back.
The answer depends on the value's bytes, and is checked, so the value must really be read."""

from __future__ import annotations

import multiprocessing
import secrets
import signal
import time
from dataclasses import dataclass
from multiprocessing.queues import Queue
from typing import Any, Protocol

import numpy as np

import penstock

_WITHIN = 30.0  # seconds for the other process to start, or to answer
_LEAVES_WITHIN = 5.0
_WARM_UP = 20
_FEWEST = 10  # round trips, however long they take


@dataclass(frozen=True)
class Result:
    """Seconds."""

    what: str
    bytes: int
    p50: float
    p99: float
    queue_p50: float
    queue_p99: float

    @property
    def ratio(self) -> float:
        return self.queue_p50 / self.p50


class Channel(Protocol):
    """Both directions between two processes."""

    def send(self, value: Any) -> None: ...
    def receive(self) -> Any: ...


class _PenstockChannel:
    def __init__(self, writer: penstock.BroadcastWriter, reader: penstock.BroadcastReader) -> None:
        self._writer = writer
        self._reader = reader

    def send(self, value: Any) -> None:
        self._writer.send(value, timeout=_WITHIN)

    def receive(self) -> Any:
        return self._reader.recv(timeout=_WITHIN)


class _QueueChannel:
    def __init__(self, out: Queue[Any], back: Queue[Any]) -> None:
        self._out = out
        self._back = back

    def send(self, value: Any) -> None:
        self._out.put(value)

    def receive(self) -> Any:
        return self._back.get(timeout=_WITHIN)


def measure(seconds: float) -> list[Result]:
    """Sends every value through both channels, for that many seconds each."""
    values = [
        ("a small dict", {"step": 1, "ids": [7, 8, 9], "sampling": {"temperature": 0.7}}),
        ("a dict with 64 KiB of tokens", {"step": 2, "tokens": np.arange(16384, dtype=np.int32)}),
        ("an array of 16 MiB", np.arange(4 << 20, dtype=np.float32)),
    ]
    ours = _with_penstock(values, seconds)
    theirs = _with_queue(values, seconds)
    return [
        Result(what, _size(value), *own, *other)
        for (what, value), own, other in zip(values, ours, theirs, strict=True)
    ]


_Values = list[tuple[str, Any]]
_Times = list[tuple[float, float]]


def _with_penstock(values: _Values, seconds: float) -> _Times:
    name = f"bench-{secrets.token_hex(4)}"
    context = multiprocessing.get_context("spawn")
    with penstock.Broadcast.create(name, readers=1) as writer:
        process = context.Process(target=_answer_through_penstock, args=(name,), daemon=True)
        process.start()
        try:
            with penstock.Broadcast.attach(f"{name}-back", rank=0, timeout=_WITHIN) as reader:
                writer.wait_ready(timeout=_WITHIN)
                return _time_all(_PenstockChannel(writer, reader), values, seconds)
        finally:
            writer.close()  # the other process leaves cleanly, and its own segment goes
            process.join(_LEAVES_WITHIN)
            process.kill()
            process.join()


def _with_queue(values: _Values, seconds: float) -> _Times:
    context = multiprocessing.get_context("spawn")
    out, back = context.Queue(), context.Queue()
    process = context.Process(target=_answer_through_queue, args=(out, back), daemon=True)
    process.start()
    try:
        return _time_all(_QueueChannel(out, back), values, seconds)
    finally:
        process.terminate()
        process.join()


def _answer_through_penstock(name: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the measuring process
    with (
        penstock.Broadcast.create(f"{name}-back", readers=1) as writer,
        penstock.Broadcast.attach(name, rank=0, timeout=_WITHIN) as reader,
    ):
        try:
            while True:
                writer.send(_read_in_place(reader))
        except (penstock.Closed, penstock.PeerDied):
            return


def _read_in_place(reader: penstock.BroadcastReader) -> int:
    with reader.recv_view() as value:
        return _digest(value)


def _answer_through_queue(values: Queue[Any], answers: Queue[Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        answers.put(_digest(values.get()))


def _time_all(channel: Channel, values: _Values, seconds: float) -> _Times:
    return [_time(channel, value, seconds) for _, value in values]


def _time(channel: Channel, value: Any, seconds: float) -> tuple[float, float]:
    """p50 and p99 of the round trips of one value."""
    expected = _digest(value)
    for _ in range(_WARM_UP):
        _round_trip(channel, value, expected)
    spans: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(spans) < _FEWEST:
        spans.append(_round_trip(channel, value, expected))
    return float(np.percentile(spans, 50)), float(np.percentile(spans, 99))


def _round_trip(channel: Channel, value: Any, expected: int) -> float:
    started = time.perf_counter()
    channel.send(value)
    answer = channel.receive()
    span = time.perf_counter() - started
    if answer != expected:
        raise RuntimeError(f"the other process read {answer}, and {expected} was sent")
    return span


def _digest(value: Any) -> int:
    """A digest of every byte of the arrays in a value; cheap compared with moving them."""
    if isinstance(value, dict):
        return sum(map(_digest, value.values()))
    if isinstance(value, np.ndarray):
        return int(np.bitwise_xor.reduce(value.view(np.uint64))) & 0x7FFFFFFF
    return 1


def _size(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return value.nbytes if isinstance(value, np.ndarray) else 8
