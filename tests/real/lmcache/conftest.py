"""Common fixtures. Helper modules are found by name, also in processes that tests start."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from l2_servers import import_all

os.environ["DO_NOT_TRACK"] = "1"  # no telemetry of tests


@pytest.fixture(scope="session")
def all_imported() -> None:
    """Before the first peer or server: all are forked from one process, which imports lmcache. That
    takes minutes the first time on a busy machine, so the timeout of a test allows for it."""
    import_all()


@pytest.fixture
def server(name: str) -> Iterator[object]:
    """`penstock lmcache serve` with room for a few chunks, removed afterwards."""
    from server_workers import CHUNK, Server

    with Server(name, "--capacity", "4MiB", "--chunk-tokens", str(CHUNK)) as started:
        yield started
        assert started.end() == 0
    assert not list(Path("/dev/shm").glob(f"*{name}*")), "nothing is left"
