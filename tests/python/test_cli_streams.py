"""Every command with its standard streams closed, full, or going away: it reports that in a message
and its exit code, leaves nothing, and no segment gets the number of a standard stream."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import WITHIN

import penstock

COMMAND = [sys.executable, "-m", "penstock.cli.main"]


def shell(
    arguments: str, redirections: str, *, stdin: bytes | None = b"", within: float = 2 * WITHIN
) -> subprocess.CompletedProcess:
    """`penstock ARGUMENTS REDIRECTIONS` in a shell, as people write it. `within` is no measure of
    the command: it bounds a hang."""
    line = f"exec {shlex.join(COMMAND)} {arguments} {redirections}"
    return subprocess.run(
        ["sh", "-c", line], input=stdin, capture_output=True, timeout=within, check=False
    )


def assert_sentence(result: subprocess.CompletedProcess, *words: str) -> None:
    text = result.stderr.decode()
    assert "Traceback" not in text, text
    assert "Exception ignored" not in text, text
    for word in words:
        assert word in text, text


@pytest.fixture
def queue(name: str) -> Iterator[penstock.Queue]:
    """A queue for the commands to inspect."""
    with penstock.Queue.create(name) as queue:
        queue.put("message")
        yield queue
        queue.discard()


# The commands that answer on stdout; {name} is an existing queue.
ANSWERS = [
    "ls",
    "ls --json",
    "info {name} --interval 0",
    "info {name} --interval 0 --json",
    "gc --dry-run",
    "gc --dry-run --json",
    "doctor",
    "doctor --json",
    "bench --seconds 0.01",
    "demo --limit 50 --no-kill --workers 1",
    "demo --limit 50 --no-kill --workers 1 --json",
    "recv {name}-none --timeout 0.1",
    "--version",
    "--help",
]


@pytest.mark.parametrize("arguments", ANSWERS)
def test_a_closed_stdout(arguments: str, queue: penstock.Queue) -> None:
    result = shell(arguments.format(name=queue.name), ">&-")
    assert_sentence(result, "stdout is closed")
    assert result.returncode == 1


FULL = [arguments for arguments in ANSWERS if not arguments.startswith("recv")]


@pytest.mark.parametrize("arguments", FULL)
def test_a_full_stdout(arguments: str, queue: penstock.Queue) -> None:
    result = shell(arguments.format(name=queue.name), ">/dev/full")
    assert_sentence(result, "No space left on device")
    assert result.returncode == 1


@pytest.mark.parametrize("arguments", FULL)
def test_a_closed_stderr_and_stdin(arguments: str, queue: penstock.Queue) -> None:
    result = shell(arguments.format(name=queue.name), "2>&- <&-")
    assert result.returncode == 0
    assert result.stdout
    if arguments.endswith("--json"):
        json.loads(result.stdout)


@pytest.mark.parametrize("arguments", ["info no/such/name", "demo /no/such/path", "gc none-such"])
@pytest.mark.parametrize("redirections", ["2>&-", "2>/dev/full", ">&- 2>&- <&-"])
def test_an_error_without_stderr_is_in_the_exit_code(arguments: str, redirections: str) -> None:
    result = shell(arguments, redirections)
    assert result.returncode == 1
    assert result.stdout == b"", "what is for stderr does not go to stdout"


def test_send_without_stdin(name: str) -> None:
    result = shell(f"send {name}", "<&-")
    assert_sentence(result, "stdin is closed")
    assert result.returncode == 1


@pytest.mark.parametrize("redirections", ["", ">&-", "2>&-", ">&- 2>&-", ">/dev/full"])
def test_send_and_recv_need_no_more_than_they_use(name: str, redirections: str) -> None:
    """Closed streams change nothing of the data: 3 MiB, bit for bit."""
    data = bytes(range(256)) * (3 << 12)
    received: list[subprocess.CompletedProcess] = []
    receiver = threading.Thread(
        target=lambda: received.append(shell(f"recv {name}", "2>&- <&-", stdin=None))
    )
    receiver.start()
    sent = shell(f"send {name}", redirections, stdin=data)
    receiver.join(2 * WITHIN)
    assert sent.returncode == 0, sent.stderr
    assert received[0].returncode == 0
    assert received[0].stdout == data


def test_recv_to_a_full_disk_says_so(name: str) -> None:
    sent: list[subprocess.CompletedProcess] = []
    sender = threading.Thread(
        target=lambda: sent.append(shell(f"send {name}", "", stdin=bytes(1 << 20)))
    )
    sender.start()
    result = shell(f"recv {name}", ">/dev/full")
    sender.join(2 * WITHIN)
    assert_sentence(result, "could not write to stdout", "No space left on device")
    assert result.returncode == 1
    assert sent[0].returncode == 1, "the sender is told that nobody got it"
    assert_sentence(sent[0])


@pytest.mark.parametrize("arguments", FULL)
def test_a_reader_that_has_gone_away(arguments: str, queue: penstock.Queue) -> None:
    """As in `| head -1`: the pipe has no reader any more when the command writes."""
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        result = subprocess.run(
            [*COMMAND, *shlex.split(arguments.format(name=queue.name))],
            stdout=theirs,
            stderr=subprocess.PIPE,
            timeout=2 * WITHIN,
            check=False,
        )
    finally:
        os.close(theirs)
    assert result.returncode == 141
    assert_sentence(result)


# --- demos with nothing to show, or little time --------------------------------------------------


@pytest.mark.parametrize("mode", ["", "--store", "--trajectories"])
def test_a_demo_of_nothing_is_a_sentence(mode: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "missing"):
        result = shell(f"demo {mode} {path}", "")
        assert result.returncode == 1
        assert_sentence(result, str(path))
        assert b"order" not in result.stdout, "no result on what was not played"


@pytest.mark.parametrize(
    "arguments",
    ["--limit 1", "--limit 50", "--limit 50 --workers 1", "--seconds 0.1 --workers 2"],
)
def test_a_short_demo_kills_and_judges_all_the_same(arguments: str) -> None:
    result = shell(f"demo {arguments} --json", "", within=4 * WITHIN)
    assert result.returncode == 0, result.stdout + result.stderr
    verdict = json.loads(result.stdout)
    assert verdict["ok"] is True
    assert verdict["problems"] == []
    assert verdict["kill"]["noticed_after"] is not None
    if "--limit" in arguments:
        assert verdict["sent"]["steps"] == int(arguments.split()[1])
    assert any(worker["replacement"] for worker in verdict["workers"])


@pytest.mark.parametrize("mode", ["--store --workers 2", "--trajectories"])
def test_a_short_demo_of_another_kind_kills_too(mode: str, tmp_path: Path) -> None:
    """With little data, too: less than the store holds."""
    data = tmp_path / "data"
    data.write_text("a few words\n" * 100)
    result = shell(f"demo {mode} {data} --seconds 0.1 --json", "", within=4 * WITHIN)
    assert result.returncode == 0, result.stdout + result.stderr
    account = json.loads(result.stdout)
    assert account["ok"] is True
    assert account["kills"] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        "--store --limit 50",
        "--trajectories --limit 50",
        "--trajectories --workers 2",
        "--store --no-kill",
        "--trajectories --capacity 1MiB",
        "--limit 0",
        "--seconds 0",
        "--seconds nan",
        "--limit 5 --seconds 5",
        "--store --trajectories",
        "--workers x",
    ],
)
def test_options_of_a_demo_that_mean_nothing_are_wrong_usage(arguments: str) -> None:
    result = shell(f"demo {arguments}", "")
    assert result.returncode == 2
    assert_sentence(result, "usage:")


@pytest.mark.parametrize("arguments", ["--capacity 1XB", "--capacity 0", "--workers 1000"])
def test_a_demo_that_can_not_be_made_says_why(arguments: str) -> None:
    result = shell(f"demo {arguments}", "")
    assert result.returncode == 1
    assert_sentence(result, "InvalidArgument")
