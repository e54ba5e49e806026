"""Receives the bytes of connections into one block of memory, and parses them there.

Otherwise the event loop makes an object of the bytes of each call, and copies them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

__all__ = ["Received", "received_by"]

_AT_ONCE: Final = 256 << 10  # bytes; as in asyncio


class Received(asyncio.BufferedProtocol):
    """One connection; its ``protocol`` parses the bytes before others are received into
    ``block``."""

    def __init__(self, protocol: Any, block: bytearray) -> None:
        self._protocol = protocol
        self._view = memoryview(block)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._protocol.connection_made(transport)

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        self._protocol.data_received(self._view[:nbytes])

    def eof_received(self) -> bool | None:
        ends: bool | None = self._protocol.eof_received()
        return ends

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()


def received_by(make: Callable[..., Any]) -> Callable[..., Received]:
    """A factory of connections of one event loop, over a factory of protocols that keep no
    reference to the bytes."""
    block = bytearray(_AT_ONCE)

    def make_received(*args: Any, **kwargs: Any) -> Received:
        return Received(make(*args, **kwargs), block)

    return make_received
