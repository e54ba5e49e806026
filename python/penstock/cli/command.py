"""How a sub-command joins the parser: its help, its example, and its function. Each module of this
folder that is a sub-command has one function `add_to(commands)`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

import penstock
from penstock.cli import exits

# argparse has no public name for what add_subparsers() returns.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    summary: str,
    description: str,
    example: str,
    json_help: str = "print one JSON object instead of text",
    needs_stdout: bool = True,
) -> argparse.ArgumentParser:
    """Adds a sub-command with `--json`, and an example at the end of its `--help`.

    `needs_stdout`: it writes to stdout even without `--json`, and refuses to run if that is closed.
    """
    parser = _add_parser(commands, name, summary, description, example)
    parser.add_argument("--json", action="store_true", help=json_help)
    parser.set_defaults(run=run, needs_stdout=needs_stdout)
    return parser


def add_group(
    commands: Commands, name: str, *, summary: str, description: str, example: str
) -> Commands:
    """Adds a sub-command that has sub-commands of its own, for `add_command`."""
    group = _add_parser(commands, name, summary, description, example)
    return group.add_subparsers(metavar="COMMAND", required=True)


def _add_parser(
    commands: Commands, name: str, summary: str, description: str, example: str
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"example:\n{_indented(example)}\n\n{exits.EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.strip().splitlines())


def add_owner(parser: argparse._ActionsContainer) -> None:
    """Adds `--owner`: a second user whose segments are attached to."""
    parser.add_argument(
        "--owner",
        metavar="USER",
        help="attach to a segment of this user too, by name or number (default: one's own only)",
    )


def positive_int(text: str) -> int:
    """argparse type: a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def natural_int(text: str) -> int:
    """argparse type: a whole number of at least 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def positive_seconds(text: str) -> float:
    """argparse type: a time in seconds, more than 0 and less than a day."""
    number = float(text)
    if not 0 < number <= 86400:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 86400 seconds")
    return number


def size(text: str) -> int:
    """argparse type: bytes, as 1000000 or 64MiB."""
    try:
        return penstock.parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def port_number(text: str) -> int:
    """argparse type: 0 to 65535."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to 65535")
    return number
