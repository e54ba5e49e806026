"""Text chosen by others: names of files, processes and environments. Whatever it holds, listing
shows all segments, and no control character reaches the terminal."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peers import eventually

import penstock
from penstock import _core, inspect
from penstock.cli import main as command
from penstock.trajectories import TrajectoryReader, TrajectoryWriter

SHM = b"/dev/shm/penstock."
#: Clears the screen, begins a line, reverses the line, sets the colour by an 8-bit control, hides;
#: and is not UTF-8.
HOSTILE = "\x1b[2J\r\nok\u202e\u0085\u009b31m\u200b\u2066".encode() + b"\xff\xc3"
WITHIN = 30.0


def run(capfd: Any, *arguments: str) -> tuple[int, str, str]:
    """The command in this process: its exit code, stdout and stderr."""
    capfd.readouterr()
    code = command.main(arguments)
    out, err = capfd.readouterr()
    return code, out, err


def assert_harmless(text: str) -> None:
    """Without characters that control a terminal or are invisible."""
    found = {ascii(one) for one in text if unicodedata.category(one) in ("Cc", "Cf", "Zl", "Zp")}
    assert found <= {"'\\n'"}, found


@pytest.fixture
def planted() -> Iterator[str]:
    """A file between the segments, with a hostile name that is not UTF-8; its name as `ls` shows
    it."""
    name = secrets.token_hex(4).encode() + HOSTILE
    path = SHM + name
    user = ("setpriv", "--reuid=65534", "--clear-groups") if os.geteuid() == 0 else ()
    make = (*user, "sh", "-c", 'printf x > "$1"', "sh", path) if shutil.which("setpriv") else None
    if make is None:
        Path(os.fsdecode(path)).write_bytes(b"x")
    else:
        subprocess.run(make, check=True, timeout=WITHIN)
    try:
        yield os.fsdecode(name)
    finally:
        os.unlink(path)


def test_a_planted_file_ends_no_listing(planted: str, name: str, capfd) -> None:
    with penstock.Queue.create(name):
        found = {one.name: one for one in inspect.list_segments()}
        assert name in found
        assert found[planted].problem
        assert os.fsencode(found[planted].name).endswith(HOSTILE)
        for arguments in (("ls",), ("gc", "--dry-run"), ("doctor",), ("gc", planted)):
            code, out, err = run(capfd, *arguments)
            assert code == 0, (arguments, err)
            assert_harmless(out + err)
            if arguments != ("doctor",):
                assert "\\x1b[2J\\x0d\\x0aok\\u202e" in out
        code, out, err = run(capfd, "info", planted)
        assert code == 1
        assert_harmless(out + err)
        assert "InvalidName" in err


def test_json_has_the_name_whole_and_harmless(planted: str, capfd) -> None:
    for arguments in (("ls", "--json"), ("gc", "--dry-run", "--json", planted)):
        code, out, _ = run(capfd, *arguments)
        assert code == 0
        assert_harmless(out)
        found = json.loads(out)
        names = [one["name"] for one in (found if arguments[0] == "ls" else found["damaged"])]
        assert planted in names
        assert os.fsencode(planted).endswith(HOSTILE)


def test_a_file_segment_of_such_a_name_is_found_by_it(tmp_path: Path, capfd) -> None:
    path = os.fsencode(tmp_path) + b"/\xe9t\xe9"  # in another encoding
    named = f"file:{os.fsdecode(path)}"
    with penstock.Queue.create(named) as queue, penstock.Queue.attach(queue.handle) as other:
        assert queue.name == other.name == named
        assert inspect.summarize(named).name == named
        assert penstock.Queue.attach(Path(os.fsdecode(path))).name == named
        code, out, _ = run(capfd, "info", named)
        assert code == 0
        assert "\\xe9t\\xe9" in out
    assert not os.path.exists(path)


CHILD = """
import signal, sys
import penstock
from penstock.trajectories import TrajectoryWriter
name = sys.argv[1]
{handles}
print("ready", flush=True)
signal.pause()
"""


@contextlib.contextmanager
def process_called(folder: Path, called: bytes, name: str, handles: str) -> Iterator[int]:
    """A process whose script has this name, with these handles, until the block ends."""
    script = os.fsencode(folder) + b"/" + called
    Path(os.fsdecode(script)).write_text(CHILD.format(handles=handles))
    child = subprocess.Popen([sys.executable, script, name], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        yield child.pid
    finally:
        child.kill()
        child.wait(WITHIN)


#: The accent is at the last of 63 bytes, and is cut off whole; bytes that are not UTF-8; escapes.
CALLED = {
    "cut": b"x" * 62 + "é.py".encode(),
    "latin": b"\xe9t\xe9.py",
    "escape": HOSTILE + b".py",
}


@pytest.mark.parametrize("called", CALLED.values(), ids=CALLED)
def test_a_hostile_process_name_ends_no_listing(called: bytes, name: str, tmp_path, capfd) -> None:
    handles = """
one = penstock.Broadcast.attach(name, rank=0)
two = penstock.Queue.attach(name + "-q")
three = penstock.Store.attach(name + "-s")
held = three.reserve("key", nbytes=100)
held.__enter__()
four = TrajectoryWriter.attach(name + "-t")
"""
    with (
        penstock.Broadcast.create(name, readers=1, capacity="64KiB") as writer,
        penstock.Queue.create(f"{name}-q"),
        penstock.Store.create(f"{name}-s", capacity="1MiB") as store,
        TrajectoryReader.create(f"{name}-t") as trainer,
    ):
        with process_called(tmp_path, called, name, handles) as pid:
            with pytest.raises(penstock.Timeout) as full:
                fill(writer)
            assert_harmless(str(full.value))
            assert [one.pid for one in writer.readers()] == [pid]
            assert writer.blocked_by() is not None
            writer.stats()
            trainer.stats()
            with pytest.raises(penstock.Busy) as busy, store.reserve("key", nbytes=1):
                pass
            assert str(pid) in str(busy.value)
            assert_harmless(str(busy.value))
            for suffix in ("", "-q", "-s", "-t"):
                (one,) = [
                    one for one in inspect.summarize(name + suffix).participants if one.pid == pid
                ]
                if called == CALLED["cut"]:
                    assert one.process == "x" * 62
                assert "\udc80" not in ascii(one.process)
                one.process.encode()
                for arguments in (("ls",), ("ls", "--json"), ("info", name + suffix)):
                    code, out, err = run(capfd, *arguments)
                    assert code == 0, err
                    assert str(pid) in out
                    assert_harmless(out + err)
        with pytest.raises(penstock.PeerDied) as death:
            eventually(lambda: fill(writer))
        assert str(pid) in str(death.value)
        assert_harmless(str(death.value))


def fill(writer: penstock.BroadcastWriter) -> None:
    for _ in range(100):
        writer.send(bytes(10_000), timeout=0)


def scribble(name: str, before: bytes, after: bytes) -> None:
    """Overwrite bytes in a segment's file, as any participant may."""
    path = Path(os.fsdecode(SHM)).with_name(f"penstock.{name}")
    with path.open("r+b") as file:
        content = file.read(1 << 20)
        at = content.find(before)
        assert at >= 0
        while at >= 0:
            file.seek(at)
            file.write(after)
            at = content.find(before, at + 1)


def test_an_environment_that_scribbles_its_name(name: str, capfd) -> None:
    with (
        TrajectoryReader.create(name, sequences=4) as trainer,
        TrajectoryWriter.attach(name, environment="environment-of-another") as writer,
    ):
        scribble(name, b"environment-of-another", HOSTILE)
        (seen,) = trainer.stats().environments
        seen.name.encode()
        assert "\ufffd" in seen.name
        writer.stats()
        for arguments in (("info", name), ("info", name, "--json")):
            code, out, err = run(capfd, *arguments)
            assert code == 0, err
            assert_harmless(out + err)
        with pytest.raises(penstock.Timeout) as nothing:
            trainer.next_batch(timeout=0)
        assert_harmless(str(nothing.value))


@pytest.mark.parametrize(
    "bad", ["a\nb", "\x1b[2J", "a\u202eb", "a\u2066", "\u009b", "\x7f", "\u200b"]
)
def test_control_characters_are_refused_where_names_are_made(bad: str, tmp_path, name) -> None:
    made = {
        penstock.Queue.create: {},
        penstock.Store.create: {},
        TrajectoryReader.create: {},
        TrajectoryWriter.create: {},
        penstock.Broadcast.create: {"readers": 1},
    }
    for create, options in made.items():
        for spelled in (f"file:{tmp_path}/{bad}", tmp_path / bad, f"{name}{bad}"):
            with pytest.raises(penstock.InvalidName) as refusal:
                create(spelled, **options)
            assert_harmless(str(refusal.value))
    assert not list(tmp_path.iterdir())
    with TrajectoryReader.create(name):
        with pytest.raises(penstock.InvalidArgument) as refusal:
            TrajectoryWriter.attach(name, environment=f"math{bad}")
        assert "character" in str(refusal.value)
        assert_harmless(str(refusal.value))


@pytest.mark.parametrize(
    "good", ["two words", "Mathe ä", "数学", "🌊", "نامه\u200cها", "q'u\"o\\te"]
)
def test_other_names_stay(good: str, tmp_path, name) -> None:
    with penstock.Queue.create(tmp_path / good) as queue:
        assert queue.name == f"file:{tmp_path}/{good}"
        assert inspect.summarize(queue.name).name == queue.name
    with (
        TrajectoryReader.create(name) as trainer,
        TrajectoryWriter.attach(name, environment=good),
    ):
        assert [one.name for one in trainer.stats().environments] == [good]


def test_sentences_about_keys_and_dataclasses_are_harmless(name: str) -> None:
    with penstock.Store.create(name, capacity="1MiB") as store:
        store.put(HOSTILE, 1)
        with pytest.raises(penstock.AlreadyExists) as there, store.reserve(HOSTILE, nbytes=10):
            pass
        assert_harmless(str(there.value))
        with pytest.raises(penstock.NotFound) as missing, store.get(HOSTILE + b"?"):
            pass
        assert_harmless(str(missing.value))
        assert HOSTILE in store

    @dataclasses.dataclass
    class Point:
        x: int

    penstock.codec.register_dataclass(Point, name="a point that nobody else has")
    message = _core.codec_encode(Point(1))
    called = b"a point that nobody else has"
    altered = message.replace(called, HOSTILE.ljust(len(called), b"."))
    with pytest.raises(penstock.Error) as unknown:
        _core.codec_decode(altered)
    assert_harmless(str(unknown.value))


def test_printable_escapes_what_it_hides() -> None:
    assert _core.printable("worker é 数 🌊.py") == "worker é 数 🌊.py"
    assert _core.printable("\x1b[2J\n\u202e\udcff") == "\\x1b[2J\\x0a\\u202e\\xff"
    assert _core.printable("\ud800") == "\\ud800"


def test_wrong_usage_is_reported_without_escapes(capfd) -> None:
    code, out, err = run(capfd, "ls", "--\x1b[2J")
    assert code == 2
    assert_harmless(out + err)
