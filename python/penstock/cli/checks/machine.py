"""The machine: kernel, processors, container limits, and the barrier that makes waiting cheap.
Independent of Penstock."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

from penstock.cli import units
from penstock.cli.checks.finding import Finding, fail, ok, warn

_OLDEST_KERNEL = (3, 17)  # open-file-description locks (3.15) and memfd with seals (3.17)
_MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356}
_GLOBAL_EXPEDITED = 1 << 1
_CGROUP = Path("/sys/fs/cgroup")


def check() -> list[Finding]:
    return [_kernel(), *_processors(), _membarrier(), *_container()]


def _kernel() -> Finding:
    release = platform.release()
    if platform.system() != "Linux":
        return fail("kernel", platform.system(), "use Linux: other systems are not supported yet")
    version = tuple(int(part) for part in release.split("-")[0].split(".")[:2])
    if version < _OLDEST_KERNEL:
        return fail("kernel", f"Linux {release}", "use Linux 3.17 or newer")
    return ok("kernel", f"Linux {release}, {platform.machine()}")


def _processors() -> list[Finding]:
    present = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0))
    found = f"{usable} of {present} usable by this process"
    findings = [ok("processors", found)]
    if usable == 1:
        remedy = "give at least two (taskset, docker --cpuset-cpus): each message costs a switch"
        findings = [warn("processors", found, remedy)]
    quota = _read(_CGROUP / "cpu.max").split()
    if len(quota) == 2 and quota[0] != "max":
        share = int(quota[0]) / int(quota[1])
        if share < usable:
            remedy = "raise docker --cpus: a process over its share is stopped for many ms"
            findings.append(warn("processor share", f"{share:.1f} processors", remedy))
    return findings


def _membarrier() -> Finding:
    number = _MEMBARRIER.get(platform.machine())
    if number is None:
        return ok("membarrier", f"not asked on {platform.machine()}")
    commands = ctypes.CDLL(None, use_errno=True).syscall(number, 0, 0)
    if commands >= 0 and commands & _GLOBAL_EXPEDITED:
        return ok("membarrier", "expedited")
    remedy = "allow membarrier(2) in the seccomp profile: waking is quicker with it"
    return warn("membarrier", "not available", remedy)


def _container() -> list[Finding]:
    """The limit that shared memory counts against in a container, besides the size of /dev/shm."""
    limit = _read(_CGROUP / "memory.max").strip()
    if not limit.isdigit():
        return []
    used = _read(_CGROUP / "memory.current").strip()
    left = int(limit) - int(used or 0)
    found = f"{units.size(left)} of {units.size(int(limit))} left"
    if left < 64 << 20:
        remedy = "raise docker --memory: shared memory counts against it, and the kernel kills"
        return [warn("memory limit", found, remedy)]
    return [ok("memory limit", found)]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
