"""Values and answers of a hostile Redis, against a Store with a second tier: at random, for a
bounded time, in a child with bounded memory.

    python fuzz/hostile_redis_fuzz.py [--seconds 20] [--seed N]

Whatever it answers, a look-up returns a value or a miss, in time; the first tier keeps its objects
until a value has arrived whole; and everything is counted. A failure names its seed, which repeats
it as far as threads allow.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import os
import random
import resource
import secrets
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "python"))

import hostile_redis as redis

import penstock
from penstock import _core

ADDRESS_SPACE = 4 << 30
RESIDENT = 600 << 20  # mostly Python and NumPy
HANGS_AFTER = 60.0  # seconds; a call's own timeouts are below one
TIMEOUTS = {"connect_timeout": 0.4, "request_timeout": 0.4, "retry_first": 0.001}
CAPACITY = 1 << 20
PREFIX = b"penstock:"

Change = Callable[[bytes], bytes]


class Values:
    """The server's values: valid ones, and hostile ones."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    def data(self) -> tuple[bytes, bytes, int]:
        """Bytes, metadata and format that fit each other."""
        dice = self._dice
        size = dice.choice((0, 1, 100, 5000, 70_000, 300_000))
        value = dice.choice(
            (
                None,
                "é" * size,
                {"a": np.arange(size // 8), "b": ["text", 1 << 70, (1.5, b"x" * (size // 9))]},
                [{str(n): n for n in range(size % 997)}],
            )
        )
        array = np.arange(size // 4, dtype=np.float32)
        return dice.choice(
            (
                lambda: (dice.randbytes(size), b"", redis.BYTES),
                lambda: (_core.codec_encode(value), b"", redis.TYPED),
                lambda: (_core.codec_encode(value), _core.codec_encode({"m": 1}), redis.TYPED),
                lambda: (array.tobytes(), tensor_head(11, [len(array)]), redis.TENSOR),
            )
        )()

    def shelf(self) -> redis.Shelf:
        """One object, "x", with some manipulation, its checksums correct or not."""
        dice, shelf = self._dice, redis.Shelf(PREFIX)
        data, meta, layout = self.data()
        if dice.random() < 0.4:
            data, meta = dice.choice(((self.mutate(data), meta), (data, self.mutate(meta))))
        if dice.random() < 0.2:
            layout = dice.randrange(256) if dice.random() < 0.3 else dice.randrange(4)
        part_bytes = 0
        if len(data) > redis.INLINE_MOST:
            part_bytes = dice.choice((0, 4096, 100_000, 1 << 20))
        lies: dict[str, Any] = {}
        if dice.random() < 0.3:
            lies["nbytes"] = self.size()
        if dice.random() < 0.1:
            lies["checksum"] = dice.randbytes(16)
        if dice.random() < 0.05:
            lies["version"] = dice.getrandbits(32)
        if dice.random() < 0.2:
            part_bytes = self.size()
        shelf.values[b"o:x"] = redis.head_of(
            b"x", data, meta, layout, part_bytes=part_bytes, **lies
        )
        if part_bytes >= 4096:
            shelf.values |= redis.parts_of(b"x", data, part_bytes)
        for name in list(shelf.values):
            if dice.random() < 0.15:
                shelf.values[name] = self.mutate(shelf.values[name])
            elif dice.random() < 0.1:
                del shelf.values[name]
        return shelf

    def size(self) -> int:
        dice = self._dice
        return dice.choice(
            (
                0,
                1,
                4096,
                redis.INLINE_MOST + 1,
                CAPACITY - 100,
                CAPACITY,
                512 << 20,
                dice.getrandbits(dice.randrange(1, 65)),
                (1 << 64) - dice.randrange(1, 5000),
            )
        )

    def mutate(self, data: bytes) -> bytes:
        dice, changed = self._dice, bytearray(data)
        for _ in range(dice.randrange(1, 4)):
            at = dice.randrange(len(changed) + 1)
            dice.choice(
                (
                    lambda at=at: changed.insert(at, dice.randrange(256)),
                    lambda at=at: changed.__delitem__(slice(at, at + dice.randrange(1, 9))),
                    lambda at=at: changed.__setitem__(
                        slice(at, at + 8), dice.getrandbits(64).to_bytes(8, "little")
                    ),
                    lambda at=at: changed.__setitem__(slice(at, at + 1), dice.randbytes(1)),
                    lambda at=at: changed.__delitem__(slice(at, None)),
                    lambda: changed.extend(dice.randbytes(dice.randrange(1, 100))),
                )
            )()
        return bytes(changed)


def tensor_head(dtype: int, shape: list[int]) -> bytes:
    sizes = b"".join(size.to_bytes(8, "little", signed=True) for size in shape)
    return bytes([dtype, 1, len(shape), 0, 0, 0, 0, 0]) + sizes


class Answers:
    """The server's answers: the shelf's values, or, in ``wildness`` of the cases, others."""

    def __init__(self, dice: random.Random, shelf: redis.Shelf, wildness: float) -> None:
        self._dice = dice
        self._shelf = shelf
        self._wildness = wildness

    def __call__(self, words: redis.Words) -> redis.Answer:
        dice = self._dice
        sound = self._shelf.answer(words)
        if dice.random() >= self._wildness:
            return sound
        whole = b"".join(piece for piece in sound if isinstance(piece, bytes))
        cut = dice.randrange(len(whole) + 1)
        return dice.choice(
            (
                lambda: [whole[:cut], redis.HANG_UP],
                lambda: [whole[:cut], 0.5, whole[cut:]],  # too late
                lambda: [whole[:cut], 0.01, whole[cut:]],
                lambda: [whole[: cut % 200], 0.001, whole[cut % 200 :]],  # within a head
                lambda: [whole + whole],
                lambda: [Values(dice).mutate(whole[:200]) + whole[200:]],
                lambda: [redis.HANG_UP],
                lambda: [redis.NIL],
                lambda: [self._invent(0)],
                lambda: [dice.randbytes(dice.randrange(1, 200))],
                lambda: [b"+" + b"a" * (2 << 20) + b"\r\n"],
                lambda: [redis.bulk(bytes(17 << 20))],
            )
        )()

    def _invent(self, depth: int) -> bytes:
        dice = self._dice
        number = dice.choice(
            (
                0,
                1,
                -1,
                -2,
                1 << 18,
                1 << 31,
                (1 << 31) - 1,
                (1 << 32) + 1,
                (1 << 63) - 1,
                -(1 << 63),
                1 << 64,
                10**40,
                dice.getrandbits(20),
            )
        )
        if depth < 12 and dice.random() < 0.6:
            count = dice.randrange(4)
            return b"*%d\r\n" % count + b"".join(self._invent(depth + 1) for _ in range(count))
        return dice.choice(
            (
                b"$%d\r\n" % number,
                b"*%d\r\n" % number,
                b":%d\r\n" % number,
                b"$%d\r\nabc\r\n" % number,
                b"-MOVED 5 127.0.0.1:1\r\n",
                b"-ASK %d :%d\r\n" % (number, number),
                b"-LOADING\r\n",
                b"-NOAUTH \xff\x1b[2J\r\n",
                b"+\r\n",
                b"$0\r\n\r\n",
            )
        )


def looks(store: penstock.Store, dice: random.Random) -> list[Callable[[], Any]]:
    """Look-ups: they return a value or a miss, and raise nothing."""

    def view() -> None:
        with store.get("x", default=contextlib.nullcontext()) as found:
            repr(found)

    def must() -> None:
        with contextlib.suppress(penstock.NotFound):
            store.get_copy("x")

    async def in_tasks() -> None:
        await asyncio.gather(*(store.get_copy_async("x", default=None) for _ in range(3)))
        assert isinstance(await store.contains_async("x"), bool)

    return [
        view,
        view,
        must,
        must,
        lambda: store.get_copy("x", default=None),
        lambda: "x" in store,
        lambda: asyncio.run(in_tasks()),
    ]


def change(store: penstock.Store, dice: random.Random) -> None:
    """Put and delete, which may report the server's failures."""
    with contextlib.suppress(penstock.Error):
        dice.choice(
            (
                lambda: store.put(f"y{dice.randrange(3)}", bytes(dice.choice((10, 100_000)))),
                lambda: store.delete(dice.choice(("x", "y1"))),
                lambda: store.flush(0.01),
            )
        )()


def look(store: penstock.Store, dice: random.Random) -> None:
    """One look-up; it may evict only if a value arrived whole or broke off."""
    before = store.stats()
    dice.choice(looks(store, dice))()
    after = store.stats()
    had_come = any(
        getattr(after.second_tier, count) > getattr(before.second_tier, count)
        for count in ("hits", "corrupt", "incompatible", "errors", "timeouts")
    )
    assert had_come or after.evicted == before.evicted, (before, after)


def fill(store: penstock.Store) -> None:
    for number in range(15):
        with contextlib.suppress(penstock.Error), penstock.Store.attach(store.name) as first:
            first.put_bytes(f"mine {number}", bytes(60_000))


def check(store: penstock.Store) -> penstock.TierStats:
    first = store.stats()
    stats = first.second_tier
    assert stats is not None
    assert not any(unicodedata.category(letter) == "Cc" for letter in stats.last_error), stats
    assert len(stats.last_error) < 1000, stats
    assert first.staged == 0, first
    return stats


def run_store(seed: str, folder: Path) -> dict[str, int]:
    """One store against many shelves; return its counters."""
    dice = random.Random(seed)
    server = redis.HostileRedis(folder, redis.Shelf(PREFIX).answer)
    options: dict[str, Any] = {
        "policy": dice.choice(("write_back", "write_through", "read_only")),
        "delete_corrupt": dice.random() < 0.5,
        "retry_most": 0.01,
        **TIMEOUTS,
    }
    store = penstock.Store.create(
        f"fuzz-{secrets.token_hex(4)}",
        capacity=CAPACITY,
        codec=dice.choice((None, "pickle")),
        second_tier=penstock.SecondTier(server.url, **options),
    )
    wildness = dice.choice((0.0, 0.0, 0.2, 0.7))
    counted: dict[str, int] = {}
    try:
        for _ in range(25):
            faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
            fill(store)
            server.answer = Answers(dice, Values(dice).shelf(), wildness)
            for _ in range(4):
                dice.choice((look, look, look, change))(store, dice)
            check(store)
            with contextlib.suppress(penstock.Timeout):
                store.delete("x", timeout=0)  # in the first tier
        stats = check(store)
        for name in ("hits", "misses", "errors", "timeouts", "corrupt", "incompatible", "no_room"):
            counted[name] = getattr(stats, name)
    finally:
        store.close(timeout=0)
        server.close()
    return counted


def run(seed: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    total: dict[str, int] = {}
    number = 0
    while time.monotonic() < end:
        with tempfile.TemporaryDirectory() as folder:
            try:
                counted = run_store(f"{seed}-{number}", Path(folder))
            except BaseException:
                print(f"broken by seed {seed}, store {number}", file=sys.stderr)
                raise
        for name, count in counted.items():
            total[name] = total.get(name, 0) + count
        number += 1
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    assert resident < RESIDENT, f"{resident >> 20} MiB of memory"
    print(f"hostile_redis: {number} stores, seed {seed}: {total}; all is sound")
    # A run without hits, or without refusals, has shown nothing.
    assert total["hits"] > 0, total
    assert total["corrupt"] > 0, total


@contextlib.contextmanager
def bounded_child() -> Iterator[bool]:
    """True in a forked child with bounded memory; the parent waits for it, and ends."""
    pid = os.fork()
    if pid:
        yield False
        sys.exit(abs(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    faulthandler.enable()
    yield True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    given = parser.parse_args()
    if not _core.has_redis():
        print("hostile_redis: this build is without hiredis")
        return
    with bounded_child() as is_child:
        if is_child:
            run(given.seed, given.seconds)


if __name__ == "__main__":
    main()
