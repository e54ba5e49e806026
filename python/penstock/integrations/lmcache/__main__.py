"""``python -m penstock.integrations.lmcache kv --capacity 64GiB``: a pool that is there until the
process is told to end, and after that for as long as engines use it."""

from __future__ import annotations

import argparse
import signal

from .layout import CHUNK_TOKENS
from .server import PoolServer

ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m penstock.integrations.lmcache")
    parser.add_argument("name", help="of the pool")
    parser.add_argument("--capacity", default="1GiB", help="of all chunks, such as 64GiB")
    parser.add_argument("--chunk-tokens", type=int, default=CHUNK_TOKENS)
    parser.add_argument("--members", type=int, default=64, help="workers at most, and schedulers")
    arguments = parser.parse_args()
    # Before there is anything to leave behind; whoever comes in between waits for sigwait().
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    with PoolServer.open(
        arguments.name,
        capacity=arguments.capacity,
        chunk_tokens=arguments.chunk_tokens,
        members=arguments.members,
    ) as server:
        print(f"serving {server!r}", flush=True)
        signal.sigwait(ENDS)


if __name__ == "__main__":
    main()
