"""`penstock lmcache`: a pool of KV chunks for the workers of LMCache."""

from __future__ import annotations

import argparse

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

_EXAMPLE = "penstock lmcache serve --port 5555 --pool kv --capacity 64GiB"


def add_to(commands: Commands) -> None:
    group = add_group(
        commands,
        "lmcache",
        summary="serve a pool of KV chunks to LMCache's workers",
        description="KV chunks of language models, for engines that use LMCache.",
        example=_EXAMPLE,
    )
    parser = add_command(
        group,
        "serve",
        run,
        needs_stdout=False,
        summary="speak LMCache's worker protocol",
        description=(
            "Serves the pool NAME in the place of `lmcache server`, until Ctrl-C; then the exit\n"
            "code is 0. Engines reach it by lmcache.mp.host and lmcache.mp.port, and copy their\n"
            "KV caches to and from the pool by themselves, through shared memory. The pool is\n"
            "created if there is none; engines that use penstock's PoolClient share it.\n"
            "There is no password: what reaches the port may read and write."
        ),
        example=_EXAMPLE,
        json_help="print the address as one JSON object on stdout",
    )
    parser.add_argument("--pool", required=True, metavar="NAME", help="of the pool")
    parser.add_argument(
        "--port", default=5555, type=port_number, metavar="N", help="0: any free one (default 5555)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="to listen on (default 127.0.0.1)")
    parser.add_argument(
        "--transport",
        choices=("zmq", "grpc"),
        default="zmq",
        help="as the engines' lmcache.mp.transport (default zmq)",
    )
    _add_pool_options(parser)
    _add_time_options(parser)
    parser.add_argument(
        "--any-version",
        action="store_true",
        help="serve with a version of lmcache that was not tested",
    )


def _add_pool_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the pool")
    group.add_argument(
        "--capacity",
        type=size,
        default=1 << 30,
        metavar="SIZE",
        help="of all chunks (default 1GiB)",
    )
    group.add_argument(
        "--chunk-tokens",
        type=positive_int,
        default=256,
        metavar="N",
        help="in a chunk; engines ask for it (default 256)",
    )
    group.add_argument(
        "--participants",
        type=positive_int,
        default=64,
        metavar="N",
        help="that attach (default 64)",
    )
    group.add_argument(
        "--eviction",
        choices=("sieve", "fifo", "lru", "none"),
        default="sieve",
        help="which chunks make room for new ones (default sieve)",
    )
    group.add_argument(
        "--persistent",
        action="store_true",
        help="chunks stay when this server has left, for the next one",
    )
    group.add_argument(
        "--populate",
        action="store_true",
        help="take all memory at the start, some 0.7 s for each GiB (GPU workers need it)",
    )
    group.add_argument("--huge-pages", action="store_true", help="of the machine's huge pages")
    add_owner(group)


def _add_time_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("for those that say nothing more")
    group.add_argument(
        "--silence",
        type=positive_seconds,
        default=120.0,
        metavar="SECONDS",
        help="without a ping, of a worker whose process can't be seen: it is unregistered then\n"
        "(default 120); of others the kernel says whether they live",
    )
    group.add_argument(
        "--session-seconds",
        type=positive_seconds,
        default=600.0,
        metavar="SECONDS",
        help="that a request's chunks are kept for it (default 600); less where room is wanted",
    )
    group.add_argument(
        "--release-after",
        type=positive_seconds,
        metavar="SECONDS",
        help="memory that a silent worker, which can't be seen, may still write is used again\n"
        "after that long (default: never)",
    )


def run(args: argparse.Namespace) -> int:
    _interrupts.listen(_interrupts.note)  # a server that was told to end exits with success
    from penstock.integrations.lmcache.server_run import serve

    serve(
        args.pool,
        args.host,
        args.port,
        transport=args.transport,
        any_version=args.any_version,
        silence=args.silence,
        session_seconds=args.session_seconds,
        release_after=args.release_after,
        capacity=args.capacity,
        chunk_tokens=args.chunk_tokens,
        participants=args.participants,
        eviction=args.eviction,
        persistent=args.persistent,
        populate=args.populate,
        huge_pages=args.huge_pages,
        owner=args.owner,
        on_listening=lambda address: _tell(args, address),
    )
    return exits.OK


def _tell(args: argparse.Namespace, address: str) -> None:
    if args.json:
        output.print_json({"pool": args.pool, "address": address})
    output.say(f"the pool {args.pool!r} is at {address}")
