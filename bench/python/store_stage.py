"""Turns of stores: one process puts numbered arrays, another finds, reads and checks them.

The putter waits in a pipe between turns, so a contender that is not on costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from typing import Any

import numpy as np
from processes import fork_child, join_child, pin_reader

Puts = tuple[list[int], list[Any]]  # nanoseconds and position of each


def pattern(size: int) -> Any:
    return np.arange(size // 8, dtype=np.int64)


def key_of(number: int) -> str:
    return f"object-{number}"


def measure_puts(link: Any, first: int, count: int, size: int) -> Puts:
    base = pattern(size)
    array = np.empty_like(base)
    samples, places = [], []
    for number in range(first, first + count):
        np.add(base, number, out=array)  # so that no two arrays share a value at the same index
        begin = time.perf_counter_ns()
        place = link.put(key_of(number), array)
        samples.append(time.perf_counter_ns() - begin)
        places.append(place)
    return samples, places


class Getting:
    """The getter's use of an array: checks both ends while the clock is stopped."""

    def __init__(self, size: int) -> None:
        self._last = size // 8 - 1
        self._number = 0
        self._stopped = 0
        self._goes_on = 0

    def measure(self, link: Any, number: int, place: Any) -> int:
        """Nanoseconds until the array is there, and again from its release."""
        self._number = number
        begin = time.perf_counter_ns()
        link.get(key_of(number), place, self)
        end = time.perf_counter_ns()
        return self._stopped - begin + end - self._goes_on

    def __call__(self, array: Any) -> None:
        self._stopped = time.perf_counter_ns()
        self._require(array[0] == self._number and array[-1] == self._number + self._last)
        self._goes_on = time.perf_counter_ns()

    def _require(self, is_whole: bool) -> None:
        if not is_whole:
            raise RuntimeError(f"{key_of(self._number)} is not what was put")


class Reading(Getting):
    """Sums the array up, and compares all of it while the clock is stopped."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._base = pattern(size)
        self._wanted = np.empty_like(self._base)
        self._sum = int(self._base.sum())

    def __call__(self, array: Any) -> None:
        total = int(array.sum())
        self._stopped = time.perf_counter_ns()
        np.add(self._base, self._number, out=self._wanted)
        self._require(total == self._sum + self._number * self._base.size)
        self._require(np.array_equal(array, self._wanted))
        self._goes_on = time.perf_counter_ns()


def _putter_body(links: Sequence[Any], commands: Any) -> Callable[[], None]:
    def body() -> None:
        pin_reader(0)
        for link in links:
            link.open_putter()
        commands.send(None)
        while (command := commands.recv()) is not None:
            contender, first, count, size = command
            link = links[contender]
            commands.send(measure_puts(link, first, count, size))
            commands.recv()  # everything has been read
            for number in range(first, first + count):
                link.remove(key_of(number))
            commands.send(None)
        for link in links:
            link.close()

    return body


class StoreStage:
    """Forks and pins the putter. Fails if the putter does: its pipe breaks."""

    def __init__(self, links: Sequence[Any]) -> None:
        self._links = links
        self._number = 0
        self._pipe, theirs = Pipe()
        self._pid = fork_child(_putter_body(links, theirs))
        theirs.close()
        self._pipe.recv()

    def turn(self, contender: int, count: int, uses: Sequence[Getting], size: int) -> list[Any]:
        """Nanoseconds of each put, and then, for each of ``uses``, of each get."""
        link = self._links[contender]
        first = self._number
        self._number += count
        comes_by_itself = hasattr(link, "puts")
        if comes_by_itself:
            puts, places = link.puts(first, count, size)
        else:
            self._pipe.send((contender, first, count, size))
            puts, places = self._pipe.recv()
        gets = [
            [use.measure(link, number, place) for number, place in enumerate(places, first)]
            for use in uses
        ]
        if not comes_by_itself:
            self._pipe.send(None)
            self._pipe.recv()
        return [puts, *gets]

    def leave(self) -> None:
        self._pipe.send(None)
        join_child(self._pid)
