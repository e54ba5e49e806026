"""`penstock`: reads the command line, runs the sub-command, and turns its end into an exit code.
Errors become one sentence on stderr; a traceback would be a defect of ours."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

import penstock
from penstock import _interrupts
from penstock.cli import bench, dead, demo, doctor, exits, gc, info, ls, recv, send, trajectories


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="penstock",
        description="Data between the processes of one machine, through shared memory.",
        epilog=f"example:\n  penstock demo\n\n{exits.EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"penstock {penstock.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (demo, ls, info, dead, gc, send, recv, trajectories, bench, doctor):
        command.add_to(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script. Never raises for what a user can cause."""
    _write_what_can_be_written()
    args = build_parser().parse_args(arguments)
    _interrupts.listen(_interrupts.interrupt)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return exits.BROKEN_PIPE
    except penstock.Error as error:
        print(f"penstock: {type(error).__name__}: {error}", file=sys.stderr)
    except OSError as error:
        print(f"penstock: {error}", file=sys.stderr)
    return exits.ERROR


def _write_what_can_be_written() -> None:
    """Where the terminal's encoding has no "✓", a "?" will do."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _forget_stdout() -> None:
    """Lets the interpreter flush at exit without complaining about the pipe a second time."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
