"""uvicorn's protocol over httptools, which reads requests in C, within the bounds that h11 keeps.

By itself httptools takes heads of any length, requests behind one another without end, and requests
without a Host. Importing this needs httptools.
"""

from __future__ import annotations

from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["QuickProtocol"]

_MOST_OF_HEAD: Final = 16 << 10  # bytes, as of h11; those of what frames a body too
# Requests that wait for the answers before them. Each takes some 3 KiB, for 20 bytes sent.
_MOST_WAITING: Final = 32


class QuickProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pending = 0  # bytes since the last head or piece of a body was whole
        self._takes_no_more = False

    def data_received(self, data: bytes) -> None:
        if self._takes_no_more:
            return
        self._pending += len(data)
        super().data_received(data)
        if self._pending > _MOST_OF_HEAD and not self.transport.is_closing():
            self.logger.warning("The head of a request has more than %d bytes.", _MOST_OF_HEAD)
            self.send_400_response("Invalid HTTP request received.")

    def on_headers_complete(self) -> None:
        """An error raised here ends the parser, and becomes ``send_400_response``."""
        self._pending = 0
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            raise ValueError("a request has one Host")
        if len(self.pipeline) >= _MOST_WAITING:
            self._takes_no_more = True
            raise ValueError("too many requests wait for their answers")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._pending = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if self._takes_no_more:
            # The last that was taken is answered with "connection: close": clients then know that
            # they have to send the others again.
            self.cycle.keep_alive = False
        else:
            super().send_400_response(msg)
