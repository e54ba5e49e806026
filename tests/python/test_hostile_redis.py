"""A hostile Redis: whatever its values and answers are, a look-up is a counted miss, and the first
tier keeps its objects."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hostile_redis as redis
import numpy as np
import pytest
from peers import WITHIN, eventually, run_script

import penstock
from penstock import _core

pytestmark = pytest.mark.skipif(not _core.has_redis(), reason="this build is without hiredis")

ROOT = Path(__file__).parents[2]
Make = Callable[..., penstock.Store]


@pytest.fixture
def shelf() -> redis.Shelf:
    return redis.Shelf()


@pytest.fixture
def server(tmp_path: Path, shelf: redis.Shelf) -> Iterator[redis.HostileRedis]:
    server = redis.HostileRedis(tmp_path, shelf.answer)
    yield server
    server.close()


@pytest.fixture
def make(name: str, server: redis.HostileRedis) -> Iterator[Make]:
    made: list[penstock.Store] = []

    def machine(
        capacity: str = "1MiB", codec: Any = None, policy: str = "read_only", **options: Any
    ) -> penstock.Store:
        options = {"connect_timeout": WITHIN, "request_timeout": WITHIN, **options}
        second_tier = penstock.SecondTier(server.url, policy=policy, **options)
        machine = f"{name}-{len(made)}"
        made.append(
            penstock.Store.create(machine, capacity=capacity, codec=codec, second_tier=second_tier)
        )
        return made[-1]

    yield machine
    for one in made:
        one.close(timeout=0)


def tier_stats(store: penstock.Store) -> penstock.TierStats:
    stats = store.stats().second_tier
    assert stats is not None
    return stats


def assert_miss(store: penstock.Store, key: str, counted: str) -> penstock.TierStats:
    """A miss by every kind of look-up, counted each time."""
    before = tier_stats(store)
    assert store.get_copy(key, default="none") == "none"
    assert store.get(key, default=None) is None
    with pytest.raises(penstock.NotFound):
        store.get(key)
    with pytest.raises(penstock.NotFound):
        store.get_copy(key)

    async def ask() -> None:
        assert await store.get_copy_async(key, default="none") == "none"
        async with store.get_async(key, default=None) as value:
            assert value is None

    asyncio.run(ask())
    stats = tier_stats(store)
    assert getattr(stats, counted) == getattr(before, counted) + 6
    assert stats.hits == before.hits
    assert store.look(key, timeout=0).state == "miss"
    assert store.stats().staged == 0
    return stats


# ---- room in the first tier


def fill(store: penstock.Store) -> None:
    for number in range(15):
        store.put_bytes(f"mine {number}", bytes(60_000))
    assert store.stats().evicted == 0


@pytest.mark.parametrize("part_bytes", [4096, 1 << 20])
def test_a_head_without_its_parts_evicts_nothing(
    make: Make, shelf: redis.Shelf, part_bytes: int
) -> None:
    store, data = make(), bytes(900_000)
    fill(store)
    shelf.values[b"o:x"] = redis.head_of(b"x", data, part_bytes=part_bytes)
    assert_miss(store, "x", "misses")
    parts = redis.parts_of(b"x", data, part_bytes)
    for gone in (min(parts), max(parts)):
        shelf.values |= parts
        del shelf.values[gone]
        assert_miss(store, "x", "misses")
    assert store.stats().evicted == 0
    assert store.stats().objects == 15
    shelf.values |= parts
    assert store.get_copy("x") == data
    assert store.stats().evicted > 0


@pytest.mark.parametrize("nbytes", [2 << 20, 1 << 40, 1 << 49])
def test_a_value_larger_than_the_first_tier_is_a_miss(
    make: Make, shelf: redis.Shelf, nbytes: int
) -> None:
    store = make()
    fill(store)
    shelf.values[b"o:x"] = redis.head_of(b"x", b"", nbytes=nbytes, part_bytes=512 << 20)
    stats = assert_miss(store, "x", "no_room")
    assert "larger than the first tier" in stats.last_error
    assert store.stats().evicted == 0


def test_a_fetch_without_room_is_a_miss(make: Make, shelf: redis.Shelf) -> None:
    store, data = make(), bytes(500_000)
    store.put_bytes("mine", bytes(900_000))
    shelf.values[b"o:x"] = redis.head_of(b"x", data, part_bytes=1 << 20)
    shelf.values |= redis.parts_of(b"x", data, 1 << 20)
    with store.get("mine"):
        assert "no room" in assert_miss(store, "x", "no_room").last_error
    assert store.get_copy("x") == data


# ---- values with correct checksums


def tensor_head(
    dtype: int, shape: list[int], dims: int | None = None, descr: bytes = b"", source: int = 1
) -> bytes:
    head = bytes([dtype, source, len(shape) if dims is None else dims, 0])
    head += len(descr).to_bytes(4, "little") + b"".join(
        size.to_bytes(8, "little", signed=True) for size in shape
    )
    return head + descr + bytes(-len(descr) % 8)


TYPED = _core.codec_encode({"a": np.arange(100), "b": ["text", 1 << 70]})


@pytest.mark.parametrize(
    ("data", "meta", "layout"),
    [
        (b"", b"", redis.TYPED),
        (b"junk", b"", redis.TYPED),
        (bytes(100), b"", redis.TYPED),
        (TYPED[:-1], b"", redis.TYPED),
        (TYPED.replace(b"text", b"\xff\xff\xff\xff"), b"", redis.TYPED),
        (b"junk", b"", redis.TENSOR),
        (bytes(64), b"\1", redis.TENSOR),
        (bytes(64), tensor_head(1, [3, 5]), redis.TENSOR),
        (bytes(64), tensor_head(1, [-1]), redis.TENSOR),
        (bytes(64), tensor_head(1, [1 << 62, 1 << 62]), redis.TENSOR),
        (bytes(64), tensor_head(1, [], dims=255), redis.TENSOR),
        (bytes(64), tensor_head(99, [64]), redis.TENSOR),
        (bytes(64), tensor_head(0, [64], descr=b"\xc1"), redis.TENSOR),
    ],
    ids=range(13),
)
def test_an_invalid_value_is_a_miss(
    make: Make, shelf: redis.Shelf, data: bytes, meta: bytes, layout: int
) -> None:
    shelf.values[b"o:x"] = redis.head_of(b"x", data, meta, layout)
    assert "'x'" in assert_miss(make(), "x", "corrupt").last_error
    deleting = make(policy="write_back", delete_corrupt=True)
    assert deleting.get_copy("x", default=None) is None
    assert not shelf.values


@pytest.mark.parametrize(
    ("data", "meta", "layout", "version", "why"),
    [
        (b"data", b"", 4, 1, "another version"),
        (b"data", b"", 255, 1, "another version"),
        (b"data", b"", redis.BYTES, 3, "another version"),
        (_core.codec_encode({1, 2}, "pickle"), b"", redis.PICKLE, 1, "codec='pickle'"),
        (TYPED, b"", redis.PICKLE, 1, "codec='pickle'"),
        (_core.codec_encode({1, 2}, "pickle"), b"", redis.TYPED, 1, 'codec="pickle"'),
    ],
    ids=range(6),
)
def test_a_value_that_others_may_read_is_a_miss_and_stays(
    make: Make,
    shelf: redis.Shelf,
    data: bytes,
    meta: bytes,
    layout: int,
    version: int,
    why: str,
) -> None:
    shelf.values[b"o:x"] = redis.head_of(b"x", data, meta, layout, version=version)
    store = make(policy="write_back", delete_corrupt=True)
    assert why in assert_miss(store, "x", "incompatible").last_error
    assert list(shelf.values) == [b"o:x"]


@pytest.mark.parametrize("fault", ["OSError('no library')", "KeyboardInterrupt"])
def test_what_a_reader_lacks_is_no_damage(
    name: str, server: redis.HostileRedis, shelf: redis.Shelf, tmp_path: Path, fault: str
) -> None:
    """Decoding a tensor imports torch, which may fail or be interrupted."""
    shelf.values[b"o:x"] = redis.head_of(
        b"x", bytes(64), tensor_head(1, [64], source=2), redis.TENSOR
    )
    (tmp_path / "torch.py").write_text(f"raise {fault}")
    script = """
        import sys, penstock
        sys.path.insert(0, sys.argv[3])
        tier = penstock.SecondTier(sys.argv[2], delete_corrupt=True)
        with penstock.Store.create(sys.argv[1], capacity="1MiB", second_tier=tier) as store:
            try:
                print("found", store.get("x", None))
            except KeyboardInterrupt:
                print("interrupted")
            stats = store.stats().second_tier
            print(stats.corrupt, stats.incompatible, stats.last_error)
    """
    out = run_script(script, name, server.url, str(tmp_path)).stdout
    if fault == "KeyboardInterrupt":
        assert out == "interrupted\n0 0 \n"
    else:
        assert out.startswith("found None\n0 1 ")
        assert "no library" in out
    assert list(shelf.values) == [b"o:x"]


def test_foreign_metadata_fails_only_where_it_is_read(make: Make, shelf: redis.Shelf) -> None:
    shelf.values[b"o:x"] = redis.head_of(b"x", b"data", b"\xc1 of a writer in C++")
    view = make().get("x")
    with pytest.raises(penstock.Corrupt):
        _ = view.meta
    with view as found:
        assert bytes(found) == b"data"


LOADED: list[str] = []


def _load() -> str:
    LOADED.append("loaded")
    return "value"


class Recorded:
    """An object whose unpickling leaves a trace."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _load, ()


def test_no_pickle_is_loaded_to_see_whether_it_is_one(make: Make, shelf: redis.Shelf) -> None:
    LOADED.clear()
    value = _core.codec_encode(Recorded(), "pickle")
    shelf.values[b"o:x"] = redis.head_of(b"x", value, b"", redis.PICKLE)
    view = make(codec="pickle").get("x")
    assert LOADED == []
    with view as found:
        assert found == "value"
    assert LOADED == ["loaded"]


def test_a_value_that_changes_between_two_reads_is_a_miss(
    make: Make, shelf: redis.Shelf, server: redis.HostileRedis
) -> None:
    store, data = make(), bytes(range(250)) * 800
    shelf.values[b"o:x"] = redis.head_of(b"x", data, part_bytes=8192)
    shelf.values |= redis.parts_of(b"x", data, 8192)
    asked = 0

    def change(words: redis.Words) -> redis.Answer:
        nonlocal asked
        asked += words[0] == b"GET" and b"p:" in words[1]
        answer = shelf.answer(words)
        return [redis.bulk(bytes(8192))] if asked % 25 == 10 else answer

    server.answer = change
    assert_miss(store, "x", "corrupt")
    server.answer = shelf.answer
    assert store.get_copy("x") == data


def test_a_large_value_lies_in_its_head_and_is_guarded(make: Make, shelf: redis.Shelf) -> None:
    data = bytes(range(250)) * 1200
    sound = redis.head_of(b"x", data, _core.codec_encode({"m": 1}))
    shelf.values[b"o:x"] = sound
    view = make().get("x")
    with view as found:
        assert bytes(found) == data
        assert view.meta == {"m": 1}
    store = make()
    before = store.stats()
    for at in (70, 1000, len(sound) // 2, len(sound) - 1):  # metadata, data, seal
        damaged = bytearray(sound)
        damaged[at] ^= 1
        shelf.values[b"o:x"] = bytes(damaged)
        assert_miss(store, "x", "corrupt")
    for value in (sound[:-1], sound + b"x"):
        shelf.values[b"o:x"] = value
        assert_miss(store, "x", "corrupt")
    assert store.stats().free_bytes == before.free_bytes


# ---- a server's errors


def test_a_servers_error_is_shown_as_text(make: Make, server: redis.HostileRedis) -> None:
    store = make()
    server.answer = lambda _: [b"-ERR \x1b[31m\xff\xe2\x80\xae" + b"x" * 100_000 + b"\r\n"]
    stats = assert_miss(store, "x", "errors")
    assert stats.last_error.isascii()
    assert stats.last_error.isprintable()
    assert len(stats.last_error) < 400
    writing = make(policy="write_through")
    with pytest.raises(penstock.Error) as raised:
        writing.put("y", 1)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    "answer", [b"+QUEUED\r\n", b":1\r\n", b"$2\r\nOK\r\n", b"*0\r\n"], ids=range(4)
)
def test_unacknowledged_writes_do_not_count(
    make: Make, server: redis.HostileRedis, answer: bytes
) -> None:
    server.answer = lambda _: [answer]
    with pytest.raises(penstock.Error):
        make(policy="write_through").put("x", 1)
    behind = make(policy="write_back")
    behind.put("x", 1)
    assert behind.flush(WITHIN).dropped == 1
    assert tier_stats(behind).written == 0


def test_parts_that_drip_have_an_end_together(
    make: Make, shelf: redis.Shelf, server: redis.HostileRedis
) -> None:
    data = bytes(800_000)
    shelf.values[b"o:x"] = redis.head_of(b"x", data, part_bytes=4096)
    shelf.values |= redis.parts_of(b"x", data, 4096)
    parts = 0

    def drip(words: redis.Words) -> redis.Answer:
        nonlocal parts
        is_part = words[0] == b"GET" and b"p:" in words[1]
        parts += is_part
        return [0.1, *shelf.answer(words)] if is_part else shelf.answer(words)

    server.answer = drip
    store = make(request_timeout=1.0)
    assert store.get_copy("x", default=None) is None
    assert tier_stats(store).timeouts == 1
    assert parts < 100


# ---- slow answers


class SlowSets:
    """The first SET takes effect once ``overtaking`` has overtaken it, or after 0.3 s."""

    def __init__(self, shelf: redis.Shelf, overtaking: bytes) -> None:
        self._shelf = shelf
        self._overtaking = overtaking
        self._overtaken = threading.Event()
        self._lock = threading.Lock()
        self._sets = 0

    def answer(self, words: redis.Words) -> redis.Answer:
        is_first = False
        if words[0] == b"SET":
            with self._lock:
                self._sets += 1
                is_first = self._sets == 1
        if is_first:
            self._overtaken.wait(0.3)  # the delay of this server
        answer = self._shelf.answer(words)
        if words[0] == self._overtaking and not is_first:
            self._overtaken.set()
        return answer


def put_slowly(store: penstock.Store) -> threading.Thread:
    """Puts "x": on return the first tier has it, and its write to the server is under way."""
    thread = threading.Thread(target=lambda: store.put_bytes("x", b"old"))
    thread.start()
    eventually(lambda: store.look("x", timeout=0).state == "hit")
    return thread


@pytest.mark.parametrize("policy", ["write_through", "write_back"])
def test_a_deletion_is_not_overtaken_by_the_put_before_it(
    make: Make, server: redis.HostileRedis, shelf: redis.Shelf, policy: str
) -> None:
    store = make(policy=policy)
    server.answer = SlowSets(shelf, b"UNLINK").answer
    putting = put_slowly(store)
    assert store.delete("x") is True
    putting.join(WITHIN)
    assert store.flush(WITHIN).waiting == 0
    assert store.get_copy("x", None) is None
    assert shelf.values == {}


@pytest.mark.parametrize("policy", ["write_through", "write_back"])
def test_the_last_put_of_a_handle_wins(
    make: Make, server: redis.HostileRedis, shelf: redis.Shelf, policy: str
) -> None:
    store = make(policy=policy)
    server.answer = SlowSets(shelf, b"SET").answer
    putting = put_slowly(store)
    assert penstock.Store.attach(store.name).delete("x")  # from the first tier alone
    store.put_bytes("x", b"new")
    putting.join(WITHIN)
    assert store.flush(WITHIN).waiting == 0
    store.clear()
    assert store.get_copy("x") == b"new"


def test_a_deletion_that_never_reached_the_server_is_a_timeout(
    make: Make, server: redis.HostileRedis, shelf: redis.Shelf
) -> None:
    """The deletion needs a new connection, on which the server does not answer AUTH."""
    greeted = threading.Event()

    def answer(words: redis.Words) -> redis.Answer:
        if words[0] == b"AUTH":
            return [] if greeted.is_set() else [redis.OK]
        return [redis.HANG_UP] if words[0] == b"GETRANGE" else shelf.answer(words)

    server.answer = answer
    server.url = server.url.replace("unix:", "unix://:secret@")
    store = make(policy="write_through", request_timeout=1.0)
    store.put_bytes("x", b"value")
    greeted.set()
    with pytest.raises(penstock.Timeout):
        store.delete("x")
    assert list(shelf.values) == [b"o:x"]


def test_the_servers_answer_to_a_password_is_not_quoted(
    make: Make, server: redis.HostileRedis
) -> None:
    server.answer = lambda words: [b"-ERR unknown: '%s'\r\n" % words[1]]
    server.url = server.url.replace("unix:", "unix://:secret@")
    with pytest.raises(penstock.PermissionDenied, match="ERR") as refused:
        make()
    assert "secret" not in str(refused.value)


def test_a_full_server_is_an_outage(make: Make, server: redis.HostileRedis) -> None:
    server.answer = lambda _: [b"-ERR max number of clients reached\r\n"]
    server.url = server.url.replace("unix:", "unix://:secret@")
    assert tier_stats(make()).servers_away == 1


def test_a_second_process_waits_as_long_as_the_fetch_may_take(
    make: Make, server: redis.HostileRedis, shelf: redis.Shelf
) -> None:
    data = bytes(4 << 16)
    shelf.values[b"o:x"] = redis.head_of(b"x", data, part_bytes=1 << 16)
    shelf.values |= redis.parts_of(b"x", data, 1 << 16)

    def answer(words: redis.Words) -> redis.Answer:
        is_part = words[0] == b"GET" and b":p:" in words[1]
        return [*([1.0] if is_part else []), *shelf.answer(words)]

    server.answer = answer
    first = make(request_timeout=2.0, part="64KiB")
    tier = penstock.SecondTier(server.url, policy="read_only", request_timeout=2.0, part="64KiB")
    found: list[object] = []
    fetching = threading.Thread(target=lambda: found.append(first.get_copy("x", None)))
    with penstock.Store.attach(first.name, second_tier=tier) as second:
        fetching.start()
        eventually(lambda: first.stats().staged == 1)
        assert second.get_copy("x", None) == data
        fetching.join(WITHIN)
    assert found == [data]


def test_another_participants_reservation_is_waited_for(
    make: Make, server: redis.HostileRedis, shelf: redis.Shelf
) -> None:
    shelf.values[b"o:x"] = redis.head_of(b"x", b"value")
    here = make()
    hasty = penstock.SecondTier(server.url, policy="read_only", request_timeout=1.0)
    held = penstock.Store.attach(here.name).reserve("x", 5)
    with pytest.raises(penstock.Timeout):
        here.get("x", timeout=0.2)
    with penstock.Store.attach(here.name, second_tier=hasty) as other:
        assert other.get("x", None) is None
        stats = tier_stats(other)
        assert (stats.misses, stats.timeouts) == (1, 1)
        assert "another participant" in stats.last_error
    held.abort()
    assert here.get_copy("x") == b"value"


def test_wait_sees_the_first_tier_while_a_server_hangs(
    make: Make, server: redis.HostileRedis
) -> None:
    asked = threading.Event()

    def answer(_: redis.Words) -> redis.Answer:
        asked.set()
        return []

    server.answer = answer
    store = make(request_timeout=600)
    found: list[object] = []

    def wait() -> None:
        with store.wait("x", timeout=600) as value:
            found.append(bytes(value))

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    assert asked.wait(WITHIN)
    penstock.Store.attach(store.name).put_bytes("x", b"value")
    waiting.join(WITHIN)
    assert found == [b"value"]


def test_a_run_of_the_fuzzer() -> None:
    command = [sys.executable, str(ROOT / "fuzz" / "hostile_redis_fuzz.py"), "--seconds", "3"]
    run = subprocess.run(
        [*command, "--seed", "20261129"], check=False, capture_output=True, text=True, timeout=100
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "sound" in run.stdout
