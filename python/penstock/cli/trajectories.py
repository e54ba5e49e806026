"""`penstock trajectories`: a queue of trajectories for clients that speak HTTP."""

from __future__ import annotations

import argparse

import penstock
from penstock import _interrupts
from penstock.cli import exits, output
from penstock.cli.command import Commands, add_command, positive_int

_EXAMPLE = "penstock trajectories serve --queue rollouts --port 8000"
_OPTIONAL = ("anyio", "msgspec", "starlette", "uvicorn")


def add_to(commands: Commands) -> None:
    group = commands.add_parser(
        "trajectories",
        help="serve a queue of trajectories over HTTP",
        description="Groups of token sequences, from many environments to one trainer.",
        epilog=f"example:\n  {_EXAMPLE}\n\n{exits.EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser = add_command(
        group.add_subparsers(metavar="COMMAND", required=True),
        "serve",
        run,
        needs_stdout=False,
        summary="speak HTTP with environments and a trainer",
        description=(
            "Serves the queue NAME with the routes that Atropos's clients know, until Ctrl-C;\n"
            "then the exit code is 0. The trainer's POST /register creates the queue if there is\n"
            "none, and then it ends when the server does, or with the last environment if that is\n"
            "asked for. Groups that come over HTTP and through shared memory go the same way.\n"
            "There is no password: who reaches the port may read and write."
        ),
        example=_EXAMPLE,
        json_help="print the address as one JSON object on stdout",
    )
    parser.add_argument("--queue", required=True, metavar="NAME", help="of the queue")
    parser.add_argument("--port", required=True, type=_port, metavar="N", help="0: any free one")
    parser.add_argument("--host", default="127.0.0.1", help="to listen on (default 127.0.0.1)")
    parser.add_argument(
        "--sequences",
        type=positive_int,
        metavar="N",
        help="in a batch (default: the batch_size that the trainer registers with)",
    )
    parser.add_argument(
        "--ends-with",
        choices=("creator", "last_producer"),
        default="creator",
        help="whose leaving ends the stream of a queue that is created here: this server's (the\n"
        "default), or the last environment's; this server counts as one",
    )


def run(args: argparse.Namespace) -> int:
    _interrupts.listen(_interrupts.note)  # a server that was told to end has done what was asked
    try:
        from penstock.http.serve import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _OPTIONAL:
            raise
        raise penstock.Error(
            f"serving HTTP needs {error.name}, which is not installed: pip install penstock[http]"
        ) from None
    served = serve(
        args.queue,
        args.host,
        args.port,
        sequences=args.sequences,
        ends_with=args.ends_with,
        on_listening=lambda address: _tell(args, address),
    )
    return exits.OK if served else exits.ERROR


def _tell(args: argparse.Namespace, address: str) -> None:
    if args.json:
        output.print_json({"queue": args.queue, "address": address})
    output.say(f"the queue {args.queue!r} is at {address}")


def _port(text: str) -> int:
    """argparse type: 0 to 65535."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to 65535")
    return number
