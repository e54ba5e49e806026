"""LMCache's request server over a pool, until it is told to end."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import os
import socket
from collections.abc import Callable
from typing import Any, Final

from ... import _interrupts
from ...errors import Error
from .server import PoolServer
from .server_core import ChunkServer

__all__ = ["TESTED", "check_lmcache", "serve"]

TESTED: Final = ("0.5.6",)


def check_lmcache(*, any_version: bool = False) -> str:
    """Checks the version of the installed lmcache.

    Raises Error with an explanation if there is none, or an untested one.
    """
    tested = " or ".join(TESTED)
    try:
        version = importlib.metadata.version("lmcache")
    except importlib.metadata.PackageNotFoundError:
        raise Error(
            "speaking LMCache's worker protocol needs lmcache, which is not installed: "
            f"pip install lmcache=={TESTED[-1]}"
        ) from None
    if version not in TESTED and not any_version:
        raise Error(
            f"lmcache {version} is installed, and this server was tested with {tested}: install "
            "that, or try it with --any-version"
        )
    return version


def serve(
    pool: str,
    host: str,
    port: int,
    *,
    transport: str = "zmq",
    any_version: bool = False,
    silence: float = 120.0,
    session_seconds: float = 600.0,
    release_after: float | None = None,
    on_listening: Callable[[str], None],
    **options: Any,
) -> None:
    """Serves until Ctrl-C, SIGTERM or SIGHUP, then shuts down cleanly.

    ``options`` are those of ``PoolServer.open()``. ``on_listening`` gets the address; port 0 takes
    a free one. Raises Error, and what ``PoolServer.open()`` raises; then the server has not
    listened.
    """
    _interrupts.listen(_interrupts.note)
    check_lmcache(any_version=any_version)
    os.environ.setdefault("LMCACHE_LOG_LEVEL", "WARNING")
    _check_port(host, port)
    opened = _interrupts.unless_told(lambda: PoolServer.open(pool, **options))
    if opened is None:
        return
    with opened as server:
        # Importing lmcache takes seconds: faults of the pool or the port are reported before.
        from .server_handlers import build_request_server

        if _interrupts.is_told():
            return
        chunks = ChunkServer(
            server._store,
            server.chunk_tokens,
            silence=silence,
            session_seconds=session_seconds,
            release_after=release_after,
        )
        try:
            requests = _bind(build_request_server, chunks, host, port, transport)
            try:
                requests.start()
                on_listening(_address(requests, host, port))
                _interrupts.wait()
            finally:
                requests.close()
        finally:
            chunks.close()
            _drop_sockets()


def _check_port(host: str, port: int) -> None:
    """Raises Error if another process listens there. For a host that only ZeroMQ understands, such
    as a network interface, this shows later."""
    with contextlib.suppress(socket.gaierror):
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        ):
            with socket.socket(family, kind, protocol) as probe:
                try:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(address)
                except OSError as error:
                    if error.errno == errno.EADDRINUSE:
                        raise Error(f"{host}:{port} can't be listened on: {error}") from error


def _bind(build: Callable[..., Any], chunks: ChunkServer, host: str, port: int, how: str) -> Any:
    try:
        return build(chunks, host, port, how)
    except (OSError, RuntimeError) as error:  # zmq's own error is no OSError
        raise Error(f"{host}:{port} can't be listened on: {error}") from error
    except Exception as error:
        if type(error).__name__ != "ZMQError":
            raise
        raise Error(f"{host}:{port} can't be listened on: {error}") from error


def _address(requests: Any, host: str, port: int) -> str:
    endpoint = getattr(getattr(requests, "socket", None), "last_endpoint", b"")
    return endpoint.decode() if endpoint else f"grpc://{host}:{port}"


def _drop_sockets() -> None:
    """Messages that no peer has taken are not waited for when the interpreter ends."""
    import zmq

    zmq.Context.instance().destroy(linger=0)
