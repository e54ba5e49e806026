"""`penstock demo` end to end: its result, its exit code, and what is left when it is interrupted.
Workers are found by their command lines, which name the demo's segment."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

WITHIN = 60.0
DEMO = [sys.executable, "-m", "penstock.cli.main", "demo"]


def demo(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*DEMO, *arguments], capture_output=True, text=True, timeout=WITHIN, check=False
    )


def names_of(segment: str) -> list[str]:
    return [path.name for path in Path("/dev/shm").glob(f"penstock.{segment}*")]


def workers_of(segment: str) -> dict[int, int]:
    """Process ids by rank."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().split(b"\0")
            if b"penstock_demo.worker" in command and segment.encode() in command[-2]:
                found[json.loads(command[-2])["rank"]] = int(entry.name)
    return found


def wait_until_gone(pids: list[int]) -> None:
    """Wait for processes that are not our children."""
    deadline = time.monotonic() + WITHIN
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            ended, _, _ = select.select([descriptor], [], [], max(deadline - time.monotonic(), 0))
            assert ended, f"process {pid} is still there"
        finally:
            os.close(descriptor)


class Running:
    """A demo in the background; `segment` is the name of its Broadcast."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process
        self.lines: list[str] = []
        line = self.read_until("segment: ")
        self.segment = re.search(r"penstock\.(demo-\w+)", line).group(1)

    def read_until(self, word: str) -> str:
        for line in self.process.stdout:
            self.lines.append(line)
            if word in line:
                return line
        raise AssertionError(f"ended without {word!r}: {''.join(self.lines)}")

    def end(self) -> int:
        self.lines += self.process.stdout
        return self.process.wait(WITHIN)


@pytest.fixture
def running() -> Iterator[callable]:
    demos: list[Running] = []

    def start(*arguments: str) -> Running:
        process = subprocess.Popen(
            [*DEMO, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        demos.append(Running(process))
        return demos[-1]

    yield start
    for one in demos:
        one.process.kill()
        one.process.wait()
        one.process.stdout.close()
        wait_until_gone(list(workers_of(one.segment).values()))
        assert names_of(one.segment) == []


def test_everything_arrives_and_the_killed_worker_is_replaced() -> None:
    result = demo("--limit", "4000", "--rate", "2000", "--json")
    assert result.returncode == 0, result.stdout + result.stderr
    result = json.loads(result.stdout)
    assert result["ok"] is True
    assert (result["lost"], result["torn"], result["disordered"]) == (0, 0, 0)
    sent = result["sent"]["steps"]
    assert sent >= 4000
    assert result["sent"]["tensors"] == sent // 200

    fates = [(one["rank"], one["fate"], one["replacement"]) for one in result["workers"]]
    assert sorted(fates) == [
        (0, "finished", False),
        (1, "finished", False),
        (2, "finished", True),
        (2, "killed", False),
        (3, "finished", False),
    ]
    for one in result["workers"]:
        assert one["received"] == one["last"] - one["first"] + 1
        assert one["first"] > 0 if one["replacement"] else one["first"] == 0
        if one["fate"] == "finished":
            assert one["last"] == sent - 1
    kill = result["kill"]
    assert kill["rank"] == 2
    assert 0 < kill["noticed_after"] < 2
    assert "writer" in kill["noticed_by"]
    assert names_of(result["segment"]) == []


@pytest.mark.full
def test_plain_lines_for_a_given_file(running, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(os.urandom(100_001))
    one = running(str(data), "--seconds", "3", "--workers", "2")
    assert one.end() == 0, "".join(one.lines)
    text = "".join(one.lines)
    assert "SIGKILL" in one.lines[0], "the first line says what is going to happen"
    assert "data: 97.7 KiB" in text
    for word in ("noticed", "ms later", "a replacement was started", "attached at rank 1", "p50"):
        assert word in text
    assert "lost 0, torn 0, out of order 0." in one.lines[-1]
    assert "\x1b" not in text
    assert workers_of(one.segment) == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_process_and_no_name(running, number: int) -> None:
    one = running("--seconds", "30")
    one.read_until("checking")
    workers = workers_of(one.segment)
    assert len(workers) == 4
    assert names_of(one.segment)
    one.process.send_signal(number)
    assert one.end() == 130
    assert "Traceback" not in "".join(one.lines)
    assert workers_of(one.segment) == {}
    assert names_of(one.segment) == []


@pytest.mark.full
def test_an_interrupt_while_the_workers_start(running) -> None:
    one = running("--seconds", "30")
    one.process.send_signal(signal.SIGINT)
    assert one.end() == 130
    assert workers_of(one.segment) == {}
    assert names_of(one.segment) == []


class Terminal:
    """A demo on its own terminal, eighty columns wide; its output is in `seen`."""

    def __init__(self, *arguments: str) -> None:
        self.seen = b""
        self._pid, self._descriptor = pty.fork()
        if self._pid == 0:
            os.execve(DEMO[0], [*DEMO, *arguments], {**os.environ, "TERM": "xterm"})
        size = struct.pack("HHHH", 40, 80, 0, 0)
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, size)

    def read(self) -> bool:
        """Return False at the end."""
        try:
            part = os.read(self._descriptor, 65536)
        except OSError:  # EIO: the other side has closed
            return False
        self.seen += part
        return bool(part)

    def read_until(self, word: str) -> None:
        while word.encode() not in self.seen:
            assert self.read(), self.seen.decode()

    def press(self, key: bytes) -> None:
        os.write(self._descriptor, key)

    def end(self) -> int:
        while self.read():
            pass
        os.close(self._descriptor)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


@pytest.mark.full
def test_the_live_screen_ends_with_the_account() -> None:
    terminal = Terminal("--limit", "1500", "--workers", "2")
    assert terminal.end() == 0, terminal.seen.decode()
    text = terminal.seen.decode()
    for word in ("Half way", "● 0", "✗ 1", "flat out", "SIGKILL", "lost 0, torn 0", "✓"):
        assert word in text


def test_ctrl_c_on_a_terminal_reaches_only_the_driver() -> None:
    terminal = Terminal("--seconds", "30")
    terminal.read_until("● 3")
    segment = re.search(rb"penstock\.(demo-\w+)", terminal.seen).group(1).decode()
    assert len(workers_of(segment)) == 4
    terminal.press(b"\x03")
    assert terminal.end() == 130
    assert b"Traceback" not in terminal.seen
    assert terminal.seen.rindex(b"\x1b[?25h") > terminal.seen.rindex(b"\x1b[?25l"), "cursor is back"
    assert workers_of(segment) == {}
    assert names_of(segment) == []


@pytest.mark.full
def test_a_killed_driver_takes_everything_with_it(running) -> None:
    one = running("--seconds", "30")
    one.read_until("checking")
    workers = workers_of(one.segment)
    one.process.kill()
    wait_until_gone(list(workers.values()))
    assert names_of(one.segment) == []


@pytest.mark.full
def test_a_worker_killed_from_outside_is_replaced_too(running) -> None:
    one = running("--seconds", "3", "--no-kill")
    one.read_until("checking")
    os.kill(workers_of(one.segment)[0], signal.SIGKILL)
    one.read_until("a replacement was started")
    assert one.end() == 0, "".join(one.lines)
    assert any(line.startswith("0 ") and line.endswith("died\n") for line in one.lines)
    assert "lost 0, torn 0" in one.lines[-1]


@pytest.mark.full
def test_a_stopped_worker_is_named(running) -> None:
    one = running("--seconds", "4", "--no-kill", "--capacity", "256KiB")
    one.read_until("checking")
    pid = workers_of(one.segment)[1]
    os.kill(pid, signal.SIGSTOP)
    line = one.read_until("waiting for")
    os.kill(pid, signal.SIGCONT)
    assert "reader 1" in line
    assert "stopped" in line
    assert one.end() == 0, "".join(one.lines)


def test_nothing_to_send_is_an_error_in_a_sentence(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        result = demo(str(path))
        assert result.returncode == 1
        assert "Traceback" not in result.stderr
        assert str(path) in result.stderr
