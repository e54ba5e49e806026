"""The driver process of the demo: broadcasts step after step, kills one worker half way, and makes
up the account. Every wait is bounded; however it ends, no process and no name is left behind."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from pathlib import Path

import penstock
from penstock import _interrupts
from penstock.state import ReaderState
from penstock_demo import result
from penstock_demo.corpus import Corpus, read_corpus
from penstock_demo.failures import Failures
from penstock_demo.snapshot import Plan, Snapshot, View, row_of
from penstock_demo.steps import Step, StepMaker
from penstock_demo.story import Story
from penstock_demo.tally import Tally
from penstock_demo.timeline import KILL_AT, Act, Timeline
from penstock_demo.worker_pool import ProcessEnded, WorkerPool

_LOOK_EVERY = 0.1  # seconds between two looks at reports, readers and screen
_READY_WITHIN = 60.0
_STALL_LIMIT = 30.0  # the demo ends if the workers take nothing for so long
_LAST_REPORTS_WITHIN = 20.0


@dataclass(frozen=True)
class Options:
    workers: int = 4
    seconds: float = 18.0
    limit: int | None = None  # steps, instead of seconds
    kill: bool = True
    capacity: str = "4MiB"
    rate: int = 1000  # steps per second at an engine's pace
    tensor_every: int = 200  # steps


class Stalled(ProcessEnded):
    """The demo can't continue; the message names the cause."""


def run(options: Options, path: Path | None, view: View) -> result.Result:
    """The whole demo, with the data at `path` (None: the standard library's sources).
    Raises OSError, Stalled, worker_pool.WorkerFailed, penstock.Error, KeyboardInterrupt."""
    corpus = read_corpus(path)  # first: a PATH without bytes is an error
    goal = f"{options.limit:,} steps" if options.limit else f"{options.seconds:g} s"
    view.begin(Plan(options.workers, goal, options.kill))
    name = f"demo-{secrets.token_hex(4)}"
    view.start(corpus, f"/dev/shm/penstock.{name}")
    pool = WorkerPool(name)
    try:
        with penstock.Broadcast.create(
            name, readers=options.workers, capacity=options.capacity
        ) as writer:
            _start(pool, writer, options.workers)
            return _Run(options, corpus, view, pool, writer).to_the_end()
    finally:
        _interrupts.listen(_interrupts.note)  # the cleanup has its own bounds
        pool.dismiss()


def _start(pool: WorkerPool, writer: penstock.BroadcastWriter, workers: int) -> None:
    for rank in range(workers):
        pool.start(rank)
    deadline = time.monotonic() + _READY_WITHIN
    while not _is_ready(writer, timeout=_LOOK_EVERY):
        pool.check_start()
        if time.monotonic() > deadline:
            raise Stalled(f"the workers did not start within {_READY_WITHIN:.0f} s")


def _is_ready(writer: penstock.BroadcastWriter, timeout: float) -> bool:
    try:
        writer.wait_ready(timeout=timeout)
    except penstock.Timeout:
        return False
    return True


class _Run:
    """A run from the first step to the account. One thread."""

    def __init__(
        self,
        options: Options,
        corpus: Corpus,
        view: View,
        pool: WorkerPool,
        writer: penstock.BroadcastWriter,
    ) -> None:
        self._options = options
        self._view = view
        self._pool = pool
        self._writer = writer
        self._maker = StepMaker(corpus, options.tensor_every)
        self._tally = Tally()
        self._timeline = Timeline(options.seconds, options.limit)
        self._story = Story(self._timeline)
        self._failures = Failures(pool, writer, self._timeline, self._story)
        self._next_look = self._next_step = time.monotonic()

    def to_the_end(self) -> result.Result:
        while not self._is_over():
            if self._holds_back():
                time.sleep(_LOOK_EVERY / 10)  # between two looks at arrivals
            else:
                self._send_step()
            self._look()
            self._keep_pace()
        return self._finish()

    @property
    def _fraction(self) -> float:
        return self._timeline.fraction(self._tally.steps)

    @property
    def _act(self) -> Act:
        return self._timeline.act(self._tally.steps)

    def _is_over(self) -> bool:
        return self._fraction >= 1 and self._has_killed() and not self._awaits_replacement()

    def _awaits_replacement(self) -> bool:
        return self._failures.awaits_replacement()

    def _has_killed(self) -> bool:
        """The death that the demo causes has happened, or none is wanted."""
        kill = self._failures.kill
        return not self._options.kill or (kill is not None and kill.noticed_after is not None)

    def _holds_back(self) -> bool:
        """With a limit of steps, the last one waits for the replacement, which must get it."""
        limit = self._options.limit
        if limit is None or self._tally.steps < limit - 1:
            return False
        if self._tally.steps >= limit:
            return True
        return not self._has_killed() or self._failures.is_short_of_a_reader()

    def _send_step(self) -> None:
        step = self._maker.make(self._tally.steps, self._act.pace)
        started = time.monotonic()
        step["sent_at"] = time.monotonic_ns()  # once: time in the queue counts
        while not self._try_to_send(step):
            blockers = "; ".join(reader.describe() for reader in self._writer.blocked_by())
            waited = time.monotonic() - started
            if waited > _STALL_LIMIT:
                raise Stalled(f"no step could be sent for {waited:.0f} s: {blockers}")
            self._look(waiting_for=blockers)
        self._tally.enter(step)

    def _try_to_send(self, step: Step) -> bool:
        try:
            self._writer.send(step, timeout=_LOOK_EVERY)
        except penstock.Timeout:
            return False
        except penstock.PeerDied as death:
            what = str(death).split(";")[0]  # the event; the rest is advice
            self._failures.notice(f"the writer, in send(): {what}")
            return False
        return True

    def _look(self, waiting_for: str = "") -> None:
        """At intervals: reports, deaths, and the display."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_EVERY
        readers = self._writer.readers()  # first: workers catch up meanwhile
        self._pool.listen()
        self._failures.look()
        is_time = self._fraction >= KILL_AT or self._holds_back()
        if self._options.kill and self._failures.kill is None and is_time:
            self._failures.cause(self._options.workers // 2)
        self._view.show(self._snapshot(readers, waiting_for))

    def _keep_pace(self) -> None:
        """At an engine's pace the next step is due when the engine has computed the last one."""
        now = time.monotonic()
        if self._act.pace == "flat out":
            self._next_step = now
            return
        # A late step does not cause a burst.
        self._next_step = max(self._next_step + 1 / self._options.rate, now - 0.01)
        if self._next_step > now:
            time.sleep(self._next_step - now)

    def _snapshot(self, readers: list[ReaderState], waiting_for: str) -> Snapshot:
        return Snapshot(
            fraction=self._fraction,
            elapsed=self._timeline.elapsed,
            act=self._act.title,
            steps=self._tally.steps,
            bytes=self._tally.bytes,
            reserved=self._writer.stats().reserved_bytes,
            rows=[
                row_of(worker, readers[worker.rank])
                for worker in sorted(self._pool.all, key=lambda worker: worker.rank)
            ],
            events=list(self._story.events),
            waiting_for=waiting_for,
        )

    def _finish(self) -> result.Result:
        seconds = self._timeline.elapsed
        self._writer.close()
        self._pool.wait_for_last_reports(_LAST_REPORTS_WITHIN)
        workers = sorted(self._pool.all, key=lambda worker: worker.rank)
        return result.Result(
            segment=self._writer.name,
            steps=self._tally.steps,
            bytes=self._tally.bytes,
            tensors=self._tally.tensors,
            seconds=seconds,
            accounts=[result.account_of(worker, self._tally.steps) for worker in workers],
            kill=self._failures.kill,
            latency=result.latencies(workers),
            rates=self._tally.rates(),
            problems=self._problems(),
        )

    def _problems(self) -> list[str]:
        problems = [
            f"worker {rank} did not report the end"
            for rank in range(self._options.workers)
            if not self._pool.at(rank).finished
        ]
        kill = self._failures.kill
        if self._options.kill and (kill is None or kill.noticed_after is None):
            problems.append("the kill was not noticed")
        return problems
