"""`penstock`: parses the command line, runs the sub-command, and turns its outcome into an exit
code. Errors become one sentence on stderr; a traceback is a defect."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import penstock
from penstock import _interrupts
from penstock.cli import (
    bench,
    dead,
    demo,
    doctor,
    exits,
    gc,
    info,
    lmcache,
    ls,
    metrics,
    output,
    recv,
    send,
    streams,
    trajectories,
    vllm,
)


class _Parser(argparse.ArgumentParser):
    """Reports help and version texts that can't be written, which argparse ignores. Shows wrong
    arguments without characters that a terminal obeys: names may come from files."""

    def error(self, message: str) -> NoReturn:
        super().error(output.printable(message))

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is sys.stdout:
            file.write(message)
        else:
            super()._print_message(message, file)


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="penstock",
        description="Data between the processes of one machine, through shared memory.",
        epilog=f"example:\n  penstock demo\n\n{exits.EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"penstock {penstock.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    looks = (demo, ls, info, metrics, dead, gc)
    for command in (*looks, send, recv, trajectories, lmcache, vllm, bench, doctor):
        command.add_to(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script. Never raises for anything that a user can cause.

    With arguments it is called by a program that goes on: that program's signal handlers are
    restored afterwards.
    """
    streams.secure()
    if arguments is None:
        return streams.settle(_run(None))
    with _interrupts.borrow():
        return streams.settle(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        args = build_parser().parse_args(arguments)
        _interrupts.listen(_interrupts.interrupt)
        if args.needs_stdout or args.json:
            streams.require_stdout()
        code: int = args.run(args)
        return code
    except SystemExit as end:  # argparse: --help, --version, wrong usage
        return end.code if isinstance(end.code, int) else exits.OK
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        return exits.BROKEN_PIPE
    except penstock.Error as error:
        output.say(f"{type(error).__name__}: {error}")
    except OSError as error:
        output.say(_sentence_of(error))
    return exits.ERROR


def _sentence_of(error: OSError) -> str:
    if error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


if __name__ == "__main__":
    sys.exit(main())
