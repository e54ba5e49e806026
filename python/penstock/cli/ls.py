"""`penstock ls`: every segment on this machine, its participants, and which of them are dead.
Changes nothing; a damaged segment is listed with the reason."""

from __future__ import annotations

import argparse

from penstock import inspect
from penstock.cli import describe, exits, output, units
from penstock.cli.command import Commands, add_command
from penstock.state import Participant, SegmentSummary


def add_to(commands: Commands) -> None:
    parser = add_command(
        commands,
        "ls",
        run,
        summary="list segments and their participants",
        description=(
            "Lists the segments in /dev/shm with their participants, alive and dead. A segment\n"
            'that is "kept" has no participant but holds data, for any process that attaches.'
        ),
        example="penstock ls\npenstock ls --abandoned --json",
    )
    parser.add_argument(
        "--abandoned",
        action="store_true",
        help="only those without a living participant and without data (what `penstock gc` "
        "would remove)",
    )


def run(args: argparse.Namespace) -> int:
    segments = inspect.list_segments()
    if args.abandoned:
        segments = [one for one in segments if describe.condition(one) == "abandoned"]
    if args.json:
        output.print_json([describe.segment_json(one) for one in segments])
    else:
        print("\n".join(_text(output.printable(segments))))
    return exits.OK


def _text(segments: list[SegmentSummary]) -> list[str]:
    if not segments:
        return ["no segments"]
    lines = []
    for segment in segments:
        lines += segment_lines(segment)
    return [*lines, "", _summary(segments)]


def segment_lines(segment: SegmentSummary) -> list[str]:
    """One segment: its state, its memory, and its participants."""
    condition = describe.condition(segment)
    name = output.colour(segment.name, "bold")
    if segment.problem:
        return [f"{name}  {describe.tint(condition)}", f"    {segment.problem}"]
    words = (
        name,
        str(segment.kind),
        describe.memory(segment),
        describe.state(segment),
        describe.owner(segment),
    )
    return ["  ".join(filter(None, words)), *participant_lines(segment.participants)]


def participant_lines(participants: list[Participant]) -> list[str]:
    """A line for each participant, living or dead."""
    if not participants:
        return []
    rows = output.columns(describe.participant_rows(participants))
    return [
        f"    {describe.tint(f'{describe.life(one):<7}')}  {row}"
        for one, row in zip(participants, rows, strict=True)
    ]


def _summary(segments: list[SegmentSummary]) -> str:
    taken = units.size(sum(one.reserved_bytes for one in segments))
    line = f"{units.plural(len(segments), 'segment')}, {taken}"
    conditions = [describe.condition(one) for one in segments]
    if "abandoned" in conditions:
        count = conditions.count("abandoned")
        line += f"; {count} abandoned: `penstock gc` removes what the dead left"
    if "kept" in conditions:
        count = conditions.count("kept")
        line += f"; {count} kept: `penstock gc --data NAME` removes one with its data"
    return line
