"""The final account: the steps sent, the steps that each worker received, and whether none is
missing. The demo's exit code depends on nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from penstock_demo import latency
from penstock_demo.ledger import PACES
from penstock_demo.worker_pool import Worker


@dataclass(frozen=True)
class Account:
    """The account of a worker. `first` and `last` are steps; -1 if it never had one."""

    rank: int
    pid: int
    fate: str  # "finished", "killed", "died", "silent" (its last report is missing)
    replacement: bool
    first: int
    last: int
    received: int
    bytes: int
    tensors: int
    lost: int
    disordered: int
    torn: int

    @property
    def is_clean(self) -> bool:
        return self.fate != "silent" and not (self.lost or self.disordered or self.torn)


@dataclass(frozen=True)
class Kill:
    """The death that the demo causes. Times in seconds."""

    rank: int
    pid: int
    at: float
    noticed_after: float | None = None
    noticed_by: str = ""
    replaced_after: float | None = None  # until the replacement's first step


@dataclass(frozen=True)
class Result:
    segment: str
    steps: int
    bytes: int
    tensors: int
    seconds: float
    accounts: list[Account]
    kill: Kill | None
    latency: dict[str, dict[str, float | None]]  # pace -> p50, p99 in seconds, of all workers
    rates: dict[str, float]  # pace -> steps per second
    problems: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return sum(account.lost for account in self.accounts)

    @property
    def torn(self) -> int:
        return sum(account.torn for account in self.accounts)

    @property
    def disordered(self) -> int:
        return sum(account.disordered for account in self.accounts)

    @property
    def received(self) -> int:
        return sum(account.received for account in self.accounts)

    @property
    def received_bytes(self) -> int:
        return sum(account.bytes for account in self.accounts)

    @property
    def ok(self) -> bool:
        return not self.problems and all(account.is_clean for account in self.accounts)

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "segment": self.segment,
            "lost": self.lost,
            "torn": self.torn,
            "disordered": self.disordered,
            "sent": {"steps": self.steps, "bytes": self.bytes, "tensors": self.tensors},
            "seconds": self.seconds,
            "workers": [asdict(account) for account in self.accounts],
            "kill": self.kill and asdict(self.kill),
            "latency_s": self.latency,
            "steps_per_s": self.rates,
            "problems": self.problems,
        }


def account_of(worker: Worker, steps: int) -> Account:
    """A worker's last report, compared with the number of steps sent."""
    report = worker.report
    fate = _fate(worker)
    last = report.get("last", -1)
    lost = report.get("lost", 0)
    if fate in ("finished", "silent"):
        lost += steps - 1 - last  # steps that it still should have received
    return Account(
        rank=worker.rank,
        pid=worker.pid,
        fate=fate,
        replacement=worker.orders.replaces,
        first=report.get("first", -1),
        last=last,
        received=report.get("received", 0),
        bytes=report.get("bytes", 0),
        tensors=report.get("tensors", 0),
        lost=lost,
        disordered=report.get("disordered", 0),
        torn=report.get("torn", 0),
    )


def _fate(worker: Worker) -> str:
    if worker.dead:
        return "killed" if worker.killed else "died"
    return "finished" if worker.finished else "silent"


def latencies(workers: Sequence[Worker]) -> dict[str, dict[str, float | None]]:
    """p50 and p99 over all workers and the whole run, for each pace."""
    answer: dict[str, dict[str, float | None]] = {}
    for pace in PACES:
        counts = latency.no_counts()
        for worker in workers:
            if worker.report:
                counts += np.asarray(worker.report["latency"][pace])
        answer[pace] = {
            "p50": latency.percentile(counts, 0.50),
            "p99": latency.percentile(counts, 0.99),
        }
    return answer
