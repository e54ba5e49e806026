"""`penstock info NAME`: one segment in full: memory, rates, fill level, which readers lag and
block. Inspects twice, a moment apart, for the rates; attaches nowhere and changes nothing."""

from __future__ import annotations

import argparse
import time
from types import ModuleType
from typing import Any

import penstock
from penstock import inspect
from penstock.cli import (
    describe,
    exits,
    info_broadcast,
    info_queue,
    info_store,
    ls,
    output,
    stats,
    units,
)
from penstock.cli.command import Commands, add_command
from penstock.state import SegmentSummary

# A module for each concept, for what its table of statistics does not have: facts(info, rates),
# labels with a sentence each; sections(info), the lines after them; to_json(info, rates).
_CONCEPTS: dict[str, ModuleType] = {
    "broadcast": info_broadcast,
    "queue": info_queue,
    "store": info_store,
}


def add_to(commands: Commands) -> None:
    parser = add_command(
        commands,
        "info",
        run,
        summary="show one segment in full",
        description=(
            "Shows everything about the segment NAME: memory, rates, participants, and all its\n"
            "statistics; of a broadcast also how far each reader is behind and which readers\n"
            "block the writer, of a queue its waiting requests and dead letters, of a store how\n"
            "often objects are found."
        ),
        example="penstock info steps\npenstock info steps --json",
    )
    parser.add_argument("name", help="as `penstock ls` shows it")
    parser.add_argument(
        "--interval",
        type=float,
        default=0.25,
        metavar="SECONDS",
        help="between the two looks that give the rates; 0 for one look (default 0.25)",
    )


def run(args: argparse.Namespace) -> int:
    info, started = inspect.inspect(args.name), time.monotonic()
    if isinstance(info, SegmentSummary):  # a kind without further details
        _print(args, describe.segment_json(info), ls.segment_lines(output.printable(info)))
        return exits.OK
    growth = None
    if args.interval > 0:
        before = info
        time.sleep(args.interval)
        info = inspect.inspect(args.name)
        if isinstance(info, SegmentSummary) or type(info) is not type(before):
            raise penstock.Incompatible(f"{args.name!r} was replaced by another kind of segment")
        growth = stats.rates(info.stats, before.stats, time.monotonic() - started)
    _print(args, _json(info, growth), _text(output.printable(info), growth))
    return exits.OK


def _print(args: argparse.Namespace, value: dict[str, Any], lines: list[str]) -> None:
    if args.json:
        output.print_json(value)
    else:
        print("\n".join(lines))


def _text(info: Any, growth: stats.Rates | None) -> list[str]:
    segment, concept = info.segment, _CONCEPTS[info.segment.kind]
    facts = [("memory", _memory(info)), *concept.facts(info, growth)]
    return [
        f"{output.colour(segment.name, 'bold')}  {segment.kind}  {describe.state(segment)}",
        *output.columns([(f"  {label}", value) for label, value in facts]),
        *concept.sections(info),
        "",
        "attached",
        *ls.participant_lines(segment.participants),
        *(["", "died, and cleaned up after"] if segment.reaped else []),
        *ls.participant_lines(segment.reaped),
        "",
        "statistics",
        *stats.lines(info.stats, growth),
    ]


def _memory(info: Any) -> str:
    """With the share in huge pages, if there is one."""
    text, huge = describe.memory(info.segment), info.stats.huge_page_bytes
    return f"{text}, {units.size(huge)} of it in huge pages" if huge else text


def _json(info: Any, growth: stats.Rates | None) -> dict[str, Any]:
    return {
        **describe.segment_json(info.segment),
        "rates": growth,
        "stats": info.stats.asdict(),
        **_CONCEPTS[info.segment.kind].to_json(info, growth),
    }
