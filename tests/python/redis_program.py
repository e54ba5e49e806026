"""The program of a server that speaks Redis' protocol, on a Unix socket, and keeps nothing on disk:
as tests and benchmarks start it."""

from __future__ import annotations

import shutil
from pathlib import Path

SERVER = shutil.which("redis-server") or shutil.which("valkey-server")


def server_command(socket: str, folder: Path, *options: str) -> list[str]:
    assert SERVER is not None
    command = [SERVER, "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no"]
    return [*command, "--dir", str(folder), "--logfile", "log", *options]
