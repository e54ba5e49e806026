"""The format in which `penstock send` and `penstock recv` transmit a stream through a Broadcast. A
data message is a header and bytes; the end message carries the total, so that an interrupted
transfer can't pass for a complete one."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass

# magic, kind, and a number of bytes: of this message, or (end) of the whole stream.
_HEADER = struct.Struct("<4sIQ")
_MAGIC = b"PSS1"
_DATA, _END = 1, 2

HEADER_SIZE = _HEADER.size
FILE_CHUNK = 256 << 10  # a sixteenth of the ring, so that both sides work at once
PIPE_CHUNK = 64 << 10  # a pipe's capacity: one read never fills a larger loan


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
    """Parses a message and checks it against its size."""
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
    """Bytes that one read of this descriptor can be expected to return."""
    mode = os.fstat(descriptor).st_mode
    return FILE_CHUNK if stat.S_ISREG(mode) or stat.S_ISBLK(mode) else PIPE_CHUNK
