"""Penstock on this machine: its version, a message through shared memory, and segments of dead
processes. If this check of `penstock doctor` works, everything works."""

from __future__ import annotations

import secrets
import time

import numpy as np

import penstock
from penstock import inspect
from penstock.cli import describe, units
from penstock.cli.checks.finding import Finding, fail, ok, warn

_MESSAGES = 2000


def check() -> list[Finding]:
    return [ok("penstock", f"version {penstock.__version__}"), _message(), *_leftovers()]


def _message() -> Finding:
    """Sends one array within this process; then many, for a figure of one message."""
    what = "a message"
    array = np.arange(256, dtype=np.int32)
    name = f"doctor-{secrets.token_hex(6)}"
    try:
        with (
            penstock.Broadcast.create(name, readers=1, capacity="1MiB") as writer,
            penstock.Broadcast.attach(name, rank=0) as reader,
        ):
            started = time.perf_counter()
            for _ in range(_MESSAGES):
                writer.send(array, timeout=1)
                received = reader.recv(timeout=1)
            each = (time.perf_counter() - started) / _MESSAGES
    except penstock.Error as error:
        return fail(what, f"{type(error).__name__}: {error}", "see the failed lines above")
    if not np.array_equal(received, array):
        return fail(what, "came out other than it went in", "report this, with this output")
    return ok(what, f"of 1 KiB went through whole; send and recv take {units.duration(each)}")


def _leftovers() -> list[Finding]:
    segments = inspect.list_segments()
    dead = [one for one in segments if describe.condition(one) == "abandoned"]
    damaged = [one for one in segments if describe.condition(one) == "damaged"]
    kept = [one for one in segments if describe.condition(one) == "kept"]
    live = sum(describe.condition(one) == "live" for one in segments)
    findings = [ok("segments", f"{live} in use")]
    if dead:
        taken = units.size(sum(one.reserved_bytes for one in dead))
        found = f"{units.plural(len(dead), 'segment')}, {taken}"
        findings.append(warn("left by the dead", found, "`penstock gc` removes them"))
    for one in kept:
        found = f"{one.name}: {one.kept.describe()}"
        remedy = f"attach to it, or `penstock gc --data {one.name}` removes it with that"
        findings.append(warn("kept data", found, remedy))
    for one in damaged:
        remedy = f"`penstock info {one.name}` says more; remove the file by hand if it is nobody's"
        findings.append(warn("damaged segment", f"{one.name}: {one.problem}", remedy))
    return findings
