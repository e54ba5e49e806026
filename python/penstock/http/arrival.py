"""Bodies as they arrive: read as far as they may come, and unpacked in bounded steps."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
from starlette.requests import Request

from . import gzip_codec
from .limits import Limits, Ticket, TooBig, TooSlow
from .words import Invalid

__all__ = ["Damaged", "UnknownEncoding", "check_encoding", "read", "unpack"]

_STEP_IN = 64 << 10  # bytes of gzip at a time, also so that no tail is copied for each member
_STEP_OUT = 1 << 20
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
    raw = bytearray()
    begun = anyio.current_time()
    with anyio.move_on_after(limits.body_timeout) as scope:
        async for chunk in request.stream():
            ticket.charge(len(chunk))
            raw += chunk
            scope.deadline = begun + limits.body_timeout + len(raw) / _RATE
    if scope.cancelled_caught:
        raise TooSlow(
            f"the body did not arrive within {limits.body_timeout:g} s and one more for each MiB"
        )
    return bytes(raw)


def _check_announced(request: Request, limits: Limits) -> None:
    """What says at once that it is too large is not read."""
    text = request.headers.get("content-length", "")
    if text.isdecimal() and int(text[:20]) > limits.body_bytes:
        raise TooBig(f"the body has more than {limits.body_bytes} bytes")


def unpack(raw: bytes, ticket: Ticket) -> bytes:
    """The bytes of gzip data. Each step is charged. Raises TooBig, Busy, Damaged, Invalid."""
    out = bytearray()
    try:
        for piece in _inflated(raw):
            ticket.charge(len(piece))
            out += piece
    except gzip_codec.BadGzip as error:
        raise Damaged(f"the body is no gzip data: {error}") from None
    return bytes(out)


def _inflated(raw: bytes) -> Iterator[bytes]:
    members = 0
    member = None
    for begin in range(0, len(raw), _STEP_IN):
        data = raw[begin : begin + _STEP_IN]
        while data:
            if member is None:
                members += 1
                member = gzip_codec.decompressor()
            yield member.decompress(data, _STEP_OUT)
            data = member.unconsumed_tail
            if member.eof:
                data = member.unused_data
                member = None
                if members == _MOST_MEMBERS and data:
                    raise Invalid(f"the body has more than {_MOST_MEMBERS} members of gzip")
    while member is not None:
        piece = member.decompress(b"", _STEP_OUT)
        if member.eof:
            member = None
        elif not piece:
            raise Damaged("the body is no whole gzip data")
        yield piece
