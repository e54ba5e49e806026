"""Open-file-description locks, which tell living participants from dead ones. Tested as Penstock
uses them: across a fork, and across a SIGKILL."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import tempfile

from penstock.cli.checks.finding import Finding, fail, ok

_WHAT = "locks of the dead"
_REMEDY = "use a kernel with open-file-description locks on /dev/shm (gVisor before 2024 has none)"
# struct flock: type, whence, start, length, pid (0 for these locks).
_FLOCK = struct.Struct("@hhqqi4x")


def check() -> list[Finding]:
    directory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryFile(dir=directory) as file:
        try:
            # A file without a name; this path reopens it, also in the child.
            return [_try_in_another_process(f"/proc/self/fd/{file.fileno()}")]
        except (OSError, AttributeError) as error:
            return [fail(_WHAT, str(error), _REMEDY)]


def _try_in_another_process(path: str) -> Finding:
    ready, says_ready = os.pipe()
    child = os.fork()
    if child == 0:
        _hold_until_killed(path, says_ready)
    os.close(says_ready)
    try:
        held = os.read(ready, 1) == b"L"
        seen_alive = held and not _try_lock(path)
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if not held:
        return fail(_WHAT, "a lock could not be taken", _REMEDY)
    if not seen_alive:
        return fail(_WHAT, "two processes got the same lock", _REMEDY)
    if not _try_lock(path):
        return fail(_WHAT, "a killed process kept its lock", _REMEDY)
    return ok(_WHAT, "a living process keeps its lock, a killed one loses it")


def _hold_until_killed(path: str, says_ready: int) -> None:
    """The child: never returns."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        os.write(says_ready, b"L" if _lock(descriptor) else b"-")
        while True:
            signal.pause()
    finally:
        os._exit(1)


def _try_lock(path: str) -> bool:
    """Takes the lock through a description of its own, and releases it again."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
    except (BlockingIOError, PermissionError):  # EAGAIN, or EACCES on some systems
        return False
    return True
