"""Limits on idle and stalled connections: their number, and their time.

uvicorn waits for ever for the head of a request, for a body that no handler reads any more, and for
a client that does not read its answer. The part of a body that is read has its own limit
(arrival.py).
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .limits import Limits
from .receiving import Received, received_by

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as Protocol
else:
    try:
        from .parser import QuickProtocol as Protocol
    except ImportError:  # no httptools: h11 is always installed
        from uvicorn.protocols.http.h11_impl import H11Protocol as Protocol

__all__ = ["bounded_protocol", "most_connections"]

_OTHER_FILES = 64  # descriptors for the queue, the log and the rest of the process
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: 57\r\n\r\n"
    b'{"error":"too many connections are open: try again soon"}'
)


def most_connections(limits: Limits) -> int:
    """The allowed number, as far as there are descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limits.connections
    return max(1, min(limits.connections, soft - _OTHER_FILES))


def bounded_protocol(limits: Limits) -> Callable[..., Received]:
    """A factory of uvicorn's HTTP protocol, over httptools or h11, with limits."""
    most = most_connections(limits)
    # Connections without a request in progress, the oldest first. If there are too many connections
    # the first of them is closed: half a request must not keep complete ones out.
    idle: dict[Bounded, None] = {}

    class Bounded(Protocol):
        """One connection."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            # timer for a head, or for the next request
            self._waiting: asyncio.TimerHandle | None = None
            # timer for an answer that the client does not read
            self._unread: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > most:
                if not idle:
                    transport.write(_FULL)
                    transport.close()
                    return
                next(iter(idle))._give_up()
            self._wait_for_request()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._is_at_work():
                self._stop_waiting()
            elif self._waiting is None:
                self._wait_for_request()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self._is_at_work() and self._waiting is None:
                self._wait_for_request()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stop_watching()
            self._unread = self.loop.call_later(limits.answer_timeout, self.transport.abort)

        def resume_writing(self) -> None:
            self._stop_watching()
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            self._stop_watching()
            super().connection_lost(exc)

        def _stop_waiting(self) -> None:
            idle.pop(self, None)
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

        def _stop_watching(self) -> None:
            if self._unread is not None:
                self._unread.cancel()
                self._unread = None

        def _is_at_work(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _wait_for_request(self) -> None:
            if not self.transport.is_closing():
                idle[self] = None
                self._waiting = self.loop.call_later(limits.header_timeout, self._give_up)

        def _give_up(self) -> None:
            """Closes without an answer: half a request can't be answered."""
            self._stop_waiting()
            if not self._is_at_work():
                self.transport.abort()

    return received_by(Bounded)
