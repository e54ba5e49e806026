"""`penstock send`: sends stdin, of any size, to each `penstock recv` with the same name. Reads go
straight into shared memory: the kernel's copy is the only one."""

from __future__ import annotations

import argparse
import os
import sys
import time

import penstock
from penstock import _interrupts
from penstock.cli import exits, output, stream, streams, units
from penstock.cli.command import Commands, add_command, positive_int, positive_seconds
from penstock.cli.delivery import Delivery

_CHECK_EVERY = 64  # messages between two checks of the readers


class _EndOfInput(Exception):
    """Drops a loan into which nothing was read."""


def add_to(commands: Commands) -> None:
    parser = add_command(
        commands,
        "send",
        run,
        needs_stdout=False,
        summary="send stdin to `penstock recv`",
        description=(
            "Creates the Broadcast NAME, waits for its readers, and sends them stdin bit for bit.\n"
            "Exit code 0 says that every reader took every byte; 1 names who did not."
        ),
        example=(
            "penstock send weights < model.safetensors\n"
            "penstock recv weights > copy.safetensors      (in another shell, before or after)"
        ),
    )
    parser.add_argument("name", help="the name that recv is given too: [A-Za-z0-9._-]{1,200}")
    parser.add_argument(
        "--readers",
        type=positive_int,
        default=1,
        metavar="N",
        help="how many receive it, each `penstock recv` with a --rank of its own (default 1)",
    )
    parser.add_argument(
        "--capacity", default="4MiB", metavar="SIZE", help="of the ring in memory (default 4MiB)"
    )
    parser.add_argument(
        "--timeout",
        type=positive_seconds,
        metavar="SECONDS",
        help="how long to wait for the readers to come (default: as long as it takes)",
    )


def run(args: argparse.Namespace) -> int:
    streams.require_stdin()
    with penstock.Broadcast.create(
        args.name, readers=args.readers, capacity=args.capacity
    ) as writer:
        output.say(f"waiting for {units.plural(args.readers, 'reader')} of {args.name!r}")
        writer.wait_ready(timeout=args.timeout)
        started = time.monotonic()
        delivery = Delivery(writer)
        total = _send_all(writer, delivery, sys.stdin.fileno())
        delivery.wait_until_taken()
        seconds = time.monotonic() - started
    _tell(args, total, seconds, delivery)
    return exits.ERROR if delivery.lost else exits.OK


def _send_all(writer: penstock.BroadcastWriter, delivery: Delivery, source: int) -> int:
    chunk = stream.chunk_size(source)
    total = messages = 0
    while taken := delivery.keep_trying(lambda: _send_chunk(writer, source, chunk)):
        total += taken
        messages += 1
        if messages % _CHECK_EVERY == 0 or taken < chunk:
            delivery.check()
    delivery.keep_trying(lambda: writer.send_bytes(stream.end_message(total)))
    return total


def _send_chunk(writer: penstock.BroadcastWriter, source: int, chunk: int) -> int:
    """Reads once, into a loan, and sends it. Returns 0 at the end of the input. PeerDied comes from
    loan(), before anything is read, so the call may simply be repeated."""
    _interrupts.wait_readable(source)
    try:
        with writer.loan(stream.HEADER_SIZE + chunk) as message:
            length = os.readv(source, [message[stream.HEADER_SIZE :]])
            if length == 0:
                raise _EndOfInput
            stream.write_data_header(message, length)
    except _EndOfInput:
        return 0
    return length


def _tell(args: argparse.Namespace, total: int, seconds: float, delivery: Delivery) -> None:
    if args.json:
        output.print_json(
            {
                "name": args.name,
                "bytes": total,
                "seconds": seconds,
                "readers": args.readers,
                "lost_readers": delivery.lost,
            }
        )
    else:
        output.say(
            f"sent {units.size(total)} in {units.duration(seconds)} "
            f"({units.gigabytes(total / max(seconds, 1e-9))} GB/s) "
            f"to {units.plural(args.readers - len(delivery.lost), 'reader')}"
        )
