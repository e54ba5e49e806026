"""Groups to a queue and batches from it: over HTTP, and directly through shared memory.

A link is made by the driver, which is the trainer; ``open_producer()`` and ``put()`` run in the
environment's process.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from group_links import Trajectories
from groups import GROUPS, SEQUENCES, Group, GroupPlace, make_columns
from processes import fork_child, join_child
from queue_links import PATIENCE, Use

TRAINER = {
    "wandb_group": "bench",
    "wandb_project": "bench",
    "batch_size": SEQUENCES * GROUPS,
    "checkpoint_dir": "",
    "save_checkpoint_interval": 0,
    "starting_step": 0,
    "num_steps": 1,
}
ENVIRONMENT = {"desired_name": "bench", "weight": 1.0, "group_size": SEQUENCES}


class Server:
    """``penstock trajectories serve`` on a free port of the loopback, until ``close()``."""

    def __init__(self, queue: str) -> None:
        command = [sys.executable, "-m", "penstock.cli.main", "trajectories", "serve"]
        command += ["--queue", queue, "--host", "127.0.0.1", "--port", "0"]
        ours, theirs = os.pipe()

        def body() -> None:
            os.dup2(theirs, sys.stderr.fileno())
            os.execv(command[0], command)

        self._pid = fork_child(body)  # dies with this process
        os.close(theirs)
        self._said = open(ours)  # noqa: SIM115 - closed with the server
        line = self._said.readline()
        if "http://" not in line:
            raise RuntimeError(f"no server: {line}{self._said.read()}".strip())
        self.port = int(line.rpartition(":")[2])

    def close(self) -> None:
        os.kill(self._pid, signal.SIGTERM)
        with self._said:
            sys.stderr.write(self._said.read())
        join_child(self._pid)


class Client:
    """One persistent connection, and JSON without compression."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def ask(self, route: str, body: object = None) -> Any:
        """POST with a body, GET without."""
        headers = {"Content-Type": "application/json"}
        text = None if body is None else json.dumps(body).encode()
        self._connection.request("GET" if body is None else "POST", route, text, headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{route}: {answer.status} {content[:200]!r}")
        return json.loads(content)

    def close(self) -> None:
        self._connection.close()


class HttpPosts:
    """The trainer registers and asks for batches, the environment posts its groups one by one."""

    name = "http, /scored_data"

    def __init__(self, place: GroupPlace) -> None:
        self._driver = os.getpid()
        self._server = Server(f"{place.name}.{type(self).__name__}")
        self._tokens = place.tokens
        self._columns: dict[str, Any] = {}
        self._client = Client(self._server.port)
        self._client.ask("/register", {**TRAINER, "max_token_len": place.tokens})
        self._client.ask("/batch")  # the trainer's start

    def open_producer(self) -> None:
        self._client = Client(self._server.port)
        answer = self._client.ask(
            "/register-env", {**ENVIRONMENT, "max_token_length": self._tokens}
        )
        # An engine has lists: their conversion from arrays is not measured.
        self._columns = {name: one.tolist() for name, one in make_columns(self._tokens).items()}
        self._columns["env_id"] = answer["env_id"]

    def _body(self, group: Group) -> dict[str, Any]:
        return {**self._columns, "scores": group["scores"].tolist()}

    def put(self, group: Group) -> None:
        self._client.ask("/scored_data", self._body(group))

    def put_all(self, groups: Sequence[Group]) -> None:
        for group in groups:
            self.put(group)

    def take(self, count: int, use: Use) -> None:
        """The lists are not converted, as a trainer would have to."""
        for _ in range(count // GROUPS):
            for group in self._client.ask("/batch")["batch"]:
                use(group)

    def close(self) -> None:
        self._client.close()
        if os.getpid() == self._driver:
            self._server.close()


class HttpLists(HttpPosts):
    """A whole batch of groups in each request."""

    name = "http, /scored_data_list"

    def put_all(self, groups: Sequence[Group]) -> None:
        for first in range(0, len(groups), GROUPS):
            bodies = [self._body(group) for group in groups[first : first + GROUPS]]
            self._client.ask("/scored_data_list", bodies)


class Direct(Trajectories):
    """The same queue without the server: groups of arrays in and out."""

    name = "shared memory"

    def put_all(self, groups: Sequence[Group]) -> None:
        for group in groups:
            self.put(group)


KINDS = (Direct, HttpPosts, HttpLists)
