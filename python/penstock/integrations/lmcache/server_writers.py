"""Finds the process of a worker, and whether it can still write into the pool.

A worker gets a name of its own for the segment's file, a hard link that lives until the worker has
opened it: the process that has this name mapped is the worker, whatever it calls itself. From then
on its pidfd tells its death, and the kernel's list of its mappings whether it has unmapped the
pool. A worker in a PID namespace that this process can't see into stays unknown.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

__all__ = [
    "Link",
    "Process",
    "Wake",
    "can_write",
    "forget_links",
    "has_mapped",
    "is_seen",
    "namespace",
    "owners_of",
    "pool_file",
    "wait_for_death",
]

_SHM: Final = Path("/dev/shm")
_PREFIX: Final = "lmcache_l1_pool_"  # names by LMCache, before Penstock's names of pools
_PROC: Final = Path("/proc")
_FLOCK: Final = struct.Struct("hh4xqqi4x")  # struct flock: type, whence, start, length, pid
_GET_LOCK: Final = 36  # F_OFD_GETLK


class Link:
    """One worker's name of the segment's file."""

    def __init__(self, pool: str) -> None:
        """Raises OSError if the file can't have another name."""
        self.name = f"{_PREFIX}{pool}.{namespace()}-{os.getpid()}.{os.urandom(6).hex()}"
        os.link(_SHM / f"penstock.{pool}", _SHM / self.name)

    def mappers(self) -> list[Process]:
        """The processes that have it mapped now."""
        return list(_mappers(self.name))

    def pool_bytes(self) -> int:
        """Size of the file."""
        return (_SHM / self.name).stat().st_size

    def remove(self) -> None:
        """Removes the name, so that no other process can open it. Mappings stay."""
        (_SHM / self.name).unlink(missing_ok=True)


def pool_file(pool: str) -> tuple[str, int]:
    """The file that all participants have, and its size: for a worker that stays unknown."""
    name = f"penstock.{pool}"
    return name, (_SHM / name).stat().st_size


class Process:
    """One process, not confused with a later one of the same pid."""

    def __init__(self, pid: int, started: int) -> None:
        """Raises ProcessLookupError if it has ended."""
        self.pid = pid
        self.started = started
        self.descriptor = os.pidfd_open(pid)
        if _started(pid) != started:
            os.close(self.descriptor)
            raise ProcessLookupError(pid)

    def is_alive(self) -> bool:
        """By its pidfd."""
        return not wait_for_death([self], 0)

    def to_record(self) -> list[int]:
        """For another server in the same PID namespace."""
        return [self.pid, self.started]

    def close(self) -> None:
        """Closes the descriptor. Idempotent."""
        os.close(self.descriptor)


def wait_for_death(processes: Iterable[Process], timeout: float, wake: int = -1) -> list[Process]:
    """Returns the dead processes as soon as there are any, `wake` is readable, or the time is
    over."""
    by_descriptor = {process.descriptor: process for process in processes}
    poller = select.poll()
    for descriptor in by_descriptor:
        poller.register(descriptor, select.POLLIN)
    if wake >= 0:
        poller.register(wake, select.POLLIN)
    return [
        by_descriptor[descriptor]
        for descriptor, events in poller.poll(timeout * 1000)
        if descriptor in by_descriptor and events & select.POLLIN
    ]


class Wake:
    """Ends the wait of another thread."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def set(self) -> None:
        """Any thread; any number of times."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"x")

    def take(self) -> None:
        """Called by the thread that waited."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.reader, 4096)

    def close(self) -> None:
        """When neither thread uses it any more."""
        os.close(self.reader)
        os.close(self._writer)


def namespace() -> int:
    """Id of the PID namespace."""
    return os.stat(_PROC / "self/ns/pid").st_ino


def can_write(record: dict[str, Any], pool: str) -> bool:
    """Whether a writer recorded by another server may have the pool mapped; True also if that is
    unknown."""
    if not is_seen(record):
        return True
    return any(
        _started(pid) == started and has_mapped(pid, pool) for pid, started in record["processes"]
    )


def is_seen(record: dict[str, Any]) -> bool:
    """Whether this process can observe that writer."""
    is_of_here = record.get("namespace") == namespace() and _sees_processes()
    return is_of_here and bool(record.get("processes"))


def has_mapped(pid: int, pool: str) -> bool:
    """Whether that process has any worker's name of the pool mapped. True also if it can't be
    seen."""
    try:
        return f"{_SHM}/{_PREFIX}{pool}.".encode() in (_PROC / str(pid) / "maps").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return True


def owners_of(segments: Iterable[str]) -> list[Process]:
    """The processes, other than this one, that have one of those files under /dev/shm mapped; none
    if they can't be seen."""
    for name in segments:
        found = list(_mappers(name))
        for process in found:
            if process.pid == os.getpid():
                process.close()
        others = [process for process in found if process.pid != os.getpid()]
        if others:
            return others
    return []


def forget_links(pool: str) -> None:
    """Removes names that dead servers of the pool left: they would keep its memory."""
    can_see = _sees_processes()
    for path in _SHM.glob(f"{_PREFIX}{pool}.*.*"):
        server = path.name.removeprefix(f"{_PREFIX}{pool}.").partition(".")[0]
        number, _, pid = server.partition("-")
        is_ours = can_see and number == str(namespace()) and pid.isdigit()
        if (is_ours and not (_PROC / pid).exists()) or not _is_used(path):
            path.unlink(missing_ok=True)


def _mappers(name: str) -> Iterable[Process]:
    if not _sees_processes():
        return
    wanted = f"{_SHM}/{name}".encode()  # names of files and processes may be invalid UTF-8
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        started = _started(pid)
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            if started is not None and wanted in (entry / "maps").read_bytes():
                yield Process(pid, started)


def _started(pid: int) -> int | None:
    """Start time of the process, in ticks since the machine's boot; None: there is none."""
    try:
        text = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    return int(text.rpartition(b")")[2].split()[19])


def _sees_processes() -> bool:
    """Whether /proc shows the pids that system calls of this process use: it may be that of an
    outer PID namespace."""
    try:
        status = (_PROC / "self/status").read_bytes()
    except OSError:
        return False
    numbers = next(line for line in status.splitlines() if line.startswith(b"NSpid:")).split()[1:]
    return numbers == [str(os.getpid()).encode()]


def _is_used(path: Path) -> bool:
    """Whether a participant is attached: each holds a lock on the file as long as it lives."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        return bool(_FLOCK.unpack(fcntl.fcntl(descriptor, _GET_LOCK, question))[0] != fcntl.F_UNLCK)
    finally:
        os.close(descriptor)
