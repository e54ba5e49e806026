"""/dev/shm, where segments live: its size, and whether it supports what creating a segment needs.
Leaves nothing behind: the one name that it makes is removed at once."""

from __future__ import annotations

import errno
import os
import secrets

from penstock.cli import units
from penstock.cli.checks.finding import Finding, fail, ok, warn

_SHM = "/dev/shm"
_DOCKER_DEFAULT = 64 << 20
_SMALLEST = 8 << 20  # a default Broadcast


def check() -> list[Finding]:
    if not os.path.isdir(_SHM):
        remedy = "mount it: mount -t tmpfs -o mode=1777 tmpfs /dev/shm"
        return [fail(_SHM, "missing", remedy)]
    return [_size(), _type(), _publish(), _reservation()]


def _size() -> Finding:
    facts = os.statvfs(_SHM)
    total, free = facts.f_frsize * facts.f_blocks, facts.f_frsize * facts.f_bavail
    found = f"{units.size(free)} free of {units.size(total)}"
    bigger = "docker run --shm-size=2g, or mount -o remount,size=2g /dev/shm"
    if free < _SMALLEST:
        return fail("/dev/shm size", found, f"{bigger}; `penstock gc` frees what the dead left")
    if total <= _DOCKER_DEFAULT:
        return warn("/dev/shm size", f"{found}: the default of docker", bigger)
    if free < total // 10:
        remedy = "`penstock ls` and `ls -lS /dev/shm` show what takes it"
        return warn("/dev/shm size", found, remedy)
    return ok("/dev/shm size", found)


def _type() -> Finding:
    kind = _file_system(_SHM)
    if kind in ("tmpfs", "ramfs", "hugetlbfs"):
        return ok("/dev/shm type", kind)
    remedy = "mount a tmpfs there: on a disk, messages are written to the disk"
    return warn("/dev/shm type", kind or "unknown", remedy)


def _file_system(path: str) -> str:
    """The type of the file system mounted at the longest prefix of `path`."""
    best = ("", "")
    with open("/proc/mounts", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            _, point, kind, *_ = line.split()
            inside = path == point or path.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best[0]):
                best = (point, kind)
    return best[1]


def _publish() -> Finding:
    """Publishes a complete file under a name: O_TMPFILE, then linkat."""
    what = "private, then published"
    try:
        descriptor = os.open(_SHM, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        return fail(what, str(error), "make /dev/shm writable for this user: chmod 1777 /dev/shm")
    except OSError as error:
        return warn(what, f"O_TMPFILE: {error.strerror}", "none needed: a temporary name is used")
    name = f"{_SHM}/.penstock-doctor-{secrets.token_hex(8)}"
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        # src_dir_fd makes Python call linkat(2); the path is absolute and doesn't need it.
        os.link(f"/proc/self/fd/{descriptor}", name, src_dir_fd=root, follow_symlinks=True)
        os.unlink(name)
    except OSError as error:
        return fail(what, f"linkat: {error.strerror}", "mount /proc: linkat goes through it")
    finally:
        os.close(root)
        os.close(descriptor)
    return ok(what, "O_TMPFILE and linkat work")


def _reservation() -> Finding:
    """fallocate must refuse memory that does not exist; otherwise a full tmpfs kills by SIGBUS."""
    what = "reservation"
    if _file_system(_SHM) != "tmpfs":
        return ok(what, "not tried: /dev/shm is no tmpfs")
    facts = os.statvfs(_SHM)
    total = facts.f_frsize * facts.f_blocks
    if total == 0:
        return warn(what, "/dev/shm has no size limit", "give it one: mount -o remount,size=50%")
    try:
        descriptor = os.open(_SHM, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        return warn(what, f"not tried: {error.strerror}", "see the line above")
    try:
        # More than there can ever be: the kernel refuses at once and takes nothing.
        os.posix_fallocate(descriptor, 0, total + (1 << 20))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EFBIG):
            return ok(what, "fallocate refuses what is not there")
        return fail(what, f"fallocate: {error.strerror}", "use a kernel whose tmpfs has fallocate")
    finally:
        os.close(descriptor)
    return warn(what, "fallocate promised more than there is", "expect SIGBUS when memory runs out")
