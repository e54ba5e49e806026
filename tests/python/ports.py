"""Free TCP ports for the servers of tests."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket

# Below the kernel's ephemeral ports, of which any outgoing connection may take one before the
# server binds it, and beside those of the C++ tests' servers.
_FIRST, _COUNT = 30_100, 2_600
# Processes begin at different places, so two of them seldom look at the same port.
_numbers = itertools.count(os.getpid() * 16)


def free_port(host: str = "127.0.0.1") -> int:
    """A port that no socket of `host` is bound to now; each call gives another one."""
    for number in itertools.islice(_numbers, _COUNT):
        port = _FIRST + number % _COUNT
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((host, port))
            return port
    raise RuntimeError(f"no port of {_FIRST} to {_FIRST + _COUNT - 1} is free")
