"""Turns of contenders: one driver and its readers.

All wait in semaphores between turns, so a contender that is not on costs nothing.
"""

from __future__ import annotations

import mmap
import multiprocessing
import struct
import time
from collections.abc import Callable

from processes import fork_child, join_child, pin_reader

_TURN = struct.Struct("<qq")  # contender, count
_TIME = struct.Struct("<q")  # when a reader finished


class Stage:
    """Forks and pins the readers; each calls ``open`` once, then ``part`` for every turn."""

    def __init__(
        self,
        readers: int,
        open_reader: Callable[[int], None],
        part: Callable[[int, int], None],
        close: Callable[[], None],
    ) -> None:
        context = multiprocessing.get_context("fork")
        self.readers = readers
        self._board = mmap.mmap(-1, mmap.PAGESIZE)
        self._starts = [context.Semaphore(0) for _ in range(readers)]
        self._ready = context.Semaphore(0)
        self._ended = context.Semaphore(0)
        self._part = part

        def body(rank: int) -> None:
            open_reader(rank)  # first, so that a contender's threads are not pinned with the reader
            pin_reader(rank)
            self._play(rank)
            close()

        self.pids = [fork_child(lambda rank=rank: body(rank)) for rank in range(readers)]

    def begin(self, contender: int, count: int) -> None:
        """Start a turn; returns once every reader is about to receive."""
        _TURN.pack_into(self._board, 0, contender, count)
        for start in self._starts:
            start.release()
        for _ in self._starts:
            self._ready.acquire()

    def end(self) -> int:
        """Return when every reader has finished the turn: the time of the last one, in ns."""
        for _ in self._starts:
            self._ended.acquire()
        return max(
            _TIME.unpack_from(self._board, _TURN.size + rank * _TIME.size)[0]
            for rank in range(self.readers)
        )

    def leave(self) -> None:
        """End the readers."""
        _TURN.pack_into(self._board, 0, 0, 0)
        for start in self._starts:
            start.release()
        for pid in self.pids:
            join_child(pid)

    def _play(self, rank: int) -> None:
        while True:
            self._starts[rank].acquire()
            contender, count = _TURN.unpack_from(self._board, 0)
            if count == 0:
                return
            self._ready.release()
            self._part(contender, count)
            _TIME.pack_into(self._board, _TURN.size + rank * _TIME.size, time.perf_counter_ns())
            self._ended.release()
