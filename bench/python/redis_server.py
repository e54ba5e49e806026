"""A Redis server of this run, on a Unix socket, without files on disk.

It dies with the process that starts it; other processes open their own connections.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from missing import Missing
from processes import fork_child, join_child, scratch_folder

sys.path.append(str(Path(__file__).parents[2] / "tests/python"))

from redis_program import SERVER, server_command

START_SECONDS = 40
PATIENCE = 30.0


class RedisServer:
    """Answers when it is constructed. Raises Missing or ImportError where there is none."""

    def __init__(self) -> None:
        import redis

        if SERVER is None:
            raise Missing("redis-server is not installed")
        self._redis = redis
        self._driver = os.getpid()
        self.path = str(scratch_folder() / "redis.sock")
        command = server_command(self.path, scratch_folder())
        self._pid = fork_child(lambda: os.execv(command[0], command))  # dies with this process
        self._wait()

    @property
    def url(self) -> str:
        return f"unix:{self.path}"

    def _wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while True:
            client = self.connect()
            try:
                client.ping()
                return
            except self._redis.exceptions.ConnectionError as error:
                if time.monotonic() > end:
                    raise Missing(f"the server does not answer: {error}") from error
                time.sleep(0.02)
            finally:
                client.close()

    def connect(self) -> Any:
        return self._redis.Redis(unix_socket_path=self.path, socket_timeout=PATIENCE)

    def close(self) -> None:
        """Called by its creator; no effect in other processes."""
        if os.getpid() == self._driver:
            os.kill(self._pid, signal.SIGTERM)
            join_child(self._pid)
