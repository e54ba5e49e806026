"""A peer that writes random words over a segment harms its own data and no process: every call of
the Python API ends in time, with a value or one of Penstock's errors, and afterwards the name can
be used for a new segment.

PENSTOCK_SEED repeats a run as far as the processes' timing allows; a failure names its seed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import penstock
from penstock.trajectories import TrajectoryReader

HERE = Path(__file__).parent
IS_FULL = os.environ.get("PENSTOCK_TEST_TIER") == "full"
SEEDS = range(6 if IS_FULL else 1)
SECONDS = 2.5 if IS_FULL else 1.0
FIRST_SEED = int(os.environ.get("PENSTOCK_SEED", "20261129"))
# Far more than a session takes: a call that hangs in it is found, and shown, by the session itself.
SESSION_TIMEOUT = 110.0


def use_anew(kind: str, name: str) -> None:
    """Create, use and close a new segment, as if the old one had never been."""
    if kind == "broadcast":
        with (
            penstock.Broadcast.create(name, readers=1) as writer,
            penstock.Broadcast.attach(name, rank=0) as reader,
        ):
            writer.send("new")
            assert reader.recv(timeout=10) == "new"
    elif kind == "queue":
        with penstock.Queue.create(name, capacity="1MiB") as queue:
            queue.put("new")
            assert queue.get(timeout=10) == "new"
    elif kind == "store":
        with penstock.Store.create(name, capacity="1MiB") as store:
            assert store.put("key", "new")
            assert store.get_copy("key") == "new"
    else:
        with TrajectoryReader.create(name, capacity="1MiB", slots=16) as trainer:
            assert not trainer.stats().environments


@pytest.mark.filterwarnings("ignore:.*takes the place of:RuntimeWarning")
@pytest.mark.parametrize("number", SEEDS)
@pytest.mark.parametrize("kind", ["broadcast", "queue", "store", "trajectories"])
def test_a_corrupted_segment_harms_no_process(kind: str, number: int) -> None:
    name, seed = f"corrupted-{secrets.token_hex(4)}", FIRST_SEED + number
    file = Path("/dev/shm") / f"penstock.{name}"
    try:
        code, said = run_session(kind, name, seed)
        assert code == 0, f"{kind}, seed {seed}: {code}\n{said}"
        try:
            use_anew(kind, name)
        except penstock.AlreadyExists as error:
            free_name(file, name, str(error))
            use_anew(kind, name)
        assert not file.exists()
    finally:
        file.unlink(missing_ok=True)


def free_name(file: Path, name: str, sentence: str) -> None:
    """Do what the sentence says. Two kinds of segments are not removed unasked: those whose header
    is damaged, and those that say that they keep data, as a store does whose flag for "persistent"
    was written over."""
    if "penstock gc --data" in sentence:
        command = [sys.executable, "-m", "penstock.cli.main", "gc", "--data", name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{sentence}\n{done.stdout}{done.stderr}"
        assert not file.exists(), f"{sentence}\n{done.stdout}"
    else:
        assert "remove the file" in sentence
        file.unlink()


def run_session(kind: str, name: str, seed: int) -> tuple[int | str, str]:
    """The exit code and the output of a session. None of its processes stays."""
    program = [sys.executable, str(HERE / "corrupted_session.py")]
    with tempfile.TemporaryFile("w+") as said:
        session = subprocess.Popen(
            [*program, kind, name, str(seed), str(SECONDS)],
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code: int | str = "it did not end"
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = session.wait(SESSION_TIMEOUT)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(session.pid, signal.SIGKILL)
            session.wait()
        said.seek(0)
        return code, said.read()
