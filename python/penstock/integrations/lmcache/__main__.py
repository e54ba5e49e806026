"""``python -m penstock.integrations.lmcache kv --capacity 64GiB``: a pool that is there until the
process is told to end, and after that for as long as engines use it. With ``serve`` before all else
it is ``penstock lmcache serve``, which speaks LMCache's worker protocol too."""

from __future__ import annotations

import argparse
import sys
from typing import get_args

from ... import _interrupts
from ...errors import Error
from ...store import Eviction
from .layout import CHUNK_TOKENS
from .server import PoolServer


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m penstock.integrations.lmcache",
        description="Create a pool of KV chunks in shared memory, or take over the one of that "
        "name, and keep it until told to end (Ctrl-C, SIGTERM, SIGHUP). Engines attach by its name "
        "and copy by themselves; the pool stays for as long as one uses it.",
        epilog="serve --help: for engines that use LMCache itself, unchanged",
    )
    parser.add_argument("name", help="of the pool")
    parser.add_argument(
        "--capacity", default="1GiB", help="of all chunks, such as 64GiB (default %(default)s)"
    )
    parser.add_argument(
        "--chunk-tokens",
        type=int,
        default=CHUNK_TOKENS,
        metavar="N",
        help="in a chunk; engines must have the same (default %(default)s)",
    )
    parser.add_argument(
        "--participants",
        type=int,
        default=64,
        metavar="N",
        help="workers and schedulers at most (default %(default)s)",
    )
    parser.add_argument(
        "--eviction",
        choices=get_args(Eviction),
        default="sieve",
        help="which chunks make room for new ones (default %(default)s)",
    )
    parser.add_argument(
        "--persistent",
        action="store_true",
        help="chunks stay when the last engine and this server have left, and those that are "
        "there already are kept",
    )
    parser.add_argument(
        "--populate",
        action="store_true",
        help="take all memory at the start, some 0.7 s for each GiB; pinned copies need it "
        "(engines map it by themselves: populate of attach)",
    )
    parser.add_argument(
        "--huge-pages",
        action="store_true",
        help="in pages of 2 MiB, which engines map 512 times quicker (the kernel must allow them: "
        "penstock doctor)",
    )
    parser.add_argument(
        "--owner", metavar="USER", help="take over, or replace, a pool of this user too"
    )
    return parser


def main() -> int:
    if sys.argv[1:2] == ["serve"]:
        from ...cli.main import main as run_command

        return run_command(["lmcache", *sys.argv[1:]])
    arguments = build_parser().parse_args()
    _interrupts.listen(_interrupts.note)  # before anything is created that would be left behind
    try:
        serve(arguments)
    except Error as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def serve(arguments: argparse.Namespace) -> None:
    opened = _interrupts.unless_told(
        lambda: PoolServer.open(
            arguments.name,
            capacity=arguments.capacity,
            chunk_tokens=arguments.chunk_tokens,
            participants=arguments.participants,
            eviction=arguments.eviction,
            persistent=arguments.persistent,
            populate=arguments.populate,
            huge_pages=arguments.huge_pages,
            owner=arguments.owner,
        )
    )
    if opened is None:
        return
    with opened as server:
        print(
            f"serving the pool '{server.name}': {arguments.capacity} in chunks of "
            f"{server.chunk_tokens} tokens",
            flush=True,
        )
        _interrupts.wait()


if __name__ == "__main__":
    sys.exit(main())
