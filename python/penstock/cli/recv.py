"""`penstock recv`: writes the stream of `penstock send` under the same name to stdout, from shared
memory in place. A stream that ends too early is an error."""

from __future__ import annotations

import argparse
import os
import sys
import time

import penstock
from penstock.cli import exits, output, stream, units
from penstock.cli.command import Commands, add_command, add_owner, natural_int, positive_seconds


def add_to(commands: Commands) -> None:
    parser = add_command(
        commands,
        "recv",
        run,
        summary="receive what `penstock send` sends",
        description=(
            "Attaches to the Broadcast NAME, waiting for it to appear, and writes the stream to\n"
            "stdout. Exit code 0 says that the whole stream came; 1 that it did not, and why."
        ),
        example=(
            "penstock recv weights > copy.safetensors\n"
            "penstock send weights < model.safetensors     (in another shell, before or after)"
        ),
        json_help="print one JSON object at the end, on stderr (stdout is for the stream)",
    )
    parser.add_argument("name", help="the name that send is given too")
    parser.add_argument(
        "--rank",
        type=natural_int,
        default=0,
        metavar="K",
        help="which of the N readers of `send --readers N` this one is: 0 .. N-1 (default 0)",
    )
    parser.add_argument(
        "--timeout",
        type=positive_seconds,
        metavar="SECONDS",
        help="how long to wait for NAME to appear (default: as long as it takes)",
    )
    add_owner(parser)


def run(args: argparse.Namespace) -> int:
    with _attach(args) as reader:
        started = time.monotonic()
        try:
            total = _copy(reader, sys.stdout.fileno())
        except stream.NotAStream as problem:
            output.say(f"{args.name!r} is no stream of `penstock send`: {problem}")
            return exits.ERROR
        except stream.BrokenOff as problem:
            output.say(str(problem))
            return exits.ERROR
        seconds = time.monotonic() - started
    if args.json:
        result = {"name": args.name, "rank": args.rank, "bytes": total, "seconds": seconds}
        output.print_json(result, to_stderr=True)
    return exits.OK


def _attach(args: argparse.Namespace) -> penstock.BroadcastReader:
    try:
        return penstock.Broadcast.attach(args.name, rank=args.rank, timeout=0, owner=args.owner)
    except penstock.NotFound:
        output.say(f"waiting for {args.name!r} to appear")
        return penstock.Broadcast.attach(
            args.name, rank=args.rank, timeout=args.timeout, owner=args.owner
        )


def _copy(reader: penstock.BroadcastReader, target: int) -> int:
    """Writes the stream and returns its length. Each message is released when it is written, so
    that a slow stdout slows the sender. After the end message the sender closes once every reader
    has released all."""
    written = 0
    promised: int | None = None
    try:
        while True:
            part = _take(reader, target)
            if isinstance(part, stream.End):
                promised = part.total
            else:
                written += part.length
    except penstock.PeerDied as death:
        if promised is None:
            raise stream.BrokenOff(_truncated(written, str(death))) from None
    except penstock.Closed:
        if promised is None:
            raise stream.BrokenOff(_truncated(written, "the sender stopped early")) from None
    if promised != written:
        raise stream.BrokenOff(_truncated(written, f"the sender sent {promised:,} bytes"))
    return written


def _take(reader: penstock.BroadcastReader, target: int) -> stream.Data | stream.End:
    """Receives and writes one message. A function of its own, so that its variables, and with them
    the view's lease, are gone afterwards."""
    with reader.recv_view() as message:
        part = stream.parse(message)
        if isinstance(part, stream.Data):
            _write_all(target, message[stream.HEADER_SIZE :][: part.length])
        return part


def _write_all(target: int, part: memoryview) -> None:
    try:
        while part:
            part = part[os.write(target, part) :]
    except OSError as error:  # the class follows from errno: a broken pipe stays one
        raise OSError(error.errno, f"could not write to stdout: {error.strerror}") from None


def _truncated(written: int, why: str) -> str:
    return f"the stream is not whole: it was broken off after {units.count(written)} bytes: {why}"
