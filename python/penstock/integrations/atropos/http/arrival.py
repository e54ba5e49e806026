"""Bodies as they arrive: read up to their limit, and unpacked in bounded steps."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import anyio
from starlette.requests import ClientDisconnect, Request

from . import gzip_codec
from .limits import Limits, Ticket, TooBig, TooSlow
from .words import Invalid

__all__ = ["Damaged", "UnknownEncoding", "Unpacking", "check_encoding", "read"]

# Bytes of gzip per step: the whole of a usual body, and bounded for bodies of many members, because
# the data behind a member is copied for each.
_STEP_IN = 64 << 10
_STEP_OUT = 1 << 20
_LARGE_PIECE = 4096
_MOST_MEMBERS = 1000  # of gzip in one body; each needs a new decompressor
_RATE = 1 << 20  # lowest rate in bytes a second, after the first seconds


class UnknownEncoding(ValueError):
    """An unknown Content-Encoding."""


class Damaged(ValueError):
    """The body does not match its Content-Encoding."""


def check_encoding(request: Request) -> str:
    """The body's Content-Encoding, "gzip" or "". Raises UnknownEncoding."""
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return ""
    if encoding not in ("gzip", "x-gzip"):
        raise UnknownEncoding(f"the body has the encoding {encoding!r}: give gzip or none")
    return "gzip"


async def read(request: Request, ticket: Ticket, limits: Limits) -> bytes:
    """The bytes as sent. Raises TooBig, Busy, TooSlow, ClientDisconnect."""
    _check_announced(request, limits)
    arrived = _Arrived()
    begun = anyio.current_time()
    with anyio.move_on_after(limits.body_timeout) as scope:
        while await _read_piece(request, ticket, arrived):
            scope.deadline = begun + limits.body_timeout + arrived.size / _RATE
    if scope.cancelled_caught:
        raise TooSlow(
            f"the body did not arrive within {limits.body_timeout:g} s and one more for each MiB"
        )
    return arrived.joined()


async def _read_piece(request: Request, ticket: Ticket, arrived: _Arrived) -> bool:
    """Whether another piece comes."""
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    piece: bytes = message.get("body", b"")
    ticket.charge(len(piece))
    arrived.add(piece)
    return bool(message.get("more_body", False))


class _Arrived:
    """The pieces of a body, each copied once. Small ones are joined as they come, because each
    object takes more memory than its bytes."""

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
        return b"".join(self._pieces)  # a single piece is not copied


def _check_announced(request: Request, limits: Limits) -> None:
    """Refuses a body whose announced length is too large, before it is read."""
    text = request.headers.get("content-length", "")
    if text.isdecimal() and int(text[:20]) > limits.body_bytes:
        raise TooBig(f"the body has more than {limits.body_bytes} bytes")


class Unpacking:
    """Unpacks gzip data in steps that are charged. Raises TooBig, Busy, Damaged, Invalid."""

    def __init__(self, raw: bytes, ticket: Ticket) -> None:
        self._raw = raw
        self._pieces: list[bytes] = []
        self._inflated = _inflated(raw)
        self._ticket = ticket

    def is_short(self, most: int) -> bool:
        """Whether it has ``most`` bytes at most, by its trailer and a few steps."""
        announced = int.from_bytes(self._raw[-4:], "little")  # of the last member, modulo 2**32
        if max(len(self._raw), announced) > most:
            return False
        return not all(self._step() for _ in range(2 + most // _STEP_OUT))

    def finish(self) -> bytes:
        while self._step():
            pass
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def _step(self) -> bool:
        """Unpacks 1 MiB at most. False: the data has ended."""
        try:
            piece = next(self._inflated, None)
        except gzip_codec.BadGzip as error:
            raise Damaged(f"the body is no gzip data: {error}") from None
        if piece is None:
            return False
        self._ticket.charge(len(piece))
        self._pieces.append(piece)
        return True


def _inflated(raw: bytes) -> Iterator[bytes]:
    at = members = 0
    while at < len(raw):
        if members == _MOST_MEMBERS:
            raise Invalid(f"the body has more than {_MOST_MEMBERS} members of gzip")
        at = yield from _inflated_member(raw, at, _STEP_IN if members else _STEP_OUT)
        members += 1


def _inflated_member(raw: bytes, at: int, step: int) -> Generator[bytes, None, int]:
    """Unpacks the member that begins there. Returns where it ends."""
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
