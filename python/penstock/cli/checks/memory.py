"""Huge pages and locked memory: options of a segment that many machines don't grant. Never a
failure: they only make large segments faster."""

from __future__ import annotations

import re
import resource
from pathlib import Path

from penstock.cli import units
from penstock.cli.checks.finding import Finding, ok, warn

_SHMEM_ENABLED = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
_USED_BY_PENSTOCK = ("always", "within_size", "advise", "force")


def check() -> list[Finding]:
    return [_transparent(), _reserved(), _memlock()]


def _transparent() -> Finding:
    what = "huge pages, shmem"
    try:
        match = re.search(r"\[(\w+)\]", _SHMEM_ENABLED.read_text())
    except OSError:
        return warn(what, "not in this kernel", "none: leave huge_pages=False")
    mode = match.group(1) if match else "unknown"
    if mode in _USED_BY_PENSTOCK:
        return ok(what, mode)
    remedy = f"for huge_pages=True: echo advise > {_SHMEM_ENABLED} (root)"
    return warn(what, mode, remedy)


def _reserved() -> Finding:
    facts = dict(re.findall(r"^(\w+):\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE))
    page = units.size(int(facts.get("Hugepagesize", 0)) * 1024)
    total, free = facts.get("HugePages_Total", "0"), facts.get("HugePages_Free", "0")
    return ok("huge pages, reserved", f"{free} of {total} free, {page} each (not needed)")


def _memlock() -> Finding:
    what = "memory lock limit"
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit == resource.RLIM_INFINITY:
        return ok(what, "none")
    found = units.size(limit)
    if limit < 64 << 20:
        return warn(what, found, "for lock_memory=True: ulimit -l, or docker --ulimit memlock=-1")
    return ok(what, found)
