"""Runs the application under uvicorn, until it is told to end."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import uvicorn

from .... import _interrupts
from ....handle import Owner
from ....queue import EndsWith
from .app import build_app
from .connections import bounded_protocol
from .heap import keep_freed_memory
from .limits import Limits
from .service import Left, drop_left, left_in

__all__ = ["serve"]

_GRACE = 15  # seconds for requests in progress; longer than a group waits for room


def serve(
    queue: str,
    host: str,
    port: int,
    *,
    sequences: int | None = None,
    ends_with: EndsWith = "creator",
    owner: Owner | None = None,
    fresh: bool = False,
    limits: Limits | None = None,
    allowed_hosts: Iterable[str] = (),
    allowed_origins: Iterable[str] = (),
    on_listening: Callable[[str, Left], None],
) -> bool:
    """Serves until Ctrl-C, SIGTERM or SIGHUP, then shuts down cleanly. False: it could not start.

    ``fresh`` drops what waits in the queue, if there is one, once the port is taken.
    ``on_listening`` gets the address, and the groups that the queue held before; port 0 takes a
    free one. Raises OSError if the port is taken, and the errors of ``build_app``: then the server
    has not listened.
    """
    keep_freed_memory()
    limits = limits or Limits()
    app = build_app(
        queue,
        sequences=sequences,
        ends_with=ends_with,
        owner=owner,
        limits=limits,
        host=host,
        allowed_hosts=allowed_hosts,
        allowed_origins=allowed_origins,
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        # Inherited by every connection. Otherwise the second part of an answer waits some 40 ms for
        # the client to acknowledge the first: 23 posts a second, and 311 without that.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = uvicorn.Config(
            app,
            http=bounded_protocol(limits),  # type: ignore[arg-type]  # uvicorn only calls it
            ws="none",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=_GRACE,
        )
        if fresh:
            drop_left(queue, owner)
        left = left_in(queue)
        server = _Server(config, lambda: on_listening(_address(host, listener), left))
        _interrupts.listen(server.end)
        if _interrupts.is_told():  # before there was a server to end
            return True
        server.run(sockets=[listener])
        return server.started or server.should_exit


class _Server(uvicorn.Server):
    """Calls ``on_listening`` when requests are accepted."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_started()

    def end(self, _number: int) -> None:
        """The action of a signal, which may come repeatedly: requests in progress have their own
        bound."""
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Replaces uvicorn's signal handling, which does not know SIGHUP and raises signals again
        at the end."""
        yield


def _address(host: str, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
