"""`penstock doctor`: what this machine grants and withholds, each line with its remedy. Fails only
for what makes Penstock unusable; everything else is advice."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import asdict

from penstock.cli import exits, output
from penstock.cli.checks import locks, machine, memory, penstock_itself, shm
from penstock.cli.checks.finding import Finding, fail
from penstock.cli.command import Commands, add_command

_SIGNS = {"ok": "✓ ok  ", "warn": "! warn", "fail": "✗ fail"}


def add_to(commands: Commands) -> None:
    add_command(
        commands,
        "doctor",
        run,
        summary="check what this machine gives",
        description=(
            "Tries on this machine everything that Penstock builds on, and says what to do about\n"
            "what is missing. Exit code 1 only if Penstock can't work here."
        ),
        example="penstock doctor\npenstock doctor --json",
    )


def run(args: argparse.Namespace) -> int:
    findings = [
        finding
        for part in (machine, shm, locks, memory, penstock_itself)
        for finding in _look(part.check)
    ]
    usable = not any(finding.level == "fail" for finding in findings)
    if args.json:
        output.print_json({"usable": usable, "findings": [asdict(one) for one in findings]})
    else:
        print("\n".join(_text(output.printable(findings))))
    return exits.OK if usable else exits.ERROR


def _look(check: Callable[[], list[Finding]]) -> list[Finding]:
    """The check's finding; a check that fails to run is a finding too."""
    try:
        return check()
    except OSError as error:
        part = check.__module__.rpartition(".")[2].replace("_", " ")
        missing = not os.path.isdir("/proc/self")
        remedy = "mount /proc: mount -t proc proc /proc" if missing else "see the other lines"
        return [fail(f"a look at: {part}", str(error), remedy)]


def _text(findings: list[Finding]) -> list[str]:
    rows = output.columns([(finding.what, finding.found) for finding in findings])
    lines = []
    for finding, row in zip(findings, rows, strict=True):
        lines.append(f"{output.colour(_SIGNS[finding.level], finding.level)}  {row}")
        if finding.remedy:
            lines.append(f"          → {finding.remedy}")
    return [*lines, "", _summary(findings)]


def _summary(findings: list[Finding]) -> str:
    failed = sum(finding.level == "fail" for finding in findings)
    warned = sum(finding.level == "warn" for finding in findings)
    if failed:
        return output.colour(f"Penstock can't work here: {failed} of these must be mended.", "fail")
    advice = f"; {warned} to look at" if warned else ""
    return output.colour(f"Penstock works here{advice}.", "ok")
