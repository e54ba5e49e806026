"""uvicorn's protocol over httptools, which parses requests in C, with the limits that h11 has.

By itself httptools accepts heads of any length, any number of pipelined requests, requests without
a Host, and takes the body of a request that asks for an upgrade as the next request. Importing this
needs httptools.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any, Final

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["QuickProtocol"]

_MOST_OF_HEAD: Final = 16 << 10  # bytes, as in h11; also for the framing of a body
# Pipelined requests that wait for earlier answers. Each takes some 3 KiB, for 20 bytes sent.
_MOST_WAITING: Final = 32
_OF_AN_UPGRADE: Final = frozenset((b"upgrade", b"http2-settings"))
_INVALID: Final = "Invalid HTTP request received."


class QuickProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pending = 0  # bytes since the last complete head or piece of a body
        self._takes_no_more = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)

    def data_received(self, data: bytes) -> None:
        if self._takes_no_more:
            return
        self._unset_keepalive_if_required()
        self._pending += len(data)
        while data:
            data = self._feed(data)
        if self._pending > _MOST_OF_HEAD and not self.transport.is_closing():
            self.logger.warning("The head of a request has more than %d bytes.", _MOST_OF_HEAD)
            self.send_400_response(_INVALID)

    def _feed(self, data: bytes) -> bytes:
        """Feeds the parser and returns the bytes that are still to be read."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            data = b"".join(self._head_without_upgrade()) + data[upgrade.args[0] :]
            self.parser = _new_parser(self)
            return data
        except httptools.HttpParserError:
            self.logger.warning(_INVALID)
            self.send_400_response(_INVALID)
        return b""

    def _head_without_upgrade(self) -> Iterator[bytes]:
        """The head just read, without its request for an upgrade: a server may ignore that (RFC
        9110, 7.8), and the parser would take what follows for another protocol's."""
        version = self.parser.get_http_version().encode()
        yield b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, version)
        for name, value in self.headers:
            if name == b"connection":
                options = [option.strip() for option in value.split(b",")]
                value = b", ".join(one for one in options if one.lower() not in _OF_AN_UPGRADE)
            if name not in _OF_AN_UPGRADE:
                yield b"%b: %b\r\n" % (name, value)
        yield b"\r\n"

    def on_headers_complete(self) -> None:
        """An error raised here ends the parser, and leads to ``send_400_response``."""
        self._pending = 0
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("this is no proxy")
            return  # it is read again, see _feed()
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() != "1.0"):
            raise ValueError("a request has one Host")
        if len(self.pipeline) >= _MOST_WAITING:
            raise ValueError("too many requests wait for their answers")
        self.scope["headers"] = list(self.headers)  # without trailers
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._pending = 0
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Sent after the answers to complete requests before it: the last of them then says
        "connection: close", so that clients know that they have to send the rest again."""
        last = self.cycle
        if last is not None and not last.response_complete and not last.more_body:
            self._takes_no_more = True
            last.keep_alive = False
        else:
            super().send_400_response(msg)


class _Flow(FlowControl):
    """Stops reading while requests wait for earlier answers: their bodies would be kept in memory
    without being admitted."""

    def __init__(self, transport: Any, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if not self._waiting:
            super().resume_reading()


def _new_parser(protocol: HttpToolsProtocol) -> Any:
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as in uvicorn
    return parser
