"""`penstock demo --store`: workers share chunks of real data through a store that is too small for
all of it. One is killed at work, another while it holds reservations and pins; at the end every
object found had the right bytes, and every byte of the store is accounted for."""

from __future__ import annotations

import json
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
from penstock.errors import Error
from penstock.state import StoreStats
from penstock.store import Store
from penstock_demo.chunks import PIECE, hold_all_it_can, want_chunks
from penstock_demo.corpus import read_corpus
from penstock_demo.worker_pool import ProcessEnded

__all__ = ["Account", "run"]

_CAPACITY: Final = 8 << 20
_HELD: Final = 5 << 20  # of it, by the holder, which is killed then
_WANTED: Final = 4 << 20  # a request that finds no room until the holder is dead
_KILL_WORKER: Final = 0.3  # share of the time
_KILL_HOLDER: Final = 0.6
_OTHERS: Final = 8  # participants beside the workers: this process, the holder, replacements
_LOOK: Final = 0.5  # seconds between two lines
_PATIENCE: Final = 60.0
_SPAWN: Final = multiprocessing.get_context("spawn")


@dataclass
class Account:
    """The result; `ok` if every object found was right and nothing is left."""

    hits: int = 0
    puts: int = 0
    refused: int = 0  #: for want of room, while the holder had most of it
    wrong: int = 0
    bytes: int = 0  #: compared
    evicted: int = 0
    kills: int = 0
    deaths: int = 0  #: that the store noticed
    had_again: bool = False  #: the memory of the dead, by the very next request
    unaccounted: int = -1  #: bytes that are neither used nor free, or used by no object
    left: int = -1  #: bytes used after everything was removed
    failed: int = 0  #: processes that failed by themselves

    @property
    def ok(self) -> bool:
        return (
            self.hits > 0
            and self.wrong == self.unaccounted == self.left == self.failed == 0
            and self.deaths == self.kills
            and self.had_again
        )


def run(path: Path | None, workers: int, seconds: float, json: bool) -> Account:
    """Run the demo, print a line at intervals unless `json`, and return the account. Raises OSError
    if there is nothing at `path`, ProcessEnded, penstock.Error."""
    read_corpus(path)  # once, here: a PATH without bytes is an error
    with (
        tempfile.TemporaryDirectory(prefix="penstock-demo-") as folder,
        Store.create(
            f"demo-store-{os.getpid()}", capacity=_CAPACITY, participants=workers + _OTHERS
        ) as store,
    ):
        show = _Show(json, workers)
        pool = _WorkerPool(store, path, workers, Path(folder))
        try:
            pool.play(seconds, show)
        finally:
            pool.kill_all()
        account = pool.settle()
        show.result(account)
        if json:
            output.print_json({**asdict(account), "ok": account.ok})
        return account


class _WorkerPool:
    """The processes, their ledgers, and their deaths."""

    def __init__(self, store: Store, path: Path | None, workers: int, folder: Path) -> None:
        self._store = store
        self._path = path
        self._folder = folder
        self._stop = folder / "stop"
        self._lives: Counter[int] = Counter()
        self._workers = [self._start_worker(rank) for rank in range(workers)]
        self._holder: BaseProcess | None = None
        self._account = Account()

    def _start_worker(self, rank: int) -> BaseProcess:
        life = self._lives[rank]
        self._lives[rank] += 1
        ledger = self._folder / f"worker{rank}.{life}.json"
        return self._start(
            want_chunks, self._store.name, rank, life, self._path, ledger, self._stop
        )

    def _start(self, play: Any, *args: Any) -> BaseProcess:
        process = _SPAWN.Process(target=play, args=args)
        process.start()
        return process

    def play(self, seconds: float, show: _Show) -> None:
        deadline = time.monotonic() + _PATIENCE
        while self._store.stats().evicted == 0:  # all work, and there is pressure
            self._check()
            if time.monotonic() > deadline:
                raise ProcessEnded(f"the workers had not filled the store after {_PATIENCE:g} s")
            self._workers[0].join(0.05)
        begun = time.monotonic()
        deeds = [(_KILL_WORKER, self._kill_worker), (_KILL_HOLDER, self._kill_holder)]
        while deeds or time.monotonic() - begun < seconds:
            passed = time.monotonic() - begun
            if deeds and passed > deeds[0][0] * seconds:
                show.event(passed, deeds.pop(0)[1]())
            show.line(passed, self._store.stats())
            self._check()
            self._workers[0].join(_LOOK)  # ends early if the worker dies
        self._stop.touch()
        for process in self._workers:
            process.join(_PATIENCE)
        self._check()

    def _check(self) -> None:
        for process in self._workers:
            if process.exitcode not in (None, 0):
                raise ProcessEnded(f"process {process.pid} of the demo ended by itself")

    def _kill(self, process: BaseProcess) -> int:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        self._account.kills += 1
        return process.pid

    def _kill_worker(self) -> str:
        pid = self._kill(self._workers[-1])
        self._workers[-1] = self._start_worker(len(self._workers) - 1)
        return f"worker (pid {pid}) killed at work; another one takes its place"

    def _kill_holder(self) -> str:
        """The holder has most of the store, and is killed: the next request gets its memory."""
        ready = self._folder / "holding"
        self._holder = self._start(hold_all_it_can, self._store.name, _HELD, ready)
        while not ready.exists():
            if self._holder.exitcode is not None:
                raise ProcessEnded("the process that was to hold the store ended by itself")
            self._holder.join(0.05)
        held = self._store.stats()
        pid = self._kill(self._holder)
        keys = [f"wanted:{number}" for number in range(_WANTED // PIECE)]
        wanted = self._store.reserve_many(keys, PIECE)
        self._account.had_again = not any(isinstance(one, Error) for one in wanted)
        del wanted
        result = "was had again at once" if self._account.had_again else "is NOT to be had"
        return (
            f"process {pid} killed with {held.staged_bytes >> 20} MiB reserved and "
            f"{held.in_use} objects in use; {_WANTED >> 20} MiB of it {result}"
        )

    def kill_all(self) -> None:
        for process in (*self._workers, *filter(None, [self._holder])):
            if process.is_alive():
                self._account.failed += 1
                process.kill()
            process.join()

    def settle(self) -> Account:
        """Add the ledgers up, and empty the store."""
        account = self._account
        for ledger in self._folder.glob("worker*.json"):
            for name, number in json.loads(ledger.read_text()).items():
                setattr(account, name, getattr(account, name) + number)
        stats = self._store.stats()
        parts = (
            stats.object_bytes
            + stats.staged_bytes
            + stats.doomed_bytes
            + stats.padding_bytes
            + stats.other_bytes
        )
        account.unaccounted = abs(stats.capacity - stats.used_bytes - stats.free_bytes) + abs(
            stats.used_bytes - parts
        )
        account.evicted = stats.evicted
        account.deaths = stats.deaths
        self._store.clear()
        account.left = self._store.stats().used_bytes
        return account


class _Show:
    """Plain lines, for a terminal and for a log."""

    def __init__(self, quiet: bool, workers: int) -> None:
        self._quiet = quiet
        self._say(
            f"{workers} workers want chunks of real data, through a store of {_CAPACITY >> 20} MiB"
        )

    def _say(self, line: str) -> None:
        if not self._quiet:
            print(line, flush=True)

    def line(self, passed: float, stats: StoreStats) -> None:
        looks = max(stats.hits + stats.misses, 1)
        self._say(
            f"{passed:5.1f} s  {stats.objects:4} objects, {stats.used_bytes / stats.capacity:4.0%} "
            f"full, {stats.in_use:3} pinned, {stats.evicted:6} evicted, {stats.hits:7} hits of "
            f"{looks:7} looks"
        )

    def event(self, passed: float, what: str) -> None:
        self._say(f"{passed:5.1f} s  {what}")

    def result(self, account: Account) -> None:
        self._say(
            f"{account.hits} objects found and compared, {account.bytes >> 20} MiB, "
            f"{account.wrong} wrong; {account.puts} put, {account.evicted} evicted, "
            f"{account.refused} refused; {account.kills} killed, {account.deaths} deaths noticed; "
            f"{account.unaccounted} bytes unaccounted for, {account.left} left: "
            f"{'everything in order' if account.ok else 'NOT in order'}"
        )
