"""A pytest plugin: tests that start Atropos' server get Penstock's instead.

The tests have a fixed port in their text; requests for it go to the server that was started last.
"""

from __future__ import annotations

import subprocess
import uuid
from typing import Any

import requests
from served import address_in, penstock_command

from penstock.integrations.atropos.http.service import drop_left

_THEIRS = "http://localhost:8000"
_queues: list[str] = []
_ours = "http://localhost:9"  # no server until one is started
_real_popen = subprocess.Popen
_real_request = requests.Session.request


class _Popen(_real_popen):  # type: ignore[type-arg]
    def __init__(self, command: Any, *rest: Any, **options: Any) -> None:
        if "atroposlib.cli.run_api" not in command:
            super().__init__(command, *rest, **options)
            return
        global _ours
        _queues.append(f"atropos-own-tests-{uuid.uuid4().hex[:8]}")
        super().__init__(penstock_command(_queues[-1]), *rest, **options)
        _ours = address_in(self.stderr.readline().decode())


def _request(self: Any, method: str, url: str, **options: Any) -> Any:
    return _real_request(self, method, url.replace(_THEIRS, _ours), **options)


def pytest_unconfigure() -> None:
    """Discard groups that were not taken: a queue would keep them."""
    for queue in _queues:
        drop_left(queue)


subprocess.Popen = _Popen  # type: ignore[misc]
requests.Session.request = _request  # type: ignore[method-assign, assignment]
