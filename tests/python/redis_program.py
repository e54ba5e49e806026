"""The command that starts a Redis-protocol server on a Unix socket without files, for tests and
benchmarks."""

from __future__ import annotations

import shutil
from pathlib import Path

SERVER = shutil.which("redis-server") or shutil.which("valkey-server")


def server_command(socket: str, folder: Path, *options: str) -> list[str]:
    assert SERVER is not None
    command = [SERVER, "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no"]
    return [*command, "--dir", str(folder), "--logfile", "log", *options]
