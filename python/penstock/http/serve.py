"""uvicorn over the application, until Ctrl-C."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from ..queue import EndsWith
from .app import build_app

__all__ = ["serve"]

_GRACE = 15  # seconds for requests that are under way; longer than a group waits for room


def serve(
    queue: str,
    host: str,
    port: int,
    *,
    sequences: int | None = None,
    ends_with: EndsWith = "creator",
    on_listening: Callable[[str], None],
) -> bool:
    """Serves until Ctrl-C or SIGTERM, then ends in good order. False: it could not start.

    ``on_listening`` is told the address; port 0 takes a free one. Raises OSError if it is taken,
    and what ``build_app`` raises: then nothing has listened.
    """
    app = build_app(queue, sequences=sequences, ends_with=ends_with)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        # Inherited by every connection. Otherwise the second part of an answer waits some 40 ms for
        # the client to acknowledge the first: 23 posts a second, and 311 without that.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=_GRACE,
        )
        server = _Server(config, lambda: on_listening(_address(host, listener)))
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:  # uvicorn hands the signal on when everything is closed
            pass
        return server.started


class _Server(uvicorn.Server):
    """Tells when requests are taken, and signals are too."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_started()


def _address(host: str, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
