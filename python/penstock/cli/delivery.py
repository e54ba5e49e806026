"""Tracks whether the readers of a stream are still there. A reader that dies or leaves is reported
once; the stream goes on for the rest, until none is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import penstock
from penstock.cli import output
from penstock.state import ReaderState

_Answer = TypeVar("_Answer")


class NobodyLeft(ConnectionError):
    """Every reader of the stream left before its end."""


class Delivery:
    """The sender's account of its readers. For the writer's thread only."""

    def __init__(self, writer: penstock.BroadcastWriter) -> None:
        self._writer = writer
        self._lost: dict[int, str] = {}  # rank -> sentence

    @property
    def lost(self) -> list[str]:
        """A sentence for each reader that did not get everything."""
        return list(self._lost.values())

    def keep_trying(self, call: Callable[[], _Answer]) -> _Answer:
        """The call's result; if a reader died, that is recorded and the call repeated."""
        while True:
            try:
                return call()
            except penstock.PeerDied as death:  # noqa: PERF203  once per dead reader
                self.check(str(death))

    def check(self, sentence: str = "") -> None:
        """Records readers that are gone. None may leave before the writer closes."""
        for reader in self._writer.readers():
            if reader.life == "vacant" and reader.rank not in self._lost:
                self._lost[reader.rank] = sentence or f"reader {reader.rank} left before the end"
                output.say(self._lost[reader.rank])
        if len(self._lost) == len(self._writer.readers()):
            raise NobodyLeft("no reader is left; the stream was not sent to its end")

    def wait_until_taken(self) -> None:
        """Waits until every remaining reader has released all messages."""
        pause = 0.0005
        while any(reader.lag_messages for reader in self._readers_left()):
            time.sleep(pause)  # no signal tells a writer that its ring is empty
            pause = min(2 * pause, 0.02)
            self.check()
        self.check()  # a reader that has left has nothing to release

    def _readers_left(self) -> list[ReaderState]:
        return [reader for reader in self._writer.readers() if reader.rank not in self._lost]
