"""`penstock demo`: the main use, live: real data to several workers, one of them killed. Exit code
0 only if every worker got every step due to it, whole and in order."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.cli import exits, output
from penstock.cli.command import (
    Commands,
    add_command,
    natural_int,
    positive_int,
    positive_seconds,
)

if TYPE_CHECKING:
    from penstock_demo.snapshot import View


def add_to(commands: Commands) -> None:
    parser = add_command(
        commands,
        "demo",
        run,
        summary="watch real data go to several workers, one of which is killed",
        description=(
            "Broadcasts the bytes of PATH to worker processes as an inference engine does: small\n"
            "steps with token arrays, now and then a tensor of many MiB. Each worker checks the\n"
            "order and the checksum of every step. Half way one is killed and replaced.\n"
            "Exit code 0 only if nothing was lost and nothing torn."
        ),
        example="penstock demo\npenstock demo ~/photos --workers 2 --seconds 10\n"
        "penstock demo --trajectories\npenstock demo --store ~/photos",
    )
    parser.add_argument(
        "path",
        nargs="?",
        type=Path,
        metavar="PATH",
        help="a file or directory whose bytes are sent (default: Python's standard library)",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--trajectories",
        action="store_true",
        help="environments, a trainer and groups of PATH's text instead; both are killed once",
    )
    what.add_argument(
        "--store",
        action="store_true",
        help="workers that share chunks of PATH through a store too small for all; two are killed",
    )
    parser.add_argument("--workers", type=positive_int, metavar="N", help="default 4")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--seconds", type=positive_seconds, default=18.0, metavar="S", help="default 18"
    )
    length.add_argument(
        "--limit", type=positive_int, metavar="STEPS", help="end after so many steps instead"
    )
    parser.add_argument("--no-kill", action="store_true", help="let every worker live")
    parser.add_argument("--capacity", metavar="SIZE", help="of the ring in memory (default 4MiB)")
    parser.add_argument(
        "--rate",
        type=positive_int,
        metavar="N",
        help="steps per second at an engine's pace (default 1000)",
    )
    parser.add_argument(
        "--tensor-every",
        type=natural_int,
        metavar="STEPS",
        help="a tensor of 8-32 MiB goes with each so many-th step; 0 for none (default 200)",
    )
    parser.set_defaults(usage_error=parser.error)


# Options of the Broadcast demo only; each other demo's options beside PATH and --seconds.
_DEFAULTS = {"workers": 4, "capacity": "4MiB", "rate": 1000, "tensor_every": 200}
_TAKES = {"trajectories": (), "store": ("workers",)}


def _settle_options(args: argparse.Namespace) -> None:
    """Refuse options that have no effect; set the defaults of the others."""
    for demo, takes in _TAKES.items():
        for option in (*_DEFAULTS, "limit", "no_kill"):
            is_given = getattr(args, option) not in (None, False)
            if getattr(args, demo) and is_given and option not in takes:
                args.usage_error(f"--{option.replace('_', '-')} means nothing with --{demo}")
    for option, default in _DEFAULTS.items():
        if getattr(args, option) is None:
            setattr(args, option, default)


def run(args: argparse.Namespace) -> int:
    from penstock_demo.worker_pool import ProcessEnded  # imported here: it loads NumPy

    _settle_options(args)
    play = _run_trajectories if args.trajectories else _run_store if args.store else _run_broadcast
    try:
        return exits.OK if play(args) else exits.ERROR
    except ProcessEnded as problem:
        output.say(str(problem))
        return exits.ERROR


def _run_broadcast(args: argparse.Namespace) -> bool:
    from penstock_demo import driver

    view = _view(args)
    options = driver.Options(
        workers=args.workers,
        seconds=args.seconds,
        limit=args.limit,
        kill=not args.no_kill,
        capacity=args.capacity,
        rate=args.rate,
        tensor_every=args.tensor_every,
    )
    try:
        result = driver.run(options, args.path, view)
    finally:
        view.stop()
    view.judge(result)
    if args.json:
        output.print_json(result.to_json())
    return result.ok


def _run_trajectories(args: argparse.Namespace) -> bool:
    from penstock_demo import trajectories

    return trajectories.run(args.path, args.seconds, args.json).ok


def _run_store(args: argparse.Namespace) -> bool:
    from penstock_demo import objects

    return objects.run(args.path, args.workers, args.seconds, args.json).ok


def _view(args: argparse.Namespace) -> View:
    if args.json:
        from penstock_demo.silent import SilentView

        return SilentView()
    if sys.stdout.isatty():
        from penstock_demo.screen import ScreenView

        return ScreenView()
    from penstock_demo.plain import PlainView

    return PlainView()
