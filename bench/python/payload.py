"""The contents of messages: a sequence number, then bytes that both sides know.

A receiver reads every byte: it compares small messages and sums up large ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_SMALL = 4096
_MASK = (1 << 64) - 1


class Payload:
    """Makes and checks messages of one size, a multiple of eight."""

    def __init__(self, size: int, buffers: int = 1) -> None:
        self.size = size
        body = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8)
        body[:8] = 0
        self._body = body.tobytes()[8:]
        self._sum = int(np.add.reduce(body.view(np.uint64)))
        self._buffers = [bytearray(body.tobytes()) for _ in range(buffers)]

    def numbered(self, sequence: int) -> bytearray:
        """Message ``sequence``, valid until its buffer is reused."""
        buffer = self._buffers[sequence % len(self._buffers)]
        buffer[:8] = sequence.to_bytes(8, "little")
        return buffer

    def check(self, message: Any, sequence: int) -> None:
        if self.size <= _SMALL:
            data = bytes(message)
            is_whole = int.from_bytes(data[:8], "little") == sequence and data[8:] == self._body
        else:
            words = np.frombuffer(message, dtype=np.uint64)
            is_whole = (
                words.nbytes == self.size
                and int(words[0]) == sequence
                and int(np.add.reduce(words)) == (self._sum + sequence) & _MASK
            )
        if not is_whole:
            raise RuntimeError(
                f"message {sequence} of {self.size} bytes arrived torn or out of turn"
            )
