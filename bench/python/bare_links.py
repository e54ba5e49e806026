"""The bare limit in Python: two processes, a shared buffer for each direction, and a flag.

It lacks queues, death detection, sleep and further readers: it spins, and holds one message. The
loop that waits is Python's.
"""

from __future__ import annotations

import mmap
import platform

from link import Link, Place, Use
from processes import has_core_each

# Words of eight bytes, those of the two directions on lines of their own, neighbours left free.
_FORWARD, _BACKWARD, _WORDS = 0, 32, 64
_IN_ORDER = ("x86_64", "AMD64")  # other processors may show the flag before the bytes


class _Flags:
    """Two words that both sides know: each is counted up by one side, and awaited by the other."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        self._words = memoryview(self._memory).cast("Q")[:_WORDS]
        self._counts = {_FORWARD: 0, _BACKWARD: 0}

    def raise_(self, flag: int) -> None:
        self._counts[flag] = count = self._counts[flag] + 1
        self._words[flag] = count

    def wait(self, flag: int) -> None:
        self._counts[flag] = count = self._counts[flag] + 1
        words = self._words
        while words[flag] != count:
            pass

    def close(self) -> None:
        self._words.release()
        self._memory.close()


class SharedBufferLink(Link):
    """A copy into a shared buffer and a flag; read and checked in place."""

    name = "bare shared buffer"
    pours = False

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._flags = _Flags()
        self._memory = [mmap.mmap(-1, place.size) for _ in range(2)]
        self._forward, self._backward = (memoryview(memory) for memory in self._memory)

    @staticmethod
    def suits(place: Place) -> bool:
        return place.readers == 1 and has_core_each(1) and platform.machine() in _IN_ORDER

    def close(self) -> None:
        self._flags.close()
        self._forward.release()
        self._backward.release()
        for memory in self._memory:
            memory.close()

    def send(self, data: bytearray) -> None:
        self._forward[:] = data
        self._flags.raise_(_FORWARD)

    def answer(self, data: bytearray) -> None:
        self._backward[:] = data
        self._flags.raise_(_BACKWARD)

    def receive(self, use: Use) -> None:
        self._flags.wait(_FORWARD)
        use(self._forward)

    def collect(self, use: Use) -> None:
        self._flags.wait(_BACKWARD)
        use(self._backward)
