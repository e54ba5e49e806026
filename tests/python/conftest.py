"""Common fixtures of the Python tests: unused names, peers, and a check for leftovers.

A test that leaves a file in /dev/shm or a child process behind fails, whatever else it shows.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import penstock
from penstock import inspect

sys.path.insert(0, str(Path(__file__).parent))  # also for children, which find `peers` there

from peers import Peer, eventually

# A shell starts background jobs with SIGINT ignored, and children inherit that: the tests of Ctrl-C
# need the default handler.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--share",
        metavar="DIR",
        help="run only the files that no other run with this folder has begun: several runs, each "
        "with a /dev/shm of its own, part the tests among them",
    )


@functools.cache
def has_taken(share: str, file: Path) -> bool:
    """Whether this run is the first to ask for the file."""
    try:
        Path(share, file.name).mkdir()
    except FileExistsError:
        return False
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    share = item.config.getoption("--share")
    if share is None or has_taken(share, item.path):
        return None
    return True  # then it needs no sharing


def short_tier(items: list[pytest.Item]) -> list[pytest.Item]:
    """Drop tests marked ``full``; keep the first, middle and last case of each parametrized
    function."""
    cases: dict[tuple[Path, str], list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("full") is None:
            function = getattr(item, "originalname", item.name)
            cases.setdefault((item.path, function), []).append(item)
    return [
        of_one[at]
        for of_one in cases.values()
        for at in sorted({0, len(of_one) // 2, len(of_one) - 1})
    ]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: takes long; not in the short tier")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("PENSTOCK_TEST_TIER") != "short":
        return
    kept = short_tier(items)
    left_out = set(items).difference(kept)
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


SHM = Path("/dev/shm")
# Processes that multiprocessing keeps for later children.
HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


def our_files() -> set[str]:
    return {file.name for file in SHM.glob("penstock.*")}


def children() -> dict[int, str]:
    """Children of this process, except multiprocessing's helpers: pid and command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            parent = int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_text(errors="replace").replace("\0", " ")
            if parent == os.getpid() and not any(helper in command for helper in HELPERS):
                found[int(entry.name)] = command
    return found


def is_somebody_elses(file: str) -> bool:
    """Whether another program on this machine uses Penstock at the same time, and is attached to
    the file or about to remove it."""
    ours = {os.getpid(), *children()}

    def is_explained() -> bool:
        if not (SHM / file).exists():
            return True
        return any(
            segment.name == file.removeprefix("penstock.")
            and any(one.alive and one.pid not in ours for one in segment.participants)
            for segment in inspect.list_segments()
        )

    try:
        return bool(eventually(is_explained, within=1.0))
    except AssertionError:
        return False


@pytest.fixture(scope="session", autouse=True)
def hang_ups_reach_programs() -> None:
    """A run under nohup ignores SIGHUP, and its children would inherit that. A signal that is
    caught has the default action again in a program that is started."""
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda _number, _frame: None)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    files = our_files()
    processes = children()
    yield
    gc.collect()
    left_files = {file for file in our_files() - files if not is_somebody_elses(file)}
    left_processes = {pid: who for pid, who in children().items() if pid not in processes}
    for pid in left_processes:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    for file in left_files:
        (SHM / file).unlink(missing_ok=True)
    assert not left_files, "files left in /dev/shm"
    assert not left_processes, "processes left"


@pytest.fixture
def name() -> str:
    """An unused name."""
    return f"test-{os.getpid()}-{secrets.token_hex(4)}"


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    """Make peers, and end them."""
    peers: list[Peer] = []

    def make(method: str = "forkserver") -> Peer:
        peers.append(Peer(method))
        return peers[-1]

    yield make
    for one in peers:
        one.end()


@pytest.fixture
def pair(name: str) -> Iterator[tuple[penstock.BroadcastWriter, penstock.BroadcastReader]]:
    """A writer and its reader in this process, with a small ring that fills up soon."""
    with (
        penstock.Broadcast.create(name, readers=1, capacity="64KiB") as writer,
        penstock.Broadcast.attach(name, rank=0) as reader,
    ):
        yield writer, reader
