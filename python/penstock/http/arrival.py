"""Bodies as they arrive: read as far as they may come, and unpacked in bounded steps."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import anyio
from starlette.requests import Request

from . import gzip_codec
from .limits import Limits, Ticket, TooBig, TooSlow
from .words import Invalid

__all__ = ["Damaged", "UnknownEncoding", "check_encoding", "read", "unpack"]

# Bytes of gzip at a time: all of a usual body, and less of later members, as what is behind a
# member is copied for each.
_STEP_IN = 64 << 10
_STEP_OUT = 1 << 20
_LARGE_PIECE = 4096
_MOST_MEMBERS = 1000  # of gzip in one body; each costs a fresh start
_RATE = 1 << 20  # bytes a second, at least, when the first seconds are over


class UnknownEncoding(ValueError):
    """A Content-Encoding that is not known here."""


class Damaged(ValueError):
    """The body is not what its Content-Encoding says."""


def check_encoding(request: Request) -> str:
    """The body's Content-Encoding, "gzip" or "". Raises UnknownEncoding."""
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return ""
    if encoding not in ("gzip", "x-gzip"):
        raise UnknownEncoding(f"the body has the encoding {encoding!r}: give gzip or none")
    return "gzip"


async def read(request: Request, ticket: Ticket, limits: Limits) -> bytes:
    """The bytes as they were sent. Raises TooBig, Busy, TooSlow."""
    _check_announced(request, limits)
    arrived = _Arrived()
    begun = anyio.current_time()
    with anyio.move_on_after(limits.body_timeout) as scope:
        async for chunk in request.stream():
            ticket.charge(len(chunk))
            arrived.add(chunk)
            scope.deadline = begun + limits.body_timeout + arrived.size / _RATE
    if scope.cancelled_caught:
        raise TooSlow(
            f"the body did not arrive within {limits.body_timeout:g} s and one more for each MiB"
        )
    return arrived.joined()


class _Arrived:
    """The pieces of a body, which are copied once. Small ones grow together, as each takes more
    memory than its bytes."""

    def __init__(self) -> None:
        self.size = 0
        self._pieces: list[bytes | bytearray] = []

    def add(self, piece: bytes) -> None:
        self.size += len(piece)
        if len(piece) >= _LARGE_PIECE:
            self._pieces.append(piece)
        elif self._pieces and isinstance(self._pieces[-1], bytearray):
            self._pieces[-1] += piece
        else:
            self._pieces.append(bytearray(piece))

    def joined(self) -> bytes:
        return b"".join(self._pieces)


def _check_announced(request: Request, limits: Limits) -> None:
    """What says at once that it is too large is not read."""
    text = request.headers.get("content-length", "")
    if text.isdecimal() and int(text[:20]) > limits.body_bytes:
        raise TooBig(f"the body has more than {limits.body_bytes} bytes")


def unpack(raw: bytes, ticket: Ticket) -> bytes:
    """The bytes of gzip data. Each step is charged. Raises TooBig, Busy, Damaged, Invalid."""
    pieces: list[bytes] = []
    try:
        for piece in _inflated(raw):
            ticket.charge(len(piece))
            pieces.append(piece)
    except gzip_codec.BadGzip as error:
        raise Damaged(f"the body is no gzip data: {error}") from None
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _inflated(raw: bytes) -> Iterator[bytes]:
    at = members = 0
    while at < len(raw):
        if members == _MOST_MEMBERS:
            raise Invalid(f"the body has more than {_MOST_MEMBERS} members of gzip")
        at = yield from _inflated_member(raw, at, _STEP_IN if members else _STEP_OUT)
        members += 1


def _inflated_member(raw: bytes, at: int, step: int) -> Generator[bytes, None, int]:
    """Of the one that begins there. Returns where it ends."""
    member = gzip_codec.decompressor()
    while not member.eof:
        data = raw[at : at + step]
        at += len(data)
        piece = member.decompress(data, _STEP_OUT)
        if not data and not piece and not member.eof:
            raise Damaged("the body is no whole gzip data")
        yield piece
        at -= len(member.unconsumed_tail)
    return at - len(member.unused_data)
