"""`penstock info NAME`: one segment in full: memory, rates, fill level, which readers lag and
block. Inspects twice, a moment apart, for the rates; attaches nowhere and changes nothing."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

import penstock
from penstock import inspect
from penstock.cli import describe, exits, info_queue, info_store, ls, output, units
from penstock.cli.command import Commands, add_command
from penstock.state import BroadcastInfo, QueueInfo, ReaderState, SegmentSummary, StoreInfo


def add_to(commands: Commands) -> None:
    parser = add_command(
        commands,
        "info",
        run,
        summary="show one segment in full",
        description=(
            "Shows everything about the segment NAME: memory, rates, how full it is, who is\n"
            "attached; of a broadcast also how far each reader is behind and who keeps the\n"
            "writer waiting, of a queue what is under way, came back, or was set aside, of a\n"
            "store what is there, pinned and being written, and how often it is found."
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


@dataclass(frozen=True)
class Rates:
    """Throughput per second between two inspections."""

    messages: float
    bytes: float


def run(args: argparse.Namespace) -> int:
    info, started = inspect.inspect(args.name), time.monotonic()
    if isinstance(info, SegmentSummary):  # a kind without further details
        _print(args, describe.segment_json(info), ls.segment_lines(output.printable(info)))
        return exits.OK
    before = None
    if args.interval > 0:
        before = info
        time.sleep(args.interval)
        info = inspect.inspect(args.name)
        if type(info) is not type(before):
            raise penstock.Incompatible(f"{args.name!r} was replaced by another kind of segment")
    seconds = time.monotonic() - started
    if isinstance(info, QueueInfo):
        then = before if isinstance(before, QueueInfo) else None
        _print(
            args,
            info_queue.to_json(info, then, seconds),
            info_queue.lines(output.printable(info), then, seconds),
        )
    elif isinstance(info, StoreInfo):
        earlier = before if isinstance(before, StoreInfo) else None
        _print(
            args,
            info_store.to_json(info, earlier, seconds),
            info_store.lines(output.printable(info), earlier, seconds),
        )
    elif isinstance(info, BroadcastInfo):
        rates = _rates(before, info, seconds) if isinstance(before, BroadcastInfo) else None
        _print(args, _json(info, rates), _text(output.printable(info), rates))
    return exits.OK


def _print(args: argparse.Namespace, value: dict[str, Any], lines: list[str]) -> None:
    if args.json:
        output.print_json(value)
    else:
        print("\n".join(lines))


def _rates(before: BroadcastInfo, after: BroadcastInfo, seconds: float) -> Rates:
    return Rates(
        (after.stats.messages - before.stats.messages) / seconds,
        (after.stats.bytes - before.stats.bytes) / seconds,
    )


def _text(info: BroadcastInfo, rates: Rates | None) -> list[str]:
    segment, stats = info.segment, info.stats
    share = stats.used_bytes / max(stats.capacity, 1)
    facts = [
        ("memory", describe.memory(segment)),
        (
            "sent",
            f"{units.plural(stats.messages, 'message')}, {units.size(stats.bytes)}"
            f", {units.count(stats.large_messages)} of them large",
        ),
    ]
    if rates:
        now = f"{units.count(rates.messages)} messages/s, {units.gigabytes(rates.bytes)} GB/s"
        facts.append(("now", now))
    ring = f"{units.size(stats.used_bytes)} of {units.size(stats.capacity)} in use"
    facts += [
        ("ring", f"{_bar(share)} {ring}"),
        ("large messages", f"{units.size(stats.held_bytes)} in blocks of their own"),
        ("reader deaths", units.count(stats.reader_deaths)),
        ("writer", _writer_state(info)),
    ]
    return [
        f"{output.colour(segment.name, 'bold')}  {segment.kind}  {describe.state(segment)}",
        *output.columns([(f"  {label}", value) for label, value in facts]),
        "",
        "attached",
        *ls.participant_lines(segment),
        "",
        "readers",
        *(f"    {reader.describe()}" for reader in info.readers),
    ]


def _bar(share: float, width: int = 20) -> str:
    full = round(min(max(share, 0.0), 1.0) * width)
    return "█" * full + "░" * (width - full)


def blockers(info: BroadcastInfo) -> list[ReaderState]:
    """The readers that the writer is waiting for at this moment."""
    return [reader for reader in info.readers if reader.blocking_for > 0]


def _writer_state(info: BroadcastInfo) -> str:
    if info.closed:
        return "closed; readers may still drain"
    if info.writer_blocked_for > 0:
        ranks = ", ".join(f"reader {reader.rank}" for reader in blockers(info)) or "memory"
        return f"waiting for {ranks}, for {units.duration(info.writer_blocked_for)}"
    return "not waiting for anybody"


_STATS = (
    "messages",
    "bytes",
    "large_messages",
    "reader_deaths",
    "capacity",
    "used_bytes",
    "reserved_bytes",
    "held_bytes",
)
_READER = (
    "rank",
    "life",
    "alive",
    "stopped",
    "pid",
    "process",
    "messages",
    "lag_messages",
    "lag_bytes",
    "blocking_for",
)


def _json(info: BroadcastInfo, rates: Rates | None) -> dict[str, Any]:
    return {
        **describe.segment_json(info.segment),
        "closed": info.closed,
        "writer_blocked_for": info.writer_blocked_for,
        "blocked_by": [reader.rank for reader in blockers(info)],
        "rates": rates and {"messages_per_s": rates.messages, "bytes_per_s": rates.bytes},
        "stats": {field: getattr(info.stats, field) for field in _STATS},
        "readers": [
            {field: getattr(reader, field) for field in _READER} for reader in info.readers
        ],
    }
