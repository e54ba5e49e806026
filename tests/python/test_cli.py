"""The `penstock` command, run as people run it: real processes, real bytes, real deaths. Every test
checks the output, the exit code, and that /dev/shm holds nothing of it afterwards."""

from __future__ import annotations

import contextlib
import filecmp
import json
import os
import secrets
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import penstock

COMMANDS = (
    "demo",
    "ls",
    "info",
    "metrics",
    "gc",
    "send",
    "recv",
    "bench",
    "doctor",
    "trajectories",
    "lmcache",
    "vllm",
)
WITHIN = 30.0  # seconds, a bound for everything
MIB = 1 << 20


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "penstock.cli.main", *arguments]


def run(*arguments: str, **options) -> subprocess.CompletedProcess:
    options = {"capture_output": True, "text": True, "timeout": WITHIN, **options}
    return subprocess.run(command(*arguments), check=False, **options)


@contextlib.contextmanager
def started(*arguments: str, **options) -> Iterator[subprocess.Popen]:
    """A command in the background, which is dead at the end of the block in any case."""
    options = {"stderr": subprocess.PIPE, **options}
    with subprocess.Popen(command(*arguments), **options) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def name() -> Iterator[str]:
    """An unused name; a test that leaves it in /dev/shm fails."""
    name = f"test-cli-{secrets.token_hex(6)}"
    yield name
    left = list(Path("/dev/shm").glob(f"penstock.{name}*"))
    for file in left:
        file.unlink()
    assert left == []


@pytest.fixture(scope="module")
def real_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More than 100 MiB, and no multiple of a chunk: the standard library's sources, repeated."""
    sources = Path(sysconfig.get_paths()["stdlib"]).glob("*.py")
    text = b"".join(path.read_bytes() for path in sorted(sources))
    path = tmp_path_factory.mktemp("data") / "real"
    with path.open("wb") as file:
        for _ in range(100 * MIB // len(text) + 1):
            file.write(text)
        file.write(b"odd")
    return path


def read_line_with(process: subprocess.Popen, word: bytes) -> bytes:
    """The first line of its stderr with that word."""
    for line in process.stderr:
        if word in line:
            return line
    raise AssertionError(f"it ended without saying {word!r}")


def assert_sentence(stderr: str, *words: str) -> None:
    assert "Traceback" not in stderr
    for word in words:
        assert word in stderr


# --- common to all commands --------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_and_the_exit_codes(name: str) -> None:
    result = run(name, "--help")
    assert result.returncode == 0
    assert f"penstock {name}" in result.stdout.split("example:")[1]
    assert "130 interrupted" in result.stdout


def test_help_names_every_command() -> None:
    result = run("--help")
    assert result.returncode == 0
    assert all(name in result.stdout for name in COMMANDS)


def test_wrong_usage_exits_with_2() -> None:
    assert run().returncode == 2
    assert run("frobnicate").returncode == 2
    assert run("demo", "--workers", "0").returncode == 2
    assert run("send").returncode == 2


def test_version() -> None:
    assert run("--version").stdout.strip() == f"penstock {penstock.__version__}"


def test_a_stdout_that_goes_away_is_no_error_with_a_traceback() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        result = run("ls", "--json", stdout=theirs, stderr=subprocess.PIPE, capture_output=False)
    finally:
        os.close(theirs)
    assert result.returncode == 141
    assert result.stderr == ""


def test_an_encoding_without_our_signs_will_do() -> None:
    result = run("doctor", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert result.returncode == 0
    assert_sentence(result.stderr)
    assert "? ok" in result.stdout


# --- ls, info, gc ------------------------------------------------------------------------------


def listed(name: str) -> dict:
    """The segment as `penstock ls --json` shows it."""
    segments = json.loads(run("ls", "--json").stdout)
    return next(one for one in segments if one["name"] == name)


def test_ls_shows_the_participants(name: str) -> None:
    with (
        penstock.Broadcast.create(name, readers=2) as _writer,
        penstock.Broadcast.attach(name, rank=1) as _reader,
    ):
        segment = listed(name)
        assert (segment["kind"], segment["condition"]) == ("broadcast", "live")
        assert 4 * MIB <= segment["reserved_bytes"] <= 8 * MIB
        people = {one["role"]: (one["pid"], one["life"]) for one in segment["participants"]}
        assert people == {"writer": (os.getpid(), "alive"), "reader 1": (os.getpid(), "alive")}
        text = run("ls").stdout
        assert name in text
        assert f"pid {os.getpid()}" in text
    assert name not in run("ls").stdout


def test_ls_shows_a_damaged_segment_with_its_problem(name: str) -> None:
    path = Path(f"/dev/shm/penstock.{name}")
    path.write_bytes(b"this is no segment" * 1000)
    try:
        segment = listed(name)
        assert segment["condition"] == "damaged"
        assert segment["problem"]
        assert segment["problem"] in run("ls").stdout
        info = run("info", name)
        assert info.returncode == 1
        assert_sentence(info.stderr, "penstock: ")
        assert f"left alone {name}" in run("gc", name).stdout
        assert path.exists(), "gc removes no unknown file"
    finally:
        path.unlink()


def test_info_shows_the_ring_and_each_readers_lag(name: str) -> None:
    with (
        penstock.Broadcast.create(name, readers=2) as writer,
        penstock.Broadcast.attach(name, rank=0) as reader,
    ):
        for number in range(5):
            writer.send({"number": number, "array": np.zeros(1000)})
        reader.recv()
        info = json.loads(run("info", name, "--interval", "0", "--json").stdout)
        assert info["stats"]["messages"] == 5
        assert [one["lag_messages"] for one in info["readers"]] == [4, 5]
        assert [one["life"] for one in info["readers"]] == ["active", "expected"]
        assert info["stats"]["used_bytes"] >= 5 * 8000
        text = run("info", name).stdout
        assert "messages/s" in text
        assert "reader 0" in text
        assert "not waiting" in text


def test_info_names_the_reader_that_blocks_the_writer(name: str) -> None:
    with (
        open("/dev/zero", "rb") as endless,
        started("send", name, "--capacity", "1MiB", stdin=endless) as sender,
        penstock.Broadcast.attach(name, rank=0, timeout=WITHIN) as reader,
    ):
        info = {"writer_blocked_for": 0}
        while not info["writer_blocked_for"]:  # until the ring is full; each round takes a process
            assert sender.poll() is None
            info = json.loads(run("info", name, "--interval", "0", "--json").stdout)
        assert info["blocked_by"] == [0]
        assert "waiting for reader 0" in run("info", name).stdout
        reader.close()
        assert sender.wait(WITHIN) == 1


def test_info_of_a_missing_segment_ends_with_a_message(name: str) -> None:
    result = run("info", name)
    assert result.returncode == 1
    assert_sentence(result.stderr, "NotFound", name)
    assert run("info", "no/such/name").returncode == 1


def abandon(name: str) -> None:
    """A segment whose only participant was killed."""
    code = (
        "import penstock, os, signal\n"
        f"writer = penstock.Broadcast.create({name!r}, readers=1)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL


def test_gc_removes_abandoned_segments_and_no_others(name: str) -> None:
    dead, live = f"{name}-dead", f"{name}-live"
    abandon(dead)
    with penstock.Broadcast.create(live, readers=1):
        assert listed(dead)["condition"] == "abandoned"
        assert listed(dead)["participants"][0]["life"] == "dead"
        abandoned = {one["name"] for one in json.loads(run("ls", "--abandoned", "--json").stdout)}
        assert dead in abandoned
        assert live not in abandoned

        dry = json.loads(run("gc", "--dry-run", "--json").stdout)
        assert dead in {one["name"] for one in dry["removed"]}
        assert Path(f"/dev/shm/penstock.{dead}").exists()

        text = run("gc", dead, live).stdout
        assert f"removed {dead}" in text
        assert f"removed {live}" not in text
        assert not Path(f"/dev/shm/penstock.{dead}").exists()
        assert Path(f"/dev/shm/penstock.{live}").exists()
        gone = run("gc", dead)
        assert gone.returncode == 1
        assert_sentence(gone.stderr, "NotFound", dead)


# --- send and recv -----------------------------------------------------------------------------


def send_file(name: str, source: Path, *options: str) -> subprocess.CompletedProcess:
    with source.open("rb") as file:
        return run("send", name, *options, stdin=file)


def test_a_large_file_goes_through_bit_for_bit(name: str, real_file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with (
        copy.open("wb") as out,
        started("recv", name, "--timeout", "20", "--json", stdout=out) as receiver,
    ):
        assert b"waiting" in read_line_with(receiver, name.encode())
        result = send_file(name, real_file, "--json")
        assert result.returncode == 0, result.stderr
        assert receiver.wait(WITHIN) == 0
        received = json.loads(receiver.stderr.read())
    assert json.loads(result.stdout)["bytes"] == received["bytes"] == real_file.stat().st_size
    assert filecmp.cmp(real_file, copy, shallow=False)


def test_a_pipe_goes_through_to_two_readers(name: str, tmp_path: Path) -> None:
    data = np.random.default_rng(7).bytes(20 * MIB + 17)
    copies = [tmp_path / "0", tmp_path / "1"]
    with (
        started("send", name, "--readers", "2", stdin=subprocess.PIPE) as sender,
        copies[0].open("wb") as out0,
        copies[1].open("wb") as out1,
        started("recv", name, "--timeout", "20", stdout=out0) as receiver0,
        started("recv", name, "--rank", "1", "--timeout", "20", stdout=out1) as receiver1,
    ):
        sender.stdin.write(data)
        sender.stdin.close()
        codes = [process.wait(WITHIN) for process in (sender, receiver0, receiver1)]
    assert codes == [0, 0, 0]
    assert [copy.read_bytes() == data for copy in copies] == [True, True]


@pytest.mark.parametrize("data", [b"", b"x"])
def test_next_to_nothing_goes_through(name: str, data: bytes) -> None:
    with started("recv", name, "--timeout", "20", stdout=subprocess.PIPE) as receiver:
        assert run("send", name, input=data, text=False).returncode == 0
        assert receiver.communicate(timeout=WITHIN)[0] == data
        assert receiver.returncode == 0


def test_a_killed_sender_is_reported(name: str) -> None:
    with (
        started("send", name, stdin=subprocess.PIPE) as sender,
        started("recv", name, "--timeout", "20", stdout=subprocess.PIPE) as receiver,
    ):
        sender.stdin.write(bytes(MIB))
        sender.stdin.flush()
        assert receiver.stdout.read(MIB) == bytes(MIB)
        sender.kill()
        assert receiver.wait(WITHIN) == 1
        assert_sentence(receiver.stderr.read().decode(), "not whole", f"{MIB:,} bytes", "writer")


def test_an_interrupted_sender_leaves_no_whole_stream(name: str) -> None:
    with (
        started("send", name, stdin=subprocess.PIPE) as sender,
        started("recv", name, "--timeout", "20", stdout=subprocess.PIPE) as receiver,
    ):
        sender.stdin.write(b"some")
        sender.stdin.flush()
        assert receiver.stdout.read(4) == b"some"
        sender.send_signal(signal.SIGINT)
        assert sender.wait(WITHIN) == 130
        assert receiver.wait(WITHIN) == 1
        assert_sentence(receiver.stderr.read().decode(), "not whole", "stopped early")
        assert_sentence(sender.stderr.read().decode())


def test_a_killed_receiver_is_reported(name: str) -> None:
    with (
        open("/dev/zero", "rb") as endless,
        started("send", name, stdin=endless) as sender,
        started("recv", name, "--timeout", "20", stdout=subprocess.PIPE) as receiver,
    ):
        assert receiver.stdout.read(MIB) == bytes(MIB)
        receiver.kill()
        assert sender.wait(WITHIN) == 1
        assert_sentence(sender.stderr.read().decode(), "reader 0", "no reader is left")


def test_a_dead_receiver_does_not_harm_the_other(
    name: str, real_file: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    with (
        real_file.open("rb") as file,
        copy.open("wb") as out,
        started("send", name, "--readers", "2", stdin=file) as sender,
        started("recv", name, "--timeout", "20", stdout=out) as survivor,
        started("recv", name, "--rank", "1", "--timeout", "20", stdout=subprocess.PIPE) as victim,
    ):
        # Its stdout is not read on, so that it, and with it the sender, is stuck in the middle.
        assert len(victim.stdout.read(MIB)) == MIB
        victim.kill()
        assert survivor.wait(WITHIN) == 0
        assert sender.wait(WITHIN) == 1
        assert_sentence(sender.stderr.read().decode(), "reader 1", "to 1 reader")
    assert filecmp.cmp(real_file, copy, shallow=False)


def test_a_receiver_whose_stdout_goes_away_ends_quietly(name: str) -> None:
    with (
        open("/dev/zero", "rb") as endless,
        started("send", name, stdin=endless) as sender,
        started("recv", name, "--timeout", "20", stdout=subprocess.PIPE) as receiver,
    ):
        receiver.stdout.read(10)
        receiver.stdout.close()
        assert receiver.wait(WITHIN) == 141
        assert receiver.stderr.read().count(b"\n") <= 1  # "waiting for…", if printed
        assert sender.wait(WITHIN) == 1
        assert_sentence(sender.stderr.read().decode(), "reader 0 left")


def test_recv_waits_no_longer_than_its_timeout(name: str) -> None:
    result = run("recv", name, "--timeout", "0.2")
    assert result.returncode == 1
    assert_sentence(result.stderr, f"waiting for {name!r}", name)


def test_recv_can_be_interrupted_while_it_waits(name: str) -> None:
    with started("recv", name) as receiver:
        read_line_with(receiver, b"waiting")
        receiver.send_signal(signal.SIGINT)
        assert receiver.wait(WITHIN) == 130
        assert_sentence(receiver.stderr.read().decode())


def test_send_waits_no_longer_than_its_timeout(name: str) -> None:
    result = run("send", name, "--timeout", "0.2", input="data")
    assert result.returncode == 1
    assert_sentence(result.stderr, "Timeout")


def test_a_name_in_use_and_a_taken_rank_are_refused_with_the_holder(name: str) -> None:
    with (
        started("send", name, stdin=subprocess.PIPE) as sender,
        started("recv", name, "--timeout", "20") as receiver,
    ):
        sender.stdin.write(b"held open")
        sender.stdin.flush()
        read_line_with(sender, b"waiting")
        second_sender = run("send", name, input="data")
        assert second_sender.returncode == 1
        assert_sentence(second_sender.stderr, "AlreadyExists", str(sender.pid))
        while not any(one["role"] == "reader 0" for one in listed(name)["participants"]):
            assert receiver.poll() is None
        second_receiver = run("recv", name)
        assert second_receiver.returncode == 1
        assert_sentence(second_receiver.stderr, "Busy", str(receiver.pid))
        sender.stdin.close()
        assert sender.wait(WITHIN) == 0


def test_recv_refuses_messages_that_are_no_stream(name: str) -> None:
    with penstock.Broadcast.create(name, readers=1) as writer:
        writer.send_bytes(b"a message of some other program")
        result = run("recv", name)
        assert result.returncode == 1
        assert_sentence(result.stderr, "no stream")
        assert result.stdout == ""


# --- doctor and bench --------------------------------------------------------------------------


def test_doctor_finds_this_machine_usable() -> None:
    result = run("doctor", "--json")
    answer = json.loads(result.stdout)
    assert (result.returncode, answer["usable"]) == (0, True)
    looked_at = {finding["what"]: finding for finding in answer["findings"]}
    assert {"kernel", "/dev/shm size", "locks of the dead", "a message"} <= set(looked_at)
    assert looked_at["locks of the dead"]["level"] == "ok"
    assert all(finding["remedy"] for finding in looked_at.values() if finding["level"] != "ok")
    assert "Penstock works here" in run("doctor").stdout


def test_doctor_reports_abandoned_segments(name: str) -> None:
    abandon(name)
    try:
        findings = json.loads(run("doctor", "--json").stdout)["findings"]
        left = next(finding for finding in findings if finding["what"] == "left by the dead")
        assert "penstock gc" in left["remedy"]
    finally:
        assert run("gc", name).returncode == 0


def test_bench_measures_and_compares() -> None:
    result = run("bench", "--seconds", "0.1", "--json")
    assert result.returncode == 0, result.stderr
    lines = json.loads(result.stdout)
    assert [line["bytes"] >> 16 for line in lines] == [0, 1, 256]
    assert all(0 < line["p50"] <= line["p99"] for line in lines)
    assert all(line["ratio"] == line["queue_p50"] / line["p50"] for line in lines)


def test_bench_full_outside_a_repository_is_refused(tmp_path: Path) -> None:
    result = run("bench", "--full", "--repository", str(tmp_path))
    assert result.returncode == 1
    assert_sentence(result.stderr, "no clone")
