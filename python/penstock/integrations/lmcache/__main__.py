"""``python -m penstock.integrations.lmcache kv --capacity 64GiB``: a pool that is there until the
process is told to end, and after that for as long as engines use it."""

from __future__ import annotations

import argparse

from ... import _interrupts
from .layout import CHUNK_TOKENS
from .server import PoolServer


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m penstock.integrations.lmcache")
    parser.add_argument("name", help="of the pool")
    parser.add_argument("--capacity", default="1GiB", help="of all chunks, such as 64GiB")
    parser.add_argument("--chunk-tokens", type=int, default=CHUNK_TOKENS)
    parser.add_argument("--members", type=int, default=64, help="workers at most, and schedulers")
    arguments = parser.parse_args()
    _interrupts.listen(_interrupts.note)  # before there is anything to leave behind
    with PoolServer.open(
        arguments.name,
        capacity=arguments.capacity,
        chunk_tokens=arguments.chunk_tokens,
        members=arguments.members,
    ) as server:
        print(f"serving {server!r}", flush=True)
        _interrupts.wait()


if __name__ == "__main__":
    main()
