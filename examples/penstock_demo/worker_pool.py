"""The driver's side of its workers: starting, listening to, killing and replacing them. Each worker
reports through its own small Broadcast, so its death blocks no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import penstock
from penstock import _interrupts, inspect
from penstock_demo.worker import REPORT_EVERY, Orders

_REPORTS_KEPT = round(1 / REPORT_EVERY) + 1
_REAP_WITHIN = 5.0  # seconds that a process may take to end


class ProcessEnded(RuntimeError):
    """A process of the demo failed; the message names it."""


class WorkerFailed(ProcessEnded):
    """A worker failed by itself, not by a signal."""


@dataclass
class Worker:
    """A worker process, and its accounts of the last second."""

    rank: int
    orders: Orders
    process: subprocess.Popen[bytes]
    complaints: Any  # the file with its stderr
    channel: penstock.BroadcastReader | None = None
    reports: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_REPORTS_KEPT))
    started_at: float = field(default_factory=time.monotonic)
    killed: bool = False  # by the demo
    dead: bool = False  # it ended before the last step

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def report(self) -> dict[str, Any]:
        """Its latest account; empty before the first."""
        return self.reports[-1] if self.reports else {}

    @property
    def finished(self) -> bool:
        """It reported that it has seen the end of the steps."""
        return bool(self.report.get("finished"))

    @property
    def has_steps(self) -> bool:
        return bool(self.report.get("received"))

    def listen(self, timeout: float = 0) -> None:
        """Take the reports that have arrived; wait at most `timeout` for the first."""
        try:
            if self.channel is None:
                self.channel = penstock.Broadcast.attach(self.orders.reports, rank=0, timeout=0)
            while True:
                self.reports.append(self.channel.recv(timeout=timeout))
                timeout = 0
        except (penstock.NotFound, penstock.Timeout):
            pass  # not there yet, or no new report
        except (penstock.Closed, penstock.PeerDied):
            pass  # every report was taken; the process reports why it ended

    def let_go(self) -> None:
        """End the process, if it still runs, and remove all that it left."""
        if not self.finished:
            self.process.kill()
        self.process.wait(_REAP_WITHIN)
        if self.channel is not None:
            self.channel.close()
        remove_remains(self.orders.reports)
        self.complaints.close()

    def complaint(self) -> str:
        """The last line of its stderr."""
        self.complaints.seek(0)
        lines = self.complaints.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self.process.returncode}"


def remove_remains(name: str) -> None:
    """Remove a segment without living participants; usually the last one to leave did."""
    try:
        inspect.remove_if_abandoned(name, data=True)
    except penstock.NotFound:
        pass


class WorkerPool:
    """All workers of one demo, past ones included. One thread."""

    def __init__(self, steps: str) -> None:
        self._steps = steps
        self.all: list[Worker] = []

    def at(self, rank: int) -> Worker:
        """The current or last worker at this rank."""
        return [worker for worker in self.all if worker.rank == rank][-1]

    @property
    def living(self) -> list[Worker]:
        return [worker for worker in self.all if not worker.dead]

    def start(self, rank: int) -> Worker:
        orders = Orders(
            steps=self._steps,
            rank=rank,
            reports=f"{self._steps}-reports-{len(self.all)}",
            replaces=any(worker.rank == rank for worker in self.all),
        )
        # A process that was started but not yet recorded would outlive the demo.
        with _interrupts.hold_back():
            complaints = tempfile.TemporaryFile()  # noqa: SIM115  the worker's, for its life
            # A session of its own: Ctrl-C is for the driver, which ends the workers in order.
            process = subprocess.Popen(
                [sys.executable, "-m", "penstock_demo.worker", orders.to_json()],
                stdin=subprocess.DEVNULL,
                stdout=complaints,
                stderr=complaints,
                start_new_session=True,
            )
            worker = Worker(rank, orders, process, complaints)
            self.all.append(worker)
        return worker

    def listen(self) -> None:
        for worker in self.living:
            worker.listen()

    def kill(self, worker: Worker) -> float:
        """SIGKILL; returns the time just before."""
        worker.killed = True
        at = time.monotonic()
        os.kill(worker.pid, signal.SIGKILL)
        return at

    def reap(self, worker: Worker) -> None:
        """Note a death. A worker that failed by itself ends the demo with its last words."""
        worker.dead = True
        worker.listen()
        code = worker.process.wait(_REAP_WITHIN)
        if code >= 0:
            raise WorkerFailed(f"worker {worker.rank} (pid {worker.pid}): {worker.complaint()}")

    def check_start(self) -> None:
        """Raise WorkerFailed if a worker ended before it read a step."""
        for worker in self.living:
            if worker.process.poll() is not None and not worker.finished:
                self.reap(worker)

    def wait_for_last_reports(self, within: float) -> None:
        """Wait until every living worker has reported the end, or has ended."""
        deadline = time.monotonic() + within
        for worker in self.living:
            while not worker.finished and time.monotonic() < deadline:
                gone = worker.process.poll() is not None
                worker.listen(timeout=0 if gone else 0.1)
                if gone:
                    break

    def dismiss(self) -> None:
        """End all workers. Leaves no process, and no name in /dev/shm once the writer is closed."""
        for worker in self.all:
            worker.let_go()
        remove_remains(self._steps)
