"""The state of the demo at one moment, in numbers; views turn it into text. A view gets only this,
so the driver is independent of screens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from penstock.state import ReaderState
from penstock_demo import latency
from penstock_demo.corpus import Corpus
from penstock_demo.result import Result
from penstock_demo.story import Event
from penstock_demo.worker_pool import Worker


@dataclass(frozen=True)
class Plan:
    """The plan, for the first line."""

    workers: int
    goal: str  # "18 s", "4,000 steps"
    kills: bool


@dataclass(frozen=True)
class Row:
    """A worker over the last second. None where a value is unknown."""

    rank: int
    pid: int
    state: str  # "starting", "checking", "stopped", "killed", "died", "finished"
    replaces: bool
    received: int
    messages_per_s: float | None = None
    bytes_per_s: float | None = None
    lag: int | None = None
    p50: float | None = None
    p99: float | None = None
    processor: float | None = None


@dataclass(frozen=True)
class Snapshot:
    fraction: float
    elapsed: float
    act: str
    steps: int
    bytes: int
    reserved: int  # shared memory of the segment, in bytes
    rows: list[Row]
    events: list[Event]
    waiting_for: str  # the reason why the driver waits; usually empty


class View(Protocol):
    """A way to show the demo. Called from the driver's thread only."""

    def begin(self, plan: Plan) -> None:
        """Called before anything else."""

    def start(self, corpus: Corpus, segment: str) -> None:
        """The data is read; workers are about to start."""

    def show(self, snapshot: Snapshot) -> None: ...
    def stop(self) -> None:
        """No more snapshots: the demo is over or was interrupted. May be called twice."""

    def judge(self, result: Result) -> None:
        """The account, after stop()."""


def row_of(worker: Worker, reader: ReaderState) -> Row:
    """The last second's reports of a worker, and the writer's view of its rank."""
    received = worker.report.get("received", 0)
    state = _state(worker, reader.stopped)
    row = Row(worker.rank, worker.pid, state, worker.orders.replaces, received)
    if worker.dead or len(worker.reports) < 2:
        return row
    old, new = worker.reports[0], worker.reports[-1]
    seconds = max(new["at"] - old["at"], 1e-6)
    counts = np.sum(
        [new["latency"][pace] - old["latency"][pace] for pace in new["latency"]], axis=0
    )
    return replace(
        row,
        messages_per_s=(received - old["received"]) / seconds,
        bytes_per_s=(new["bytes"] - old["bytes"]) / seconds,
        lag=reader.lag_messages,
        p50=latency.percentile(counts, 0.50),
        p99=latency.percentile(counts, 0.99),
        processor=(new["processor"] - old["processor"]) / seconds,
    )


def _state(worker: Worker, stopped: bool) -> str:
    if worker.dead:
        return "killed" if worker.killed else "died"
    if worker.finished:
        return "finished"
    if stopped:
        return "stopped"
    return "checking" if worker.has_steps else "starting"
