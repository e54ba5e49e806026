"""`penstock demo`: finds the demo, which is part of the repository and not of the wheel."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from penstock.cli import exits, output
from penstock.cli.command import Commands, add_command

_SUMMARY = "watch real data go to several workers, one of which is killed"


def add_to(commands: Commands) -> None:
    if find_spec("penstock_demo") is not None:  # a checkout's examples/ is on the path
        from penstock_demo import command

        command.add_to(commands)
        return
    add_command(
        commands,
        "demo",
        _tell_where,
        summary=f"{_SUMMARY}; in a checkout",
        description="The demo is no part of the package: `./dev demo` in a checkout runs it.",
        example="./dev demo\n",
    )


def _tell_where(args: argparse.Namespace) -> int:
    output.say("the demo is not installed: run `./dev demo` in a checkout of the repository")
    return exits.ERROR
