"""The pieces of a ring's address range that are taken. Addresses only: the Store has the memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

__all__ = ["Chunks"]


class Chunks:
    """Disjoint pieces of ``[0, size)``. New ones go behind the latest, and around at the end, past
    pieces that are still there. For one thread at a time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0
        self._starts: list[int] = []  # sorted
        self._ends: dict[int, int] = {}
        self._next = 0

    def take(self, nbytes: int) -> int | None:
        """The address of a new piece; None if no gap is large enough."""
        if nbytes > self.size - self.used:
            return None
        if not self._starts:
            self._next = 0
        for begin, end in self._gaps():
            if end - begin >= nbytes:
                self.add(begin, nbytes)
                self._next = begin + nbytes
                return begin
        return None

    def add(self, address: int, nbytes: int) -> None:
        """A piece that overlaps no other."""
        self._starts.insert(bisect_left(self._starts, address), address)
        self._ends[address] = address + nbytes
        self.used += nbytes

    def remove(self, address: int) -> None:
        del self._starts[bisect_left(self._starts, address)]
        self.used -= self._ends.pop(address) - address

    def overlapping(self, address: int, nbytes: int) -> list[int]:
        """The addresses of pieces that overlap this range."""
        first = bisect_right(self._starts, address) - 1
        if first < 0 or self._ends[self._starts[first]] <= address:
            first += 1
        return self._starts[first : bisect_left(self._starts, address + nbytes)]

    def pieces(self) -> list[tuple[int, int]]:
        """Address and length of each, by address."""
        return [(start, self._ends[start] - start) for start in self._starts]

    def length(self, address: int) -> int:
        return self._ends[address] - address

    def clear(self) -> None:
        self._starts.clear()
        self._ends.clear()
        self.used = 0
        self._next = 0

    def _gaps(self) -> Iterator[tuple[int, int]]:
        """From the latest piece to the end of the range, then from its beginning."""
        behind = bisect_left(self._starts, self._next)
        begin = self._next
        for start in self._starts[behind:]:
            yield begin, start
            begin = self._ends[start]
        yield begin, self.size
        begin = 0
        for start in self._starts[:behind]:
            yield begin, start
            begin = self._ends[start]
        yield begin, min(self._next, self.size)
