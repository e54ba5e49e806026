"""Answers: JSON, gzipped for clients of other machines that accept it."""

from __future__ import annotations

import ipaddress
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from . import gzip_codec

__all__ = ["json_answer"]

_PACKED_FROM: Final = 1000  # bytes
_VARY: Final = {"Vary": "Accept-Encoding"}


def json_answer(text: bytes, request: Request | None = None, status: int = 200) -> Response:
    """An answer of JSON ``text``; packed in a thread if it is long, because that takes time.

    For a client on the same machine copying is faster than packing, so the text goes unpacked.
    """
    if request is None or len(text) < _PACKED_FROM:
        return Response(text, status, media_type="application/json")
    weights = _weights(request.headers.get("accept-encoding", ""))
    takes_plain = weights.get("identity", weights.get("*", 1.0)) > 0
    takes_gzip = weights.get("gzip", weights.get("*", 0.0)) > 0
    if not takes_gzip or (takes_plain and _is_near(request)):
        return Response(text, status, _VARY, media_type="application/json")
    headers = {**_VARY, "Content-Encoding": "gzip"}
    return Response(gzip_codec.compress(text), status, headers, media_type="application/json")


def _weights(header: str) -> dict[str, float]:
    """The encodings of an Accept-Encoding, with their weights; 0: not acceptable."""
    weights = {}
    for one in header.lower().split(","):
        name, _, parameter = one.partition(";")
        try:
            weights[name.strip()] = float(parameter.strip().removeprefix("q=") or 1)
        except ValueError:
            weights[name.strip()] = 1.0
    return weights


def _is_near(request: Request) -> bool:
    try:
        address = ipaddress.ip_address(request.client.host if request.client else "")
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
