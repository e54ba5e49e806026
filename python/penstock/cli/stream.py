"""How `penstock send` and `penstock recv` cut a stream of bytes into messages of a Broadcast.
A data message is a header and bytes; the end message carries the total, so that a transfer
that was broken off can't be taken for a whole one."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass

# magic, kind, and the number of bytes: of this message, or (end) of the whole stream.
_HEADER = struct.Struct("<4sIQ")
_MAGIC = b"PSS1"
_DATA, _END = 1, 2

HEADER_SIZE = _HEADER.size
FILE_CHUNK = 256 << 10  # a sixteenth of the ring, so that both sides are at work at once
PIPE_CHUNK = 64 << 10  # what a pipe holds: a larger loan would never be filled by one read


class NotAStream(ValueError):
    """The message was not written by `penstock send`."""


class BrokenOff(Exception):
    """The stream ended without its end message. Says after how many bytes, and why."""


@dataclass(frozen=True)
class Data:
    """The bytes of one data message lie in `[HEADER_SIZE, HEADER_SIZE + length)`."""

    length: int


@dataclass(frozen=True)
class End:
    """The sender has sent everything: `total` bytes."""

    total: int


def write_data_header(message: memoryview, length: int) -> None:
    _HEADER.pack_into(message, 0, _MAGIC, _DATA, length)


def end_message(total: int) -> bytes:
    return _HEADER.pack(_MAGIC, _END, total)


def parse(message: memoryview) -> Data | End:
    """What a message says, checked against its size."""
    if len(message) < HEADER_SIZE:
        raise NotAStream(f"a message of {len(message)} bytes is no part of a stream")
    magic, kind, number = _HEADER.unpack_from(message, 0)
    if magic != _MAGIC:
        raise NotAStream("a message bears no mark of `penstock send`")
    if kind == _END:
        return End(number)
    if kind != _DATA or number > len(message) - HEADER_SIZE:
        raise NotAStream("a message contradicts its own header")
    return Data(number)


def chunk_size(descriptor: int) -> int:
    """How many bytes one read of this descriptor can be expected to give."""
    mode = os.fstat(descriptor).st_mode
    return FILE_CHUNK if stat.S_ISREG(mode) or stat.S_ISBLK(mode) else PIPE_CHUNK
