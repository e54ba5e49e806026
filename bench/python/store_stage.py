"""The stage for stores: one process puts numbered arrays, another finds, reads and checks them.

The putter waits in a pipe between turns, so a contender that is not on costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from typing import Any

import numpy as np
from processes import fork_child, join_child, pin_reader

Puts = tuple[list[int], list[Any]]  # nanoseconds of each, and where each lies


def pattern(size: int) -> Any:
    return np.arange(size // 8, dtype=np.int64)


def key_of(number: int) -> str:
    return f"object-{number}"


def measure_puts(link: Any, first: int, count: int, size: int) -> Puts:
    base = pattern(size)
    array = np.empty_like(base)
    samples, places = [], []
    for number in range(first, first + count):
        np.add(base, number, out=array)  # so no two arrays have a value in common place
        begin = time.perf_counter_ns()
        place = link.put(key_of(number), array)
        samples.append(time.perf_counter_ns() - begin)
        places.append(place)
    return samples, places


class Reading:
    """What the getter does with an array: sums it up, then compares it when the clock stands."""

    def __init__(self, size: int) -> None:
        self._base = pattern(size)
        self._wanted = np.empty_like(self._base)
        self._sum = int(self._base.sum())
        self._number = 0
        self._stamps = (0, 0, 0)

    def measure(self, link: Any, number: int, place: Any) -> tuple[int, int]:
        """Nanoseconds to have the array and let it go, and the same with reading all of it."""
        self._number = number
        begin = time.perf_counter_ns()
        link.get(key_of(number), place, self)
        end = time.perf_counter_ns()
        there, read, checked = self._stamps
        return there - begin + end - checked, read - begin + end - checked

    def __call__(self, array: Any) -> None:
        there = time.perf_counter_ns()
        total = int(array.sum())
        read = time.perf_counter_ns()
        np.add(self._base, self._number, out=self._wanted)
        is_whole = total == self._sum + self._number * self._base.size
        if not is_whole or not np.array_equal(array, self._wanted):
            raise RuntimeError(f"{key_of(self._number)} is not what was put")
        self._stamps = (there, read, time.perf_counter_ns())


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
            commands.recv()  # all of it has been read
            for number in range(first, first + count):
                link.remove(key_of(number))
            commands.send(None)
        for link in links:
            link.close()

    return body


class StoreStage:
    """Forks and pins the putter. It ends badly if the putter does: its pipe breaks then."""

    def __init__(self, links: Sequence[Any]) -> None:
        self._links = links
        self._number = 0
        self._pipe, theirs = Pipe()
        self._pid = fork_child(_putter_body(links, theirs))
        theirs.close()
        self._pipe.recv()

    def turn(self, contender: int, count: int, reading: Reading, size: int) -> list[list[int]]:
        """Nanoseconds of each put, get, and get with reading."""
        link = self._links[contender]
        first = self._number
        self._number += count
        comes_by_itself = hasattr(link, "puts")
        if comes_by_itself:
            puts, places = link.puts(first, count, size)
        else:
            self._pipe.send((contender, first, count, size))
            puts, places = self._pipe.recv()
        gets = [reading.measure(link, number, place) for number, place in enumerate(places, first)]
        if not comes_by_itself:
            self._pipe.send(None)
            self._pipe.recv()
        return [puts, [get for get, _ in gets], [read for _, read in gets]]

    def leave(self) -> None:
        self._pipe.send(None)
        join_child(self._pid)
