"""Hostile files among the segments: `penstock ls`, `info`, `gc` and `doctor` inspect them without
harm.

    inspection_fuzz.py [--seconds S] [--seed N] [--rounds N]

In its own /dev/shm: plants files with random names and damaged contents, runs the command in this
process, and checks its output, and that a segment in use is unchanged. A round depends only on its
seed; a failure names the seed that repeats it. Where the system allows no private /dev/shm, it says
so and does nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import json
import os
import random
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
import unicodedata
from pathlib import Path

import numpy as np

import penstock
from penstock.cli import main as command
from penstock.trajectories import TrajectoryReader, TrajectoryWriter

SHM = b"/dev/shm/"
PREFIX = b"penstock."
LIVING = "in-use"
SLOW = 20.0  # seconds for one command, on a machine that is busy
FRONT = 1 << 18  # copied bytes of a segment; the payload lies behind them

LETTERS = [
    *"abcXYZ019._-",
    *" /'\"\\$`;&|*?[\t\n\r\x1b\x07\x7f",
    *"\u0085\u009b\u200b\u200f\u202e\u2066\u2028\ufeff\U000e0041éé数🌊",
]
WORDS = (0, 1, 2, 7, 63, 64, 4096, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 63, (1 << 64) - 1)


# --- planted files ----------------------------------------------------------------------------


def templates() -> list[tuple[bytes, int]]:
    """The front of real segments of every kind, with data in them, and the sizes of their files."""
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        writer = enter(penstock.Broadcast.create("t-b", readers=2, capacity="64KiB"))
        reader = enter(penstock.Broadcast.attach("t-b", rank=0))
        for number in range(5):
            writer.send({"step": number, "array": np.arange(100)})
        reader.recv()
        queue = enter(penstock.Queue.create("t-q", capacity="1MiB", max_deliveries=1))
        queue.put_many([bytes(100), np.arange(1000)])
        store = enter(penstock.Store.create("t-s", capacity="1MiB", persistent=True))
        store.put("key", np.arange(1000))
        enter(TrajectoryReader.create("t-t", sequences=4))
        enter(TrajectoryWriter.attach("t-t", environment="math"))
        found = []
        for kind in "bqst":
            path = Path(f"/dev/shm/penstock.t-{kind}")
            with path.open("rb") as file:
                found.append((file.read(FRONT), path.stat().st_size))
        return found


def random_name(chance: random.Random) -> bytes:
    kind = chance.randrange(4)
    if kind == 0:
        return chance.randbytes(chance.randint(1, 60)).replace(b"\0", b"x").replace(b"/", b"y")
    letters = LETTERS[:12] if kind == 1 else LETTERS
    name = "".join(chance.choices(letters, k=chance.randint(1, 40))).replace("/", "|").encode()
    return name[: chance.randint(1, 240)]  # may cut a character


def damaged(chance: random.Random, front: bytes) -> bytes:
    content = bytearray(front)
    for _ in range(chance.choice((0, 1, 1, 2, 5, 50))):
        # The header and the participants are small, and at the start.
        reach = chance.choice((256, 4096, 65536, len(content)))
        at = chance.randrange(max(1, min(reach, len(content)) - 8)) & ~chance.choice((0, 7))
        if chance.random() < 0.5:
            word = chance.choice(WORDS) + chance.choice((0, 0, 1, -1))
            content[at : at + 8] = (word & ((1 << 64) - 1)).to_bytes(8, "little")
        else:
            noise = chance.randbytes(chance.randint(1, 64))
            content[at : at + len(noise)] = noise
    return bytes(content)


def plant_regular(chance: random.Random, path: bytes, models: list[tuple[bytes, int]]) -> None:
    front, size = chance.choice(models)
    content = chance.choice(
        (
            lambda: damaged(chance, front),
            lambda: damaged(chance, front),
            lambda: damaged(chance, front),
            lambda: front[: chance.randrange(len(front))],
            lambda: chance.randbytes(chance.randrange(5000)),
            lambda: b"",
        )
    )()
    with open(path, "wb") as file:
        file.write(content)
        if chance.random() < 0.8:
            with contextlib.suppress(OSError):
                file.truncate(chance.choice((size, size, size, len(content), 4096, 1 << 44)))
    if chance.random() < 0.05:
        os.chmod(path, 0)


def plant_other(chance: random.Random, path: bytes) -> None:
    """A path that is not a regular file, or another user's."""
    kind = chance.randrange(5)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        os.mkdir(path)
    elif kind == 2:
        os.symlink(
            chance.choice((b"/etc/passwd", b"nowhere", SHM + PREFIX + LIVING.encode())), path
        )
    elif kind == 3:
        with socket.socket(socket.AF_UNIX) as listener, contextlib.suppress(OSError):
            listener.bind(path)
    elif os.geteuid() == 0:
        os.mknod(path, stat.S_IFREG | 0o600)
        with contextlib.suppress(OSError):  # a user namespace may have no such user
            os.chown(path, 65534, 65534)


def plant(chance: random.Random, models: list[tuple[bytes, int]]) -> list[bytes]:
    names = []
    for _ in range(chance.randint(1, 6)):
        name = random_name(chance)
        path = SHM + PREFIX + name
        if os.path.lexists(path) or len(PREFIX + name) > 255:
            continue
        if chance.random() < 0.85:
            plant_regular(chance, path, models)
        else:
            plant_other(chance, path)
        names.append(name)
    return names


def clear() -> None:
    for entry in os.scandir(SHM):
        if entry.name == PREFIX + LIVING.encode():
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


# --- commands ---------------------------------------------------------------------------------


def run(*arguments: str) -> tuple[int, str]:
    """The command; its exit code and output must be valid whatever it inspects."""
    out, err = io.StringIO(), io.StringIO()
    started = time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command.main(arguments)
    taken = time.monotonic() - started
    printed = out.getvalue() + err.getvalue()
    assert code in (0, 1), (arguments, code, printed)
    assert taken < SLOW, f"{arguments} took {taken} s"
    hidden = {
        ascii(one) for one in printed if unicodedata.category(one) in ("Cc", "Cf", "Zl", "Zp")
    }
    assert hidden <= {"'\\n'"}, (arguments, hidden)
    assert code == 0 or err.getvalue().startswith("penstock: ") or out.getvalue(), arguments
    return code, out.getvalue()


def look(chance: random.Random, names: list[bytes]) -> None:
    known = [os.fsdecode(name) for name in names]
    run("ls")
    code, text = run("ls", "--json")
    assert code == 0
    seen = {one["name"] for one in json.loads(text)}
    assert LIVING in seen
    for name in known:
        path = SHM + PREFIX + os.fsencode(name)
        assert name in seen or not os.path.isfile(path) or os.path.islink(path), name
    for name in chance.sample(known, min(2, len(known))):
        if not name.startswith("-"):
            run("info", "--interval", "0", name)
            run("info", "--interval", "0", "--json", name)
            run("gc", "--dry-run", name)
    if chance.random() < 0.05:
        run("doctor")
        json.loads(run("doctor", "--json")[1])


def collect(chance: random.Random, names: list[bytes]) -> None:
    run("gc", "--dry-run")
    json.loads(run("gc", *chance.choice(((), ("--dry-run",))), "--json")[1])
    there = [name for name in names if os.path.lexists(SHM + PREFIX + name)]
    if there and not there[0].startswith(b"-"):
        run("gc", *chance.choice(((), ("--data",))), os.fsdecode(there[0]))


def one_round(seed: int, models: list[tuple[bytes, int]], queue: penstock.Queue) -> None:
    chance = random.Random(seed)
    names = plant(chance, models)
    try:
        look(chance, names)
        collect(chance, names)
        queue.put(seed)
        assert queue.get(timeout=1) == seed, "the segment in use is another"
    except BaseException:
        print(f"round {seed} failed; the files: {names}", flush=True)
        raise
    finally:
        clear()


def rounds(seed: int, seconds: float, most: int, progress: Path) -> None:
    faulthandler.enable()
    models = templates()
    end = time.monotonic() + seconds
    done = 0
    with penstock.Queue.create(LIVING, capacity="64KiB") as queue:
        while done < most and time.monotonic() < end:
            progress.write_text(str(seed + done))
            one_round(seed + done, models, queue)
            done += 1
    print(f"inspection: {done} rounds from seed {seed}, nothing found", flush=True)


# --- a private /dev/shm -----------------------------------------------------------------------

_MOUNT = 'mount -t tmpfs -o size=256m tmpfs /dev/shm && exec "$@"'


def private() -> list[str] | None:
    """The prefix that gives a command its own /dev/shm, or None where that is refused."""
    for prefix in (["unshare", "-m"], ["unshare", "-r", "-m"]):
        with contextlib.suppress(OSError):
            probe = [*prefix, "sh", "-c", _MOUNT, "sh", "true"]
            if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
                return [*prefix, "sh", "-c", _MOUNT, "sh"]
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument(
        "--seed", type=int, default=None, help="of the first round (default: by time)"
    )
    parser.add_argument("--rounds", type=int, default=sys.maxsize, help="at most so many")
    parser.add_argument("--progress", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.progress:
        rounds(args.seed, args.seconds, args.rounds, args.progress)
        return 0
    prefix = private()
    if prefix is None:
        print("inspection: skipped, this user may have no /dev/shm of its own (unshare, mount)")
        return 0
    seed = int(time.time()) * 1000 if args.seed is None else args.seed
    with tempfile.TemporaryDirectory() as folder:
        progress = Path(folder) / "round"
        own = [sys.executable, __file__, f"--seconds={args.seconds}", f"--seed={seed}"]
        more = [f"--rounds={args.rounds}", f"--progress={progress}"]
        code = subprocess.run([*prefix, *own, *more], check=False).returncode
        if code != 0:
            last = progress.read_text() if progress.exists() else str(seed)
            print(f"inspection: ended with {code}; again with --seed {last} --rounds 1")
        return 0 if code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
