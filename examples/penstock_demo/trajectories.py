"""`penstock demo --trajectories`: environments and a trainer at work on real text. One environment
is killed, then the trainer; both come back, and at the end every group is accounted for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from penstock.cli import output
from penstock.trajectories import TrajectoryReader, TrajectoryStats
from penstock_demo.corpus import read_corpus
from penstock_demo.rollouts import GROUP_SIZES, SEQUENCES, play_environment, play_trainer
from penstock_demo.worker_pool import ProcessEnded

__all__ = ["Account", "run"]

_MAX_STALENESS: Final = 2
_KILL_ENVIRONMENT: Final = 0.35  # share of the time
_KILL_TRAINER: Final = 0.65
_LOOK: Final = 0.5  # seconds between two lines
_DRAIN: Final = 60.0
_SPAWN: Final = multiprocessing.get_context("spawn")


@dataclass
class Account:
    """The fate of every group; `ok` if each was trained on exactly once."""

    put: int = 0  #: groups whose environment survived its put
    trained: int = 0  #: acknowledged groups, each counted once
    redelivered: int = 0  #: of these, marked as redelivered
    lost: int = 0  #: put, or before one that was trained on, but never read
    doubled: int = 0  #: read again without a mark
    torn: int = 0
    stalest: int = 0  #: versions
    kills: int = 0
    failed: int = 0  #: processes that failed by themselves

    @property
    def ok(self) -> bool:
        return not (self.lost or self.doubled or self.torn or self.failed) and self.trained > 0


def run(path: Path | None, seconds: float, json: bool) -> Account:
    """Run the demo, print a line at intervals unless `json`, and return the account. Raises OSError
    if there is nothing at `path`, ProcessEnded, penstock.Error."""
    read_corpus(path)  # once, here: a PATH without bytes is an error
    queue = f"demo-trajectories-{os.getpid()}"
    with (
        tempfile.TemporaryDirectory(prefix="penstock-demo-") as folder,
        TrajectoryReader.create(
            queue, sequences=SEQUENCES, max_staleness=_MAX_STALENESS, capacity="256MiB"
        ) as overseer,
    ):
        show = _Show(quiet=json)
        pool = _WorkerPool(queue, path, Path(folder))
        try:
            pool.play(overseer, seconds, show)
        finally:
            pool.kill_all()
            overseer.discard()
        account = pool.settle()
        show.result(account)
        if json:
            output.print_json({**asdict(account), "ok": account.ok})
        return account


class _WorkerPool:
    """The processes, their ledgers, and their deaths."""

    def __init__(self, queue: str, path: Path | None, folder: Path) -> None:
        self._queue = queue
        self._path = path
        self._folder = folder
        self._stop = folder / "stop"
        self._lives: Counter[int] = Counter()
        self._environments = [self._start_environment(rank) for rank in range(len(GROUP_SIZES))]
        self._trainer = self._start_trainer()
        self._kills = 0
        self._failed = 0

    def _start_environment(self, rank: int) -> BaseProcess:
        life = self._lives[rank]
        self._lives[rank] += 1
        ledger = self._folder / f"env{rank}.{life}"
        return self._start(
            play_environment, self._queue, rank, life, self._path, ledger, self._stop
        )

    def _start_trainer(self) -> BaseProcess:
        return self._start(play_trainer, self._queue, self._folder / "trainer")

    def _start(self, play: Any, *args: Any) -> BaseProcess:
        process = _SPAWN.Process(target=play, args=args)
        process.start()
        return process

    def play(self, overseer: TrajectoryReader, seconds: float, show: _Show) -> None:
        deadline = time.monotonic() + _DRAIN
        while overseer.stats().batches == 0:  # all have started, which takes a while
            self._check()
            if time.monotonic() > deadline:
                raise ProcessEnded(f"there was no batch after {_DRAIN:g} s")
            self._trainer.join(0.05)
        begun = time.monotonic()
        deeds = [(_KILL_ENVIRONMENT, self._kill_environment), (_KILL_TRAINER, self._kill_trainer)]
        while deeds or time.monotonic() - begun < seconds:
            passed = time.monotonic() - begun
            if deeds and passed > deeds[0][0] * seconds:
                show.event(passed, deeds.pop(0)[1]())
            show.line(passed, overseer.stats())
            self._check()
            self._trainer.join(_LOOK)  # ends early if the trainer dies
        self._stop.touch()
        for process in self._environments:
            process.join(_DRAIN)
        overseer.end()
        self._trainer.join(_DRAIN)
        self._check()

    def _check(self) -> None:
        for process in (*self._environments, self._trainer):
            if process.exitcode not in (None, 0):
                raise ProcessEnded(f"process {process.pid} of the demo ended by itself")

    def _kill(self, process: BaseProcess) -> int:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        self._kills += 1
        return process.pid

    def _kill_environment(self) -> str:
        pid = self._kill(self._environments[1])
        self._environments[1] = self._start_environment(1)
        return f"environment env1 (pid {pid}) killed; another one takes its place"

    def _kill_trainer(self) -> str:
        pid = self._kill(self._trainer)
        self._trainer = self._start_trainer()
        return f"trainer (pid {pid}) killed; what it had not acknowledged goes to the next one"

    def kill_all(self) -> None:
        for process in (*self._environments, self._trainer):
            if process.is_alive():
                self._failed += 1
                process.kill()
            process.join()

    def settle(self) -> Account:
        """Compare the groups put with those trained on."""
        account = Account(kills=self._kills, failed=self._failed)
        trained: set[str] = set()
        reads: Counter[str] = Counter()
        for line in (self._folder / "trainer").read_text().splitlines():
            word, label, *rest = line.split()
            if word == "read":
                reads[label] += 1
                account.torn += rest[0] == "torn"
                is_marked = int(rest[1]) > 1
                account.redelivered += is_marked
                account.doubled += reads[label] > 1 and not is_marked
            else:
                trained.add(label)
                account.stalest = max(account.stalest, int(rest[0]))
        # A trainer killed between its acknowledgement and its ledger line has read the group.
        trained |= set(reads)
        account.trained = len(trained)
        account.put, expected = self._expected(trained)
        account.lost = len(expected - trained)
        return account

    def _expected(self, trained: set[str]) -> tuple[int, set[str]]:
        """Every group up to the last known one of each process: numbers have no gaps."""
        expected: set[str] = set()
        put = 0
        for rank, lives in self._lives.items():
            for life in range(lives):
                ledger = self._folder / f"env{rank}.{life}"
                lines = ledger.read_text().splitlines() if ledger.exists() else []
                put += len(lines)
                prefix = f"env{rank}.{life}:"
                seen = [int(label[len(prefix) :]) for label in trained if label.startswith(prefix)]
                count = max([len(lines) - 1, *seen], default=-1) + 1
                expected |= {f"{prefix}{number}" for number in range(count)}
        return put, expected


class _Show:
    """Plain lines, for a terminal and for a log."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._say(
            f"{len(GROUP_SIZES)} environments, groups of {GROUP_SIZES} sequences of real text"
        )
        self._say(f"a trainer takes batches of {SEQUENCES}, at most {_MAX_STALENESS} versions old")

    def _say(self, line: str) -> None:
        if not self._quiet:
            print(line, flush=True)

    def line(self, passed: float, stats: TrajectoryStats) -> None:
        waiting = sum(one.waiting_sequences for one in stats.environments)
        running = sum(one.running_groups for one in stats.environments)
        self._say(
            f"{passed:5.1f} s  version {stats.version:5}  {stats.groups:6} groups and "
            f"{stats.sequences:7} sequences trained on, {waiting:4} waiting or in use, "
            f"{running} rollouts running"
        )

    def event(self, passed: float, what: str) -> None:
        self._say(f"{passed:5.1f} s  {what}")

    def result(self, account: Account) -> None:
        self._say(
            f"{account.put} groups put, {account.trained} trained on, {account.redelivered} of "
            f"them redelivered and marked; lost {account.lost}, doubled {account.doubled}, torn "
            f"{account.torn}, {account.stalest} versions old at most: "
            f"{'every group exactly once' if account.ok else 'NOT in order'}"
        )
