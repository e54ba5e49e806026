"""Deaths among the workers: the one that the demo causes and others, and how each is noticed and
replaced. The only evidence of a death is Penstock's: a rank without a reader."""

from __future__ import annotations

import time
from dataclasses import replace

import penstock
from penstock.state import ReaderState
from penstock_demo.result import Kill
from penstock_demo.story import Story
from penstock_demo.timeline import Timeline
from penstock_demo.worker_pool import Worker, WorkerPool

_REPLACED_WITHIN = 30.0


class Failures:
    """Used by the driver's thread only."""

    def __init__(
        self, pool: WorkerPool, writer: penstock.BroadcastWriter, timeline: Timeline, story: Story
    ) -> None:
        self._pool = pool
        self._writer = writer
        self._timeline = timeline
        self._story = story
        self.kill: Kill | None = None

    def cause(self, rank: int) -> None:
        """Kill the worker at a rank, without telling the code that has to notice it."""
        worker = self._pool.at(rank)
        at = self._pool.kill(worker)
        self.kill = Kill(rank, worker.pid, self._timeline.moment(at))
        self._story.tell(f"SIGKILL to worker {rank} (pid {worker.pid})", "bad", at)

    def look(self) -> None:
        """Notice deaths that no send() has met yet, and replacements that have attached."""
        if self._dead():
            self.notice("the writer, in readers()")
        self._note_replacement()

    def notice(self, by: str) -> None:
        """Note the dead workers and the time, and replace each."""
        now = time.monotonic()
        for worker in self._dead():
            self._note_death(worker, by, now)
            successor = self._pool.start(worker.rank)
            self._story.tell(f"a replacement was started (pid {successor.pid})")

    def awaits_replacement(self) -> bool:
        """A replacement is on its way, and still in time."""
        return any(not worker.has_steps for worker in self._replacements_in_time())

    def is_short_of_a_reader(self) -> bool:
        """The awaited replacement has not even attached: it reports as soon as it has."""
        return any(not worker.reports for worker in self._replacements_in_time())

    def _replacements_in_time(self) -> list[Worker]:
        oldest = time.monotonic() - _REPLACED_WITHIN
        return [
            worker
            for worker in self._pool.living
            if worker.orders.replaces and worker.started_at > oldest
        ]

    def _dead(self) -> list[Worker]:
        gone = [reader.rank for reader in self._writer.readers() if _is_gone(reader)]
        # A rank is vacant, too, while its replacement starts, which has reported nothing yet.
        return [
            worker
            for worker in map(self._pool.at, gone)
            if not worker.dead and (worker.reports or worker.process.poll() is not None)
        ]

    def _note_death(self, worker: Worker, by: str, now: float) -> None:
        span = ""
        if self.kill and worker.killed:
            seconds = self._timeline.moment(now) - self.kill.at
            self.kill = replace(self.kill, noticed_after=seconds, noticed_by=by)
            span = f"{seconds * 1000:.0f} ms later "
        self._story.tell(f"noticed {span}by {by}", "bad", now)
        self._pool.reap(worker)
        received = worker.report.get("received", 0)
        self._story.tell(f"until its last report it had checked {received:,} steps")

    def _note_replacement(self) -> None:
        if self.kill is None or self.kill.replaced_after is not None:
            return
        worker = self._pool.at(self.kill.rank)
        if worker.orders.replaces and worker.has_steps:
            self.kill = replace(self.kill, replaced_after=self._timeline.elapsed - self.kill.at)
            first = worker.report["first"]
            self._story.tell(
                f"it attached at rank {worker.rank} and checks from step {first:,} on", "good"
            )


def _is_gone(reader: ReaderState) -> bool:
    return reader.life == "vacant" or (reader.life == "active" and not reader.alive)
