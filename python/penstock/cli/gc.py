"""`penstock gc`: removes segments without a living participant that hold no data. The kernel's
locks decide who is dead, so no slow process is harmed; damaged segments are left alone."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field, replace
from typing import Any

import penstock
from penstock import inspect
from penstock.cli import describe, exits, output, units
from penstock.cli.command import Commands, add_command
from penstock.state import SegmentSummary


def add_to(commands: Commands) -> None:
    parser = add_command(
        commands,
        "gc",
        run,
        summary="remove what the dead left",
        description=(
            "Removes every segment to which nobody alive is attached. Safe while others create\n"
            "and attach, and from a timer: what holds data stays and is named, the undelivered\n"
            "messages of a queue and a persistent store. --data NAME removes it with its data.\n"
            "Exit code 1 if something that should go could not be removed."
        ),
        example="penstock gc --dry-run\npenstock gc\npenstock gc steps\n"
        "penstock gc --data rollouts",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="look only at these (default: at every segment)"
    )
    parser.add_argument(
        "--data",
        action="store_true",
        help="remove the NAMEs although they hold data, if nobody alive is attached",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    parser.set_defaults(usage_error=parser.error)


@dataclass
class _Outcome:
    """The outcome for each segment; segments in use are not listed."""

    removed: list[SegmentSummary] = field(default_factory=list)
    kept: list[SegmentSummary] = field(default_factory=list)  # because of the data in them
    failed: list[tuple[SegmentSummary, str]] = field(default_factory=list)
    unreadable: list[SegmentSummary] = field(default_factory=list)

    @property
    def freed_bytes(self) -> int:
        return sum(one.reserved_bytes for one in self.removed)


def run(args: argparse.Namespace) -> int:
    if args.data and not args.names:
        args.usage_error("--data needs the NAMEs of what may go with its data")
    outcome = _Outcome()
    for segment in _segments(args.names):
        _collect(segment, args, outcome)
    if args.json:
        output.print_json(_json(args.dry_run, outcome))
    else:
        print("\n".join(_text(args.dry_run, output.printable(outcome))))
    return exits.ERROR if outcome.failed else exits.OK


def _segments(names: list[str]) -> list[SegmentSummary]:
    """All segments, or the named ones; a missing name is an error."""
    if not names:
        return inspect.list_segments()
    by_name = {segment.name: segment for segment in inspect.list_segments()}
    # Segments outside /dev/shm (file:/path) are found by name only.
    return [by_name.get(name) or inspect.summarize(name) for name in names]


def _collect(segment: SegmentSummary, args: argparse.Namespace, outcome: _Outcome) -> None:
    condition = describe.condition(segment)
    if segment.problem:
        outcome.unreadable.append(segment)
    elif condition == "kept" and not args.data:
        outcome.kept.append(segment)
    elif condition == "live":
        if args.data:
            outcome.failed.append((segment, f"in use by {_users(segment)}"))
    elif args.dry_run:
        outcome.removed.append(segment)
    else:
        _remove(segment, args, outcome)


def _remove(segment: SegmentSummary, args: argparse.Namespace, outcome: _Outcome) -> None:
    try:
        removed = inspect.remove_if_abandoned(segment.name, data=args.data)
    except penstock.NotFound:
        removed = True  # another process removed it first
    except penstock.Error as error:
        if isinstance(error, penstock.PermissionDenied) and segment.owner != os.geteuid():
            # Readable, but only its owner may remove it.
            outcome.unreadable.append(
                replace(segment, problem=str(error), problem_code="PermissionDenied")
            )
        else:
            outcome.failed.append((segment, str(error)))
        return
    if removed:
        outcome.removed.append(segment)
    else:
        outcome.failed.append((segment, "somebody has just attached to it"))


def _users(segment: SegmentSummary) -> str:
    return ", ".join(f"pid {one.pid} ({one.process})" for one in segment.participants if one.alive)


def _text(dry_run: bool, outcome: _Outcome) -> list[str]:
    verb = "would remove" if dry_run else "removed"
    lines = [f"{verb} {one.name}  {units.size(one.reserved_bytes)}" for one in outcome.removed]
    lines += [
        f"{one.name}  {describe.state(one)}; `penstock gc --data {one.name}` removes it"
        for one in outcome.kept
    ]
    lines += [f"could not remove {one.name}: {problem}" for one, problem in outcome.failed]
    lines += [f"left alone {one.name}: {one.problem}" for one in outcome.unreadable]
    if not outcome.removed:
        return [*lines, "nothing abandoned" + (" without data" if outcome.kept else "")]
    total = f"{units.plural(len(outcome.removed), 'segment')}, {units.size(outcome.freed_bytes)}"
    return [*lines, f"{total} {'would be ' if dry_run else ''}freed"]


def _json(dry_run: bool, outcome: _Outcome) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "removed": [{"name": one.name, "bytes": one.reserved_bytes} for one in outcome.removed],
        "freed_bytes": outcome.freed_bytes,
        "kept": [
            {"name": one.name, "kind": one.kind, "data": describe.kept_json(one)}
            for one in outcome.kept
        ],
        "failed": [{"name": one.name, "problem": problem} for one, problem in outcome.failed],
        "damaged": [
            {"name": one.name, "problem": one.problem}
            for one in outcome.unreadable
            if describe.condition(one) == "damaged"
        ],
        "foreign": [
            {"name": one.name, "problem": one.problem}
            for one in outcome.unreadable
            if describe.condition(one) == "foreign"
        ],
    }
