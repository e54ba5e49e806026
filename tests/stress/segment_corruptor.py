"""A hostile peer: maps a segment's file and writes random words and bytes all over it.

Writes are aimed at words in use, most of all in the header, the participants' slots and the
concept's own words (offsets, lengths, states); at times a burst covers a page. Most words are soon
restored, so that the victims get further than their first check.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import random
import struct
import time
from pathlib import Path

PAGE = 4096
WORD = struct.Struct("<Q")
# Offsets of header words: where the slots, the concept's words and the payload begin.
SLOTS_AT, CONTROL_AT, PAYLOAD_AT = 56, 72, 88
MOST_SHOWN = 64 << 20  # of a range that may be far larger


class SegmentCorruptor:
    """The corruptor of one segment. The seed decides its writes, as far as the timing of others
    permits."""

    def __init__(self, path: Path, dice: random.Random) -> None:
        self._dice = dice
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            size = min(os.fstat(descriptor).st_size, MOST_SHOWN)
            self._memory = mmap.mmap(descriptor, size)
            # Only pages that exist: the corruptor must not add memory to a sparse file.
            self._pages = present_pages(descriptor, size)
        finally:
            os.close(descriptor)
        starts = [self._word(at) for at in (SLOTS_AT, CONTROL_AT, PAYLOAD_AT)]
        slots, control, payload = (min(start, size) // PAGE for start in starts)
        self._header_bytes = slots * PAGE
        # Regions: header, slots, the concept's words, payload.
        bounds = [0, slots, control, payload, size // PAGE]
        self._regions = [
            pages
            for low, high in itertools.pairwise(bounds)
            if (pages := [page for page in self._pages if low <= page < high])
        ]
        self._to_restore: list[tuple[int, bytes]] = []

    def _word(self, at: int) -> int:
        return int(WORD.unpack_from(self._memory, at)[0])

    def run(self, end: float) -> None:
        while time.monotonic() < end:
            for _ in range(self._dice.randrange(1, 6)):
                self._write()
            time.sleep(self._dice.choice((0.0, 0.0005, 0.002)))
            while self._to_restore:
                at, before = self._to_restore.pop()
                # The header is always restored: otherwise no attach would succeed.
                if at < self._header_bytes or self._dice.random() < 0.9:
                    self._memory[at : at + len(before)] = before

    def close(self) -> None:
        if self._dice.random() < 0.1:
            self._memory[: self._header_bytes] = self._dice.randbytes(self._header_bytes)
        self._memory.close()

    def _write(self) -> None:
        page = self._dice.choice(self._dice.choice(self._regions)) * PAGE
        kind = self._dice.random()
        if kind < 0.05:
            at, size = page, PAGE
        elif kind < 0.2:
            at, size = page + self._dice.randrange(PAGE - 64), self._dice.randrange(1, 64)
        else:
            at, size = self._live_word(page), WORD.size
        before = self._memory[at : at + size]
        self._to_restore.append((at, before))
        if size == WORD.size:
            self._memory[at : at + size] = WORD.pack(self._value(WORD.unpack(before)[0]))
        else:
            self._memory[at : at + size] = self._dice.randbytes(size)

    # A nonzero word of the page, if there is one soon after a random position.
    def _live_word(self, page: int) -> int:
        first = self._dice.randrange(PAGE // WORD.size)
        for step in range(PAGE // WORD.size):
            at = page + (first + step) % (PAGE // WORD.size) * WORD.size
            if self._word(at):
                return at
        return page + first * WORD.size

    # A plausible value: a neighbour, another length, another state.
    def _value(self, before: int) -> int:
        dice = self._dice
        size = len(self._memory)
        value = dice.choice(
            (
                lambda: before ^ 1 << dice.randrange(64),
                lambda: before + dice.choice((-64, -8, -1, 1, 8, 64, PAGE)),
                lambda: dice.getrandbits(64),
                lambda: dice.getrandbits(dice.randrange(1, 64)),
                lambda: dice.randrange(size) & ~63,
                lambda: size + dice.randrange(-128, 128),
                lambda: self._word(self._some_word()),
                lambda: (1 << 64) - 1,
                lambda: 1 << 63,
                lambda: 0,
            )
        )()
        return value & (1 << 64) - 1

    # Among the pages that exist: a look at a hole would add memory.
    def _some_word(self) -> int:
        page = self._dice.choice(self._pages) * PAGE
        return page + self._dice.randrange(PAGE // WORD.size) * WORD.size


def present_pages(descriptor: int, size: int) -> list[int]:
    """The numbers of the file's pages that have memory."""
    pages: list[int] = []
    at = 0
    with contextlib.suppress(OSError):  # ENXIO: no more
        while at < size:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
            at = os.lseek(descriptor, start, os.SEEK_HOLE)
            pages.extend(range(start // PAGE, min(at, size) // PAGE))
    return pages
