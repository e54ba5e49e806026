"""`penstock metrics`: the statistics of segments for a monitoring system, in Prometheus' text
format. Changes nothing. A segment that can't be read, or has gone meanwhile, is left out."""

from __future__ import annotations

import argparse

import penstock
from penstock import inspect
from penstock.cli import exits, output
from penstock.cli.command import Commands, add_command
from penstock.metrics import Info, exposition
from penstock.state import SegmentSummary
from penstock.trajectories import TrajectoryInfo


def add_to(commands: Commands) -> None:
    parser = add_command(
        commands,
        "metrics",
        run,
        summary="print statistics as Prometheus metrics",
        description=(
            "Prints the statistics of the segments NAME, or of all in /dev/shm, in Prometheus'\n"
            "text format: penstock_CONCEPT_STATISTIC{name=...}. A segment that can't be read is\n"
            "left out, with a word on stderr; if it was named, the exit code is 1."
        ),
        example="penstock metrics\npenstock metrics rollouts kv > penstock.prom",
        json_help="print one JSON list of objects instead",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="as `penstock ls` shows it")


def run(args: argparse.Namespace) -> int:
    names = args.names or [one.name for one in inspect.list_segments()]
    looks = [_look(name) for name in dict.fromkeys(names)]
    infos = [one for one in looks if one is not None]
    if args.json:
        output.print_json([_to_json(one) for one in infos if not isinstance(one, SegmentSummary)])
    else:
        print(exposition(infos), end="")
    return exits.ERROR if args.names and None in looks else exits.OK


def _look(name: str) -> Info | None:
    """The segment's state. None, with a line on stderr, if it can't be read."""
    try:
        return inspect.inspect(name)
    except penstock.Error as error:
        output.say(f"left out: {error}")
        return None


def _to_json(info: penstock.BroadcastInfo | penstock.QueueInfo | penstock.StoreInfo) -> object:
    told = {"name": info.segment.name, "kind": info.segment.kind, "stats": info.stats.asdict()}
    if isinstance(info, TrajectoryInfo):
        told["trajectories"] = info.trajectories.asdict()
    return told
