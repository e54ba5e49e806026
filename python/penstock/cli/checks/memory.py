"""Huge pages and locked memory: options of a segment that many machines don't grant. Never a
failure: they only make large segments faster."""

from __future__ import annotations

import re
import resource
import secrets
from pathlib import Path

import penstock
from penstock.cli import units
from penstock.cli.checks.finding import Finding, ok, warn

_HUGE_PAGE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")


def check() -> list[Finding]:
    return [_transparent(), _reserved(), _memlock()]


def _transparent() -> Finding:
    """Puts a small segment into huge pages, and looks."""
    what = "huge pages, shmem"
    try:
        page = int(_HUGE_PAGE.read_text())
    except OSError:
        return warn(what, "not in this kernel", "none: leave huge_pages=False")
    name = f"doctor-{secrets.token_hex(6)}"
    try:
        with penstock.Store.create(name, capacity=page, huge_pages=True) as store:
            had = store.stats().huge_page_bytes
    except penstock.Error as error:
        return warn(what, type(error).__name__, f"for huge_pages=True: {error}")
    if had == 0:
        remedy = "for huge_pages=True: free some memory, or echo 1 > /proc/sys/vm/compact_memory"
        return warn(what, "none free", remedy)
    return ok(what, f"of {units.size(page)}, by huge_pages=True")


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
