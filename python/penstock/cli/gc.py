"""`penstock gc`: removes the segments to which nobody alive is attached.
Death is the kernel's word, so nobody who is merely slow is harmed; damaged ones are left alone."""

from __future__ import annotations

import argparse

import penstock
from penstock import inspect
from penstock.cli import describe, exits, output, units
from penstock.cli.command import Commands, add_command
from penstock.state import SegmentSummary

_Verdicts = list[tuple[SegmentSummary, str]]


def add_to(commands: Commands) -> None:
    parser = add_command(
        commands,
        "gc",
        run,
        summary="remove what the dead left",
        description=(
            "Removes every segment to which nobody alive is attached. Safe while others create\n"
            "and attach. Exit code 1 if something abandoned could not be removed."
        ),
        example="penstock gc --dry-run\npenstock gc\npenstock gc steps",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="look only at these (default: at every segment)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")


def run(args: argparse.Namespace) -> int:
    segments = _segments(args.names)
    removed: _Verdicts = []
    kept: _Verdicts = []
    for segment in segments:
        if describe.condition(segment) != "abandoned":
            continue
        problem = "" if args.dry_run else _remove(segment.name)
        (kept if problem else removed).append((segment, problem))
    damaged = [one for one in segments if describe.condition(one) == "damaged"]
    if args.json:
        output.print_json(_json(args.dry_run, removed, kept, damaged))
    else:
        print("\n".join(_text(args.dry_run, removed, kept, damaged)))
    return exits.ERROR if kept else exits.OK


def _segments(names: list[str]) -> list[SegmentSummary]:
    """All segments, or those of these names; a name that isn't there is an error."""
    segments = inspect.list_segments()
    if not names:
        return segments
    by_name = {segment.name: segment for segment in segments}
    for name in names:
        if name not in by_name:
            raise penstock.NotFound(f"there is no segment {name!r}; `penstock ls` lists them")
    return [by_name[name] for name in names]


def _remove(name: str) -> str:
    """Why it could not be removed; empty when it is gone."""
    try:
        if inspect.remove_if_abandoned(name):
            return ""
        return "somebody has just attached to it"
    except penstock.NotFound:
        return ""  # another was quicker
    except penstock.Error as error:
        return str(error)


def _freed(removed: _Verdicts) -> int:
    return sum(segment.reserved_bytes for segment, _ in removed)


def _text(
    dry_run: bool, removed: _Verdicts, kept: _Verdicts, damaged: list[SegmentSummary]
) -> list[str]:
    verb = "would remove" if dry_run else "removed"
    lines = [f"{verb} {one.name}  {units.size(one.reserved_bytes)}" for one, _ in removed]
    lines += [f"could not remove {one.name}: {problem}" for one, problem in kept]
    lines += [f"left alone {one.name}: {one.problem}" for one in damaged]
    if not removed:
        return [*lines, "nothing abandoned"]
    total = f"{units.plural(len(removed), 'segment')}, {units.size(_freed(removed))}"
    return [*lines, f"{total} {'would be' if dry_run else ''} freed".replace("  ", " ")]


def _json(
    dry_run: bool, removed: _Verdicts, kept: _Verdicts, damaged: list[SegmentSummary]
) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "removed": [{"name": one.name, "bytes": one.reserved_bytes} for one, _ in removed],
        "freed_bytes": _freed(removed),
        "kept": [{"name": one.name, "problem": problem} for one, problem in kept],
        "damaged": [{"name": one.name, "problem": one.problem} for one in damaged],
    }
