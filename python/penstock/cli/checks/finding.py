"""One line of `penstock doctor`: what was checked, the result, and the remedy. Only "fail" means
that Penstock can't work here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    level: str  # "ok", "warn", "fail"
    what: str
    found: str
    remedy: str = ""


def ok(what: str, found: str) -> Finding:
    return Finding("ok", what, found)


def warn(what: str, found: str, remedy: str) -> Finding:
    return Finding("warn", what, found, remedy)


def fail(what: str, found: str, remedy: str) -> Finding:
    return Finding("fail", what, found, remedy)
