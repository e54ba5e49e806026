"""`penstock trajectories`: a queue of trajectories for clients that speak HTTP."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import penstock
from penstock import _interrupts
from penstock.cli import exits, output
from penstock.cli.command import (
    Commands,
    add_command,
    add_group,
    add_owner,
    port_number,
    positive_int,
    positive_seconds,
    size,
)

if TYPE_CHECKING:
    from penstock.integrations.atropos.http.service import Left

_EXAMPLE = "penstock trajectories serve --queue rollouts --port 8000"


_LIMITS: list[tuple[str, Callable[[str], float], str, str]] = [
    ("--max-body-bytes", size, "SIZE", "of one body, unpacked (default 256MiB)"),
    ("--max-total-bytes", size, "SIZE", "of all bodies under way (default 512MiB)"),
    ("--max-requests", positive_int, "N", "with a body, at once (default 256)"),
    ("--max-connections", positive_int, "N", "open at once (default 1000, and `ulimit -n`)"),
    ("--header-timeout", positive_seconds, "SECONDS", "for the head of a request (default 10)"),
    ("--body-timeout", positive_seconds, "SECONDS", "for a body, and 1 s a MiB (default 30)"),
    ("--answer-timeout", positive_seconds, "SECONDS", "without reading an answer (default 30)"),
]
_OPTIONAL = ("anyio", "msgspec", "starlette", "uvicorn")


def add_to(commands: Commands) -> None:
    group = add_group(
        commands,
        "trajectories",
        summary="serve a queue of trajectories over HTTP",
        description="Groups of token sequences, from many environments to one trainer.",
        example=_EXAMPLE,
    )
    parser = add_command(
        group,
        "serve",
        run,
        needs_stdout=False,
        summary="speak HTTP with environments and a trainer",
        description=(
            "Serves the queue NAME with the routes that Atropos's clients know, until Ctrl-C;\n"
            "then the exit code is 0. The trainer's POST /register creates the queue if there is\n"
            "none, and then it ends when the server does, or with the last environment if that is\n"
            "asked for. Groups that come over HTTP and through shared memory go the same way.\n"
            "What was not taken stays in the queue when the server ends, and comes first when one\n"
            "serves NAME again: then it says so, and --fresh throws it away.\n"
            "There is no password: what reaches the port may read and write. Web pages of other\n"
            "sites may see how the server stands, and no more."
        ),
        example=_EXAMPLE,
        json_help="print the address as one JSON object on stdout",
    )
    parser.add_argument("--queue", required=True, metavar="NAME", help="of the queue")
    parser.add_argument(
        "--port", required=True, type=port_number, metavar="N", help="0: any free one"
    )
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
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="throw away the groups that wait in the queue, and its dead letters, at the start",
    )
    add_owner(parser)
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name of this server, as clients ask for it; may be given several times\n"
        '("*.example.org" and "*" too)',
    )
    parser.add_argument(
        "--allowed-origin",
        action="append",
        default=[],
        metavar="SITE",
        help="a site whose web pages are trusted, as https://example.org; likewise",
    )
    limits = parser.add_argument_group("limits of what clients can make it hold")
    for option, type_, metavar, text in _LIMITS:
        limits.add_argument(option, type=type_, metavar=metavar, help=text)


def run(args: argparse.Namespace) -> int:
    _interrupts.listen(_interrupts.note)  # a server that was told to end exits with success
    try:
        from penstock.integrations.atropos.http.limits import Limits
        from penstock.integrations.atropos.http.serve import serve
        from penstock.integrations.atropos.http.service import left_in
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
        owner=args.owner,
        fresh=args.fresh,
        limits=Limits(**{name: value for name, value in _limits_of(args) if value is not None}),
        allowed_hosts=args.allowed_host,
        allowed_origins=args.allowed_origin,
        on_listening=lambda address, left: _tell(args, address, left),
    )
    if (left := left_in(args.queue)).groups:
        output.say(f"{_groups(left)} stay in the queue {args.queue!r}")
    return exits.OK if served else exits.ERROR


def _limits_of(args: argparse.Namespace) -> list[tuple[str, Any]]:
    names = [option.lstrip("-").replace("-", "_") for option, *_ in _LIMITS]
    return [(name.removeprefix("max_"), getattr(args, name)) for name in names]


def _tell(args: argparse.Namespace, address: str, left: Left) -> None:
    if args.json:
        output.print_json({"queue": args.queue, "address": address})
    output.say(f"the queue {args.queue!r} is at {address}")
    if left.groups:
        output.say(f"{_groups(left)} of before are in it, and come first; --fresh drops them")


def _groups(left: Left) -> str:
    return f"{left.groups} groups ({left.sequences} sequences)"
