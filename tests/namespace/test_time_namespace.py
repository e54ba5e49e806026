"""Time namespaces, as containers and restored checkpoints have them: times that are noted in shared
memory are the machine's, whatever is added to the reader's clock."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator

import pytest

import penstock

AHEAD = 100_000  # seconds
WITHIN = 60.0


def _may_unshare() -> bool:
    probe = [*in_other_time(), "true"]
    try:
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def in_other_time(seconds: int = AHEAD) -> list[str]:
    return ["unshare", "-T", "--fork", "--monotonic", str(seconds), "--boottime", str(seconds)]


pytestmark = pytest.mark.skipif(
    not _may_unshare(), reason="needs unshare(1) and the right to make a time namespace"
)


def run_ahead(script: str, *arguments: str) -> None:
    command = [*in_other_time(), sys.executable, "-c", script, *arguments]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert outcome.returncode == 0, outcome.stderr


@pytest.fixture
def name() -> Iterator[str]:
    return f"test-{os.getpid()}-{secrets.token_hex(4)}"


def test_the_clocks_differ() -> None:
    run_ahead("import sys, time; assert time.monotonic() > float(sys.argv[1])", str(AHEAD))


def test_a_valid_reservation_is_not_expired_for_a_clock_ahead(name: str) -> None:
    with (
        penstock.Store.create(name, capacity="1MiB") as store,
        store.reserve("key", nbytes=100, expires_after=1000.0) as room,
    ):
        run_ahead(
            """
import sys, penstock
with penstock.Store.attach(sys.argv[1]) as store:
    assert not store.put("key", 1), "it was taken for expired"
""",
            name,
        )
        room[:] = bytes(100)


def test_a_reservation_by_a_clock_ahead_expires_in_time(name: str) -> None:
    with penstock.Store.create(name, capacity="1MiB") as store:
        script = """
import sys, penstock
store = penstock.Store.attach(sys.argv[1])
block = store.reserve("key", nbytes=100, expires_after=float(sys.argv[2]))
block.__enter__()
print("reserved", flush=True)
sys.stdin.read()
"""
        for seconds, is_over in ((1000.0, False), (0.01, True)):
            command = [*in_other_time(), sys.executable, "-c", script, name, str(seconds)]
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as ahead:
                assert ahead.stdout is not None
                assert ahead.stdin is not None
                assert ahead.stdout.readline() == "reserved\n"
                if is_over:
                    while not store.put("key", 1):
                        pass
                else:
                    assert not store.put("key", 1)
                ahead.stdin.close()


def test_ages_are_by_the_clock_of_the_machine(name: str) -> None:
    with penstock.Queue.create(name, capacity="1MiB", slots=16) as queue:
        run_ahead(
            """
import sys, penstock
with penstock.Queue.attach(sys.argv[1]) as queue:
    queue.put("from ahead")
    assert queue.stats().oldest < 1000
""",
            name,
        )
        assert 0 <= queue.stats().oldest < 1000
        assert queue.get(timeout=0) == "from ahead"
