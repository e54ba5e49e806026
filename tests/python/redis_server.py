"""A redis-server for one test, on a Unix socket in a temporary folder: started, stopped, killed,
and asked by commands of its protocol."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from peers import WITHIN, eventually, state_of
from redis_program import SERVER, server_command

from penstock import _core

# Empty if tests can start one.
why_no_server = (
    "this build is without hiredis"
    if not _core.has_redis()
    else "neither redis-server nor valkey-server is installed"
    if SERVER is None
    else ""
)


class RedisServer:
    """A server that answers when the constructor returns."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._options = options
        self.path = str(folder / "socket")
        self.url = f"unix:{self.path}"
        self.start()

    def start(self) -> None:
        command = server_command(self.path, self._folder, *self._options)
        self._process = subprocess.Popen(command)
        eventually(self._answers)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.say("PING")[:1] in ("+", "-")  # a refusal is an answer too
        return False

    def say(self, *words: str) -> str:
        """The raw answer."""
        frame = [f"*{len(words)}\r\n", *(f"${len(word)}\r\n{word}\r\n" for word in words)]
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(WITHIN)
            connection.connect(self.path)
            connection.sendall("".join(frame).encode())
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        return answer.decode(errors="replace")

    def names(self) -> list[str]:
        """The sorted names of all its keys."""
        return sorted(line for line in self.say("KEYS", "*").split("\r\n") if ":" in line)

    def calls(self, command: str) -> int:
        """The number of calls of that command."""
        for line in self.say("INFO", "commandstats").split("\r\n"):
            if line.startswith(f"cmdstat_{command}:calls="):
                return int(line.split("=")[1].split(",")[0])
        return 0

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """For the length of the block it accepts connections and never answers."""
        self._process.send_signal(signal.SIGSTOP)
        eventually(lambda: state_of(self._process.pid) == "T")
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(WITHIN)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
