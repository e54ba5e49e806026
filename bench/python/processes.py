"""The processes of a benchmark: forked, pinned, dead with their parent, and cleaned up after.

The same rules as in bench/cpp/common: a child that fails ends the run, and a guardian removes every
name that the run may have left, however it ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
ORPHAN_SECONDS = 5.0
CORES = sorted(os.sched_getaffinity(0))

_libc = ctypes.CDLL(None, use_errno=True)
_run_prefix = ""
_names = 0


def new_name() -> str:
    """An unused name for a segment or a socket of this run."""
    global _names
    _names += 1
    return f"{_run_prefix}{_names}"


def scratch_folder() -> Path:
    """A folder of this run, for peers that keep files."""
    folder = Path(tempfile.gettempdir()) / f"penstock-{_run_prefix}scratch"
    folder.mkdir(exist_ok=True)
    return folder


def unpin() -> None:
    os.sched_setaffinity(0, CORES)


def pin_driver() -> None:
    """Give the driver the first core to itself."""
    os.sched_setaffinity(0, {CORES[0]})


def pin_reader(rank: int) -> None:
    """Readers share the other cores in turn."""
    others = CORES[1:] or CORES
    os.sched_setaffinity(0, {others[rank % len(others)]})


def has_core_each(readers: int) -> bool:
    """Whether every process has its own core: only then may a contender wait by polling alone."""
    return readers + 1 <= len(CORES)


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """For children that a peer forks; those of ``fork_child`` do this themselves."""
    _libc.prctl(PR_SET_PDEATHSIG, number)


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the block when it takes longer; the run's own limit continues."""

    def on_alarm(_number: int, _frame: object) -> None:
        raise TimeoutError(f"not done within {seconds} s")

    begin = time.monotonic()
    before = signal.signal(signal.SIGALRM, on_alarm)
    left = signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(max(1, left - int(time.monotonic() - begin)) if left else 0)
        signal.signal(signal.SIGALRM, before)


def fork_child(body: Callable[[], None]) -> int:
    """Run ``body`` in a forked child that dies with this process; its process id."""
    parent = os.getpid()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        die_with_parent()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if os.getppid() == parent:
            body()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def join_child(pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise RuntimeError(f"a child failed with status {status}")


def fail_when_a_child_fails() -> None:
    """End this process as soon as a child fails: a peer would wait for it for ever."""

    def on_child(_number: int, _frame: object) -> None:
        with contextlib.suppress(ChildProcessError):
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None and (ended.si_code != os.CLD_EXITED or ended.si_status != 0):
                os._exit(4)

    signal.signal(signal.SIGCHLD, on_child)


def _sweep() -> None:
    for entry in Path("/dev/shm").glob(f"*{_run_prefix}*"):
        entry.unlink(missing_ok=True)
    shutil.rmtree(scratch_folder(), ignore_errors=True)


def _end_orphans() -> None:
    """Kill the servers of a peer that outlive a killed run, after a while."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    end = time.monotonic() + ORPHAN_SECONDS
    while True:  # until ChildProcessError: no child is left
        pid, _ = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            if time.monotonic() > end:
                for orphan in children.read_text().split():
                    os.kill(int(orphan), signal.SIGKILL)
            time.sleep(0.01)


def run_guarded(limit_seconds: int, body: Callable[[], None]) -> int:
    """Run ``body`` in a child, clean up after it, and return its exit code."""
    global _run_prefix
    _run_prefix = f"bench-{os.getpid()}-"
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)

    def limited() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.alarm(limit_seconds)
        body()

    worker = fork_child(limited)

    def stop(_number: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):  # it may have received the signal too
            os.kill(worker, signal.SIGKILL)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # if bench/run.py is killed
    outcome = 0
    # As subreaper also for the worker's children, so that no name is made after the cleanup.
    with contextlib.suppress(ChildProcessError):
        pid, status = os.waitpid(-1, 0)
        while pid != worker:
            pid, status = os.waitpid(-1, 0)
        outcome = os.waitstatus_to_exitcode(status)
        _end_orphans()
    _sweep()
    return outcome if outcome >= 0 else 128 - outcome
