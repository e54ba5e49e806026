"""A store with a second tier, from Python: objects missing in the first tier come from the second,
whole and unchanged; a server's failures are misses, counted or reported, and never block the first
tier."""

from __future__ import annotations

import contextlib
import gc
import inspect
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mappings import access_at
from peers import WITHIN, eventually, needs_a_mount, run_script, threads_here
from redis_server import RedisServer, why_no_server

import penstock
from penstock import _core

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

PATIENT: dict[str, Any] = {
    "connect_timeout": WITHIN,
    "request_timeout": WITHIN,
    "retry_first": 0.001,
    "retry_most": 0.02,
}
NOTHING = penstock.Unwritten(0, 0, 0, 0)
Make = Callable[..., penstock.Store]


def tier_stats(store: penstock.Store) -> penstock.TierStats:
    stats = store.stats().second_tier
    assert stats is not None
    return stats


def first_of(store: penstock.Store) -> penstock.Store:
    """Another participant, without a second tier."""
    return penstock.Store.attach(store.name)


def require_a_server() -> None:
    if why_no_server:
        pytest.skip(why_no_server)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    require_a_server()
    server = RedisServer(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def make(name: str, server: RedisServer) -> Iterator[Make]:
    """Machines, each a store with its own name, in front of one server."""
    made: list[penstock.Store] = []

    def machine(capacity: str = "4MiB", codec: Any = None, **options: Any) -> penstock.Store:
        second_tier = penstock.SecondTier(server.url, **{**PATIENT, **options})
        machine = f"{name}-{len(made)}"
        made.append(
            penstock.Store.create(machine, capacity=capacity, codec=codec, second_tier=second_tier)
        )
        return made[-1]

    yield machine
    for one in made:
        one.close(timeout=0)


# ---- what is put comes back


@pytest.mark.parametrize("policy", ["write_back", "write_through"])
def test_one_machines_object_is_read_by_another(make: Make, policy: str) -> None:
    here, there = make(policy=policy), make()
    value = {"tokens": np.arange(50_000), "text": "x", "none": None}
    assert here.put("a", value, meta={"layer": 3}) is True
    assert here.put("a", 1) is False
    assert here.put_bytes(b"\xff", b"bytes")
    assert here.flush(WITHIN) == NOTHING
    assert "a" in there
    view = there.get("a")
    with view as found:
        assert (found["tokens"] == value["tokens"]).all()
        assert not found["tokens"].flags.writeable
        assert found["text"] == "x"
        assert view.meta == {"layer": 3}
    assert there.get_copy(b"\xff") == b"bytes"
    assert tier_stats(there).hits == 2
    assert tier_stats(here).written == 2
    assert tier_stats(here).written_bytes == tier_stats(there).fetched_bytes
    there.get_copy("a")
    assert tier_stats(there).hits == 2  # now in the first tier


def test_an_evicted_object_is_fetched(make: Make) -> None:
    store = make(capacity="1MiB", policy="write_through")
    for number in range(40):
        store.put(str(number), np.full(60_000, number, np.uint8))
    assert store.stats().evicted > 0
    for number in range(40):
        with store.get(str(number)) as array:
            assert (array == number).all()
    assert tier_stats(store).hits >= 20


@pytest.mark.parametrize("dtype", ["float32", "int8", "bool", "complex64", "bfloat16"])
@pytest.mark.parametrize("shape", [(3, 5), (), (0, 4), (300, 70)])
def test_arrays_keep_dtype_shape_and_meta(make: Make, dtype: str, shape: tuple[int, ...]) -> None:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    here, there = make(part="16KiB"), make()
    with here.reserve("x", shape=shape, dtype=dtype, meta=["m", 1]) as room:
        wanted = (np.arange(room.size) % 2).reshape(shape).astype(room.dtype)
        room[...] = wanted
    with pytest.raises(ValueError, match="read-only"):
        room[...] = 0
    del room
    assert here.flush(WITHIN) == NOTHING
    view = there.get("x")
    with view as found:
        assert found.shape == shape
        assert found.dtype == wanted.dtype
        assert (found == wanted).all()
        assert found.ctypes.data % 64 == 0
        assert view.meta == ["m", 1]
    assert tier_stats(there).hits == 1


def test_tensors(make: Make) -> None:
    torch = pytest.importorskip("torch")
    here, there = make(policy="write_through"), make()
    with here.reserve("x", shape=(4, 8), dtype=torch.bfloat16) as tensor:
        tensor.fill_(1.5)
    with there.get("x") as seen:
        assert seen.dtype is torch.bfloat16
        assert seen.shape == (4, 8)
        assert (seen == 1.5).all()
        del seen


def test_reservations(make: Make, server: RedisServer) -> None:
    here, there = make(policy="write_through"), make()
    reservation = here.reserve("x", "1KiB")
    assert "x" not in there
    reservation.resize(10)
    reservation.room[:] = b"0123456789"
    reservation.commit()
    with pytest.raises(penstock.Expired):
        reservation.commit()
    assert there.get_copy("x") == b"0123456789"
    with pytest.raises(RuntimeError, match="on purpose"), here.reserve("y", 10):
        raise RuntimeError("on purpose")
    assert "y" not in here
    with pytest.raises(penstock.AlreadyExists, match="'x'"):
        here.reserve("x", 10)
    assert server.names() == ["penstock:o:x"]


@pytest.mark.parametrize("size", [100, 1 << 20])
def test_writes_after_a_reservation_reach_neither_tier(make: Make, size: int) -> None:
    here, there = make(policy="write_through"), make()
    with pytest.warns(ResourceWarning, match="outlives"), here.reserve("z", size) as buffer:  # noqa: PT031
        kept = np.frombuffer(buffer, np.uint8)
        kept[:] = 7
    kept[:] = 9
    assert there.get_copy("z") == bytes([7]) * size
    assert here.get_copy("z") == bytes([7]) * size
    with here.get("z") as view:
        assert access_at(np.frombuffer(view, np.uint8).ctypes.data) == "r--s"


def test_pickles_only_where_both_ask(make: Make) -> None:
    here, there = make(policy="write_through", codec="pickle"), make()
    here.put("x", {1, 2})
    with pytest.raises(penstock.NotFound):
        there.get("x")
    assert tier_stats(there).incompatible == 1
    assert "codec='pickle'" in tier_stats(there).last_error
    trusting = make(codec="pickle")
    assert trusting.get_copy("x") == {1, 2}


def test_misses(make: Make) -> None:
    store = make()
    with pytest.raises(penstock.NotFound, match="'nothing'"):
        store.get("nothing")
    with pytest.raises(FileNotFoundError):
        store.get_copy("nothing")
    assert store.get_copy("nothing", default=3) == 3
    assert store.get("nothing", default=None) is None
    assert "nothing" not in store
    assert store.delete("nothing") is False
    assert tier_stats(store).misses == 4
    assert store.stats().misses == 4


def test_deletion_empties_both_tiers(make: Make, server: RedisServer) -> None:
    here, there = make(policy="write_through"), make()
    here.put_bytes("x", bytes(100_000))
    assert "x" not in first_of(there)
    assert there.delete("x") is True
    assert server.names() == []
    assert here.delete("x") is True
    assert here.delete("x") is False
    assert here.get_copy("x", None) is None


def test_a_reader_neither_writes_nor_removes(make: Make, server: RedisServer) -> None:
    here, reader = make(policy="write_through", prefix="a:"), make(policy="read_only", prefix="a:")
    here.put("x", 1)
    assert reader.get_copy("x") == 1
    assert reader.put("y", 2) is True
    assert reader.delete("x") is True
    assert server.names() == ["a:o:x"]
    assert reader.get_copy("x") == 1
    assert reader.close() == NOTHING


def test_a_time_to_live_is_set_at_the_server(make: Make, server: RedisServer) -> None:
    make(policy="write_through", ttl=3600).put("x", 1)
    assert 3500 <= int(server.say("TTL", "penstock:o:x")[1:]) <= 3600


def test_damage_is_a_miss(make: Make, server: RedisServer) -> None:
    here, there = make(policy="write_through"), make(delete_corrupt=True)
    here.put_bytes("x", bytes(100))
    server.say("SETRANGE", "penstock:o:x", "100", "damage")
    assert there.get_copy("x", None) is None
    assert tier_stats(there).corrupt == 1
    assert server.names() == []


def test_its_counters_are_a_part_of_the_stores(make: Make) -> None:
    stats = make().stats()
    assert pickle.loads(pickle.dumps(stats)) == stats
    plain = stats.asdict()["second_tier"]
    assert (plain["servers"], plain["circuit"], plain["last_error"]) == (1, "closed", "")
    for name in plain:
        assert (inspect.getdoc(getattr(penstock.TierStats, name)) or "").endswith(".")


# ---- the first tier


def test_a_second_tier_is_one_handles(name: str, server: RedisServer) -> None:
    with penstock.Store.create(name, capacity="4MiB") as store:
        store.put("before", 1)
        assert store.stats().second_tier is None
        assert store.flush() == NOTHING
        second_tier = penstock.SecondTier(server.url, **PATIENT)
        with penstock.Store.attach(name, second_tier=second_tier) as tiered:
            assert tiered.get_copy("before") == 1
            assert store.put("here only", 2)
            assert tiered.put("both", 3)
            assert sorted(store.keys()) == ["before", "both", "here only"]
            assert store.look("both").state == "hit"
        assert tiered.closed
        assert store.get_copy("both") == 3
    assert server.names() == ["penstock:o:both"]


def test_who_is_refused_leaves_nothing(name: str, tmp_path: Path) -> None:
    require_a_server()
    guarded = RedisServer(tmp_path, "--requirepass", "secret")
    for url, error in [
        (guarded.url, penstock.PermissionDenied),
        (f"unix://:wrong@{guarded.path}", penstock.PermissionDenied),
        ("http://host", penstock.InvalidArgument),
    ]:
        tier = penstock.SecondTier(url, **PATIENT)
        assert "wrong@" not in repr(tier)
        with pytest.raises(error) as caught:
            penstock.Store.create(name, persistent=True, second_tier=tier)
        assert "wrong@" not in str(caught.value)
        assert not Path(f"/dev/shm/penstock.{name}").exists()
    tier = penstock.SecondTier(f"unix://:secret@{guarded.path}", **PATIENT)
    with penstock.Store.create(name, capacity="4MiB", second_tier=tier) as tiered:
        assert "secret" not in repr(tiered)
    guarded.kill()


# ---- every call of a store


def test_every_look_up_goes_through(make: Make, server: RedisServer) -> None:
    here, there = make(policy="write_through"), make()
    for number in range(3):
        assert here.put(f"k{number}", number, meta=[number])
    assert there.look("k1").state == "remote"
    assert there.look("k1", timeout=0).state == "miss"
    assert there.prefix_length(["k0", "k1", "none", "k2"]) == 2
    assert there.meta("k1") == [1]
    assert sorted(there.keys()) == ["k0", "k1", "k2"]
    assert there.keys(timeout=0) == ["k1"]
    assert there.touch("k2")
    assert not there.touch("none")
    with there.get_many(["k0", "none", "k2"]) as found:
        assert found == [0, None, 2]
    with there.get_many(["k0", "none", "k2"], prefix=True) as found:
        assert found == [0]
    for reservation in here.reserve_many(["r0", "r1"], 10):
        assert isinstance(reservation, penstock.Reservation)
        reservation.commit(timeout=WITHIN)
    with there.wait("r1", timeout=WITHIN) as waited:
        assert len(waited) == 10
    with pytest.raises(penstock.Timeout):
        there.get("r0", timeout=0)
    server.kill()
    with pytest.raises(penstock.PeerDied):
        there.keys()


def test_deadlines(make: Make, server: RedisServer) -> None:
    store = make(policy="write_through")
    with server.hanging():
        for call in (
            lambda: store.get("x", timeout=0.02),
            lambda: store.get_copy("x", None, timeout=0.02),
            lambda: store.put("y", 1, timeout=0.02),
            lambda: store.reserve("z", 10).commit(timeout=0.02),
            lambda: store.delete("x", timeout=0.02),
            lambda: store.keys(timeout=0.02),
            lambda: store.wait("x", timeout=0.02),
        ):
            with pytest.raises(penstock.Timeout):
                call()
        assert store.look("x", timeout=0.02).state == "miss"
        assert store.prefix_length(["x"], timeout=0.02) == 0
        assert store.touch("x", timeout=0.02) is False
    assert tier_stats(store).circuit == "closed"


# ---- a server that is away


def test_an_outage_is_a_miss_and_counted(make: Make, server: RedisServer) -> None:
    store = make()
    store.put("x", 1)
    assert store.flush(WITHIN) == NOTHING
    server.kill()
    for number in range(20):
        assert store.get_copy("nothing", None) is None
        assert store.put(str(number), number) is True
        assert store.get_copy(str(number)) == number
    stats = tier_stats(store)
    assert stats.skipped > 0
    assert stats.errors > 0
    assert stats.circuit == "open"
    assert stats.servers_away == stats.servers == 1
    assert server.path in stats.last_error
    assert store.flush(0).waiting == stats.inflight > 0
    server.start()
    assert store.flush(WITHIN) == NOTHING
    assert tier_stats(store).circuit == "closed"
    assert len(server.names()) == 20  # "x" was dropped


def test_a_server_that_comes_late_is_found(make: Make, server: RedisServer) -> None:
    server.kill()
    store = make()
    assert store.put("x", 1)
    server.start()
    assert store.flush(WITHIN) == NOTHING
    assert server.names() == ["penstock:o:x"]


def test_a_server_that_hangs_blocks_no_caller(make: Make, server: RedisServer) -> None:
    store = make(request_timeout=1.0, connect_timeout=1.0)
    with server.hanging():
        assert store.get_copy("nothing", None) is None  # costs the timeout
        assert tier_stats(store).timeouts >= 1  # and the repair's
        begin = time.monotonic()
        for number in range(200):
            store.put(str(number), number)
            assert store.get_copy(str(number)) == number
            assert store.get_copy("nothing", None) is None
        assert time.monotonic() - begin < 200 * 1.0 / 10  # less than one in ten waited
        assert tier_stats(store).skipped == 200
    assert store.flush(WITHIN) == NOTHING
    assert len(server.names()) == 200


def test_write_through_reports_what_the_second_tier_lacks(make: Make, server: RedisServer) -> None:
    store = make(policy="write_through")
    server.kill()
    with pytest.raises(penstock.PeerDied, match=server.path):
        store.put_bytes("x", bytes(1000))
    assert store.get_copy("x") == bytes(1000)  # in the first tier
    with pytest.raises(ConnectionError), store.reserve("y", shape=(8,), dtype="int32") as room:
        room[...] = 5
    assert not room.flags.writeable
    assert (store.get_copy("y") == 5).all()
    with pytest.raises(penstock.PeerDied):
        store.delete("x")
    assert "x" not in first_of(store)
    assert tier_stats(store).dropped == 2
    del room


def test_a_servers_refusal_is_reported(make: Make, server: RedisServer) -> None:
    server.say("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(penstock.Error, match="OOM"):
        make(policy="write_through").put("x", 1)
    back = make()
    assert back.put("y", 1)
    assert back.flush(WITHIN).dropped == 1
    assert back.flush(WITHIN) == NOTHING  # reported once
    assert tier_stats(back).dropped == 1
    assert tier_stats(back).circuit == "closed"


def test_the_backlog_is_bounded(make: Make, server: RedisServer) -> None:
    store = make(max_inflight=10_500)
    waiting = make(max_inflight="10KiB", when_full="wait", full_timeout=WITHIN)
    with server.hanging():
        for number in range(15):
            assert store.put_bytes(str(number), bytes(1000))
        stats = tier_stats(store)
        assert (stats.inflight, stats.inflight_bytes) == (10, 10_000)
        assert (stats.dropped, stats.dropped_bytes) == (5, 5000)
        for number in range(10):
            waiting.put_bytes(f"w{number}", bytes(1000))
        late = threading.Thread(target=waiting.put_bytes, args=("late", bytes(1000)))
        late.start()
        eventually(lambda: first_of(waiting).look("late").state == "hit")
        assert tier_stats(waiting).inflight == 10
    late.join()
    assert store.flush(WITHIN) == penstock.Unwritten(0, 0, 5, 5000)
    assert waiting.flush(WITHIN) == NOTHING
    assert len(server.names()) == 21


# ---- close and flush


def test_close_reports_unwritten_objects(make: Make, server: RedisServer) -> None:
    store = make()
    with server.hanging():
        for number in range(5):
            store.put_bytes(str(number), bytes(1000))
        left = store.flush(0)
        assert left == penstock.Unwritten(5, 5000, 0, 0)
        assert left
        assert not left.is_nothing()
        assert store.close(timeout=0) == penstock.Unwritten(0, 0, 5, 5000)
    assert store.closed
    assert store.close() == NOTHING
    assert "closed" in repr(store)
    for call in (lambda: store.get("0"), lambda: store.put("x", 1), store.flush, store.stats):
        with pytest.raises(penstock.Closed, match="closed by this process"):
            call()
    for call in (lambda: "0" in store, lambda: store.delete("0"), lambda: store.reserve("x", 1)):
        with pytest.raises(penstock.Closed):
            call()


def test_close_writes_the_backlog(make: Make, server: RedisServer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with make() as store:
            for number in range(50):
                store.put_bytes(str(number), bytes(20_000))
    assert len(server.names()) == 50


def test_a_block_warns_of_unwritten_objects(
    make: Make, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(penstock.Store.close, "__defaults__", (0,))
    store = make()
    with server.hanging():
        store.__enter__().put("x", 1)
        with pytest.warns(RuntimeWarning, match="has not got 1 objects"):
            store.__exit__(None, None, None)


@pytest.mark.parametrize("what", ["get", "in", "put", "delete", "flush", "commit"])
def test_close_ends_waits_of_other_threads(make: Make, server: RedisServer, what: str) -> None:
    store = make(policy="write_back" if what == "flush" else "write_through")
    store.put("deleted", 1)
    store.flush()
    outcome: list[object] = []

    def commit() -> None:
        with store.reserve("y", 10):
            pass

    acts: dict[str, Callable[[], object]] = {
        "get": lambda: store.get("x"),
        "in": lambda: "x" in store,
        "put": lambda: store.put("y", 1),
        "commit": commit,
        "delete": lambda: store.delete("deleted"),
        "flush": lambda: (store.put("z", 1), store.flush())[1],
    }

    def act() -> None:
        try:
            outcome.append(acts[what]())
        except penstock.Error as error:
            outcome.append(error)

    with server.hanging():
        thread = threading.Thread(target=act)
        thread.start()
        begun: dict[str, Callable[[], bool]] = {
            "get": lambda: store.stats().misses > 0,
            "put": lambda: "y" in first_of(store),
            "commit": lambda: "y" in first_of(store),
            "delete": lambda: "deleted" not in first_of(store),
            "flush": lambda: tier_stats(store).inflight == 1,
            "in": lambda: sys._current_frames()[thread.ident or 0].f_code.co_name == "<lambda>",
        }
        eventually(begun[what])
        store.close(timeout=0)
        thread.join(WITHIN)
        assert not thread.is_alive()
    if what in ("in", "delete"):
        assert isinstance(outcome[0], penstock.Closed)
    elif what == "flush":
        assert isinstance(outcome[0], penstock.Unwritten | penstock.Closed)
    else:
        assert isinstance(outcome[0], penstock.Cancelled | penstock.Closed)


@pytest.mark.parametrize(
    "what", ["get", "in", "put", "delete", "flush", "close", "keys", "touch", "wait", "open"]
)
def test_ctrl_c_is_answered(name: str, server: RedisServer, what: str) -> None:
    """Runs in its own process, whose main thread waits for a hanging server."""
    script = """
        import os, signal, sys, threading, time
        import penstock
        name, url, what = sys.argv[1:]
        policy = "write_back" if what in ("flush", "close") else "write_through"
        tier = penstock.SecondTier(url, policy=policy, connect_timeout=60, request_timeout=60)
        store = penstock.Store.create(name, capacity="1MiB", second_tier=tier)
        print("ready", flush=True)
        sys.stdin.readline()  # the server hangs
        main = threading.main_thread().ident
        def interrupt():
            # Again, should the first have come before the wait.
            for pause in (0.1, 5, 5):
                if done.wait(pause):
                    break
                os.kill(os.getpid(), signal.SIGINT)
        done = threading.Event()
        if policy == "write_back":
            store.put("x", 1)
        acts = {
            "get": lambda: store.get("x"), "in": lambda: "x" in store,
            "put": lambda: store.put("x", 1), "delete": lambda: store.delete("x"),
            "flush": store.flush, "close": lambda: store.close(timeout=None),
            "keys": store.keys, "touch": lambda: store.touch("x"), "wait": lambda: store.wait("x"),
            "open": lambda: penstock.Store.create(
                name + "-open", persistent=True, second_tier=tier)}
        thread = threading.Thread(target=interrupt)
        begin = time.monotonic()
        try:
            thread.start()
            acts[what]()
            print("not interrupted")
        except KeyboardInterrupt:
            done.set()
            print("interrupted after", time.monotonic() - begin < 20)
        done.set()
        thread.join()
        store.close(timeout=0)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), name, server.url, what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    with server.hanging():
        out, _ = process.communicate("go\n", timeout=WITHIN)
    assert out == "interrupted after True\n"
    assert process.returncode == 0
    assert not Path(f"/dev/shm/penstock.{name}-open").exists()


def test_the_end_of_the_interpreter_writes_the_backlog(name: str, server: RedisServer) -> None:
    script = """
        import sys, penstock
        name, url = sys.argv[1:]
        store = penstock.Store.create(name, second_tier=url)
        for number in range(30):
            store.put_bytes(str(number), bytes(100_000))
    """
    outcome = run_script(script, name, server.url)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stderr == ""
    assert sum(":o:" in key for key in server.names()) == 30


def test_the_end_of_the_interpreter_warns_of_unwritten_objects(
    name: str, server: RedisServer
) -> None:
    script = """
        import sys, penstock
        penstock.Store.close.__defaults__ = (0,)
        name, url = sys.argv[1:]
        store = penstock.Store.create(name, second_tier=url)
        store.put("x", 1)
    """
    server.kill()
    outcome = run_script(script, name, server.url)
    assert outcome.returncode == 0
    assert "has not got 1 objects" in outcome.stderr


# ---- what can't be


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"urls": "http://host"}, penstock.InvalidArgument, "redis://"),
        ({"urls": "redis://"}, penstock.InvalidArgument, "names no host"),
        (
            {"urls": "redis://host:port"},
            penstock.InvalidArgument,
            "a number up to 65535 for its port",
        ),
        ({"urls": "unix:relative"}, penstock.InvalidArgument, "absolute path"),
        ({"urls": []}, TypeError, "takes a URL"),
        ({"urls": [3]}, TypeError, "takes a URL"),
        ({"urls": 3}, TypeError, "takes a URL"),
        ({"urls": ["redis://a", "redis://b"]}, penstock.InvalidArgument, "one cluster"),
        ({"urls": "redis+cluster://a/1"}, penstock.InvalidArgument, "no database but 0"),
        ({"urls": "rediss://a"}, penstock.InvalidArgument, "asks for TLS"),
        ({"policy": "write"}, penstock.InvalidArgument, "give one of 'write_back' 'write_through'"),
        ({"when_full": "block"}, penstock.InvalidArgument, "give one of 'drop' 'wait'"),
        ({"max_inflight": "lots"}, penstock.InvalidArgument, "lots"),
        ({"max_inflight": -1}, penstock.InvalidArgument, "max_inflight is -1"),
        ({"max_inflight": 1.5}, TypeError, "max_inflight must be an int of bytes"),
        ({"part": "1KiB"}, penstock.InvalidArgument, "between 4 KiB and 512 MiB"),
        ({"part": "1GiB"}, penstock.InvalidArgument, "between 4 KiB and 512 MiB"),
        ({"writers": 0}, penstock.InvalidArgument, "1 to 64 writers"),
        ({"writers": "many"}, TypeError, "writers must be an int"),
        ({"connect_timeout": 0}, penstock.InvalidArgument, "longer than nothing"),
        ({"request_timeout": -1}, penstock.InvalidArgument, "request_timeout is -1"),
        ({"request_timeout": float("nan")}, penstock.InvalidArgument, "request_timeout is nan"),
        ({"request_timeout": "1s"}, TypeError, "request_timeout must be seconds"),
        ({"retry_first": 0}, penstock.InvalidArgument, "without a pause"),
        ({"full_timeout": None}, TypeError, "full_timeout must be seconds"),
        ({"ttl": 0}, penstock.InvalidArgument, "ttl is longer than nothing"),
        ({"ttl": "1h"}, TypeError, "ttl must be seconds"),
        ({"prefix": 3}, TypeError, "prefix must be a str"),
    ],
)
def test_impossible_options_are_refused(
    name: str,
    server: RedisServer,
    options: dict[str, Any],
    error: type[Exception],
    sentence: str,
) -> None:
    with pytest.raises(error, match=sentence):
        penstock.Store.create(
            name, second_tier=penstock.SecondTier(**{"urls": server.url, **options})
        )
    assert not Path(f"/dev/shm/penstock.{name}").exists()


def test_a_build_without_redis_reports_it(name: str) -> None:
    if _core.has_redis():
        pytest.skip("this build has it")
    with pytest.raises(penstock.InvalidArgument, match="built without Redis"):
        penstock.Store.create(name, second_tier="redis://127.0.0.1")


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1/0?password=sEcret",
        "redis://127.0.0.1:6379?password=sEcret",
        "redis://user:sEcret",
        "redis://user:sEcret#host:6379",
        "redis+cluster://a:sEcret,b",
        "unix:/x?password=sEcret",
        b"redis://:sEcret@h",
        ["redis://:sEcret@h", None],
    ],
)
def test_no_message_repeats_a_password(name: str, url: Any) -> None:
    with pytest.raises((penstock.InvalidArgument, TypeError)) as refused:
        penstock.Store.create(name, second_tier=url)
    assert "sEcret" not in str(refused.value)


def test_bad_input(make: Make, server: RedisServer, name: str) -> None:
    with pytest.raises(TypeError, match="takes a URL"):
        penstock.Store.create(name, second_tier=7)  # type: ignore[arg-type]
    store = make()
    with pytest.raises(TypeError, match="str or bytes"):
        store.get(3)
    with pytest.raises(penstock.InvalidArgument, match="4097"):
        store.put("k" * 4097, 1)
    assert store.get_copy("k" * 4097, None) is None
    assert "" not in store
    with pytest.raises(penstock.InvalidArgument):
        store.reserve("x")
    with pytest.raises(penstock.UnsupportedType):
        store.put("x", object())
    with pytest.raises(penstock.InvalidArgument, match="timeout is -1"):
        store.flush(-1)
    with pytest.raises(penstock.TooLarge):
        store.put_bytes("x", bytes(5 << 20))
    with pytest.raises(TypeError, match="stays in its process"):
        pickle.dumps(store)
    assert server.names() == []


def test_an_object_too_large_for_the_first_tier_is_a_counted_miss(make: Make) -> None:
    here, there = make(capacity="4MiB", policy="write_through"), make(capacity="1MiB")
    here.put_bytes("large", bytes(2 << 20))
    with pytest.raises(penstock.NotFound):
        there.get("large")
    assert tier_stats(there).no_room == 1


# ---- threads, forks, the end


def test_threads(make: Make, server: RedisServer) -> None:
    store = make(capacity="1MiB", writers=2)
    wrong: list[Any] = []

    def work(seed: int) -> None:
        for turn in range(200):
            number = (turn * 7 + seed) % 30
            value = store.get_copy(str(number), default=None)
            if value is None:
                with contextlib.suppress(penstock.NoSpace):
                    store.put(str(number), np.full(60_000, number, np.uint8))
            elif (value != number).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert store.flush(WITHIN).waiting == 0
    assert tier_stats(store).hits > 0
    assert store.stats().in_use == 0


def test_threads_share_a_fetch(make: Make, server: RedisServer) -> None:
    here, there = make(policy="write_through"), make()
    here.put("x", np.arange(1000))
    found: list[bool] = []
    with server.hanging():
        threads = [
            threading.Thread(
                target=lambda: found.append(bool((there.get_copy("x") == np.arange(1000)).all()))
            )
            for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        eventually(lambda: tier_stats(there).shared == 4)
    for thread in threads:
        thread.join()
    assert found == [True] * 5
    assert tier_stats(there).hits == 1


def test_other_threads_run_while_one_waits(make: Make, server: RedisServer) -> None:
    store = make()
    with server.hanging():
        waiting = threading.Thread(target=lambda: store.get_copy("x", None))
        waiting.start()
        eventually(lambda: store.stats().misses == 1)
        store.put("y", 1)
        assert store.get_copy("y") == 1
        assert waiting.is_alive()
    waiting.join()


@needs_a_mount
@pytest.mark.skipif(not _core.has_redis(), reason="this build is without hiredis")
def test_other_threads_run_while_a_name_is_resolved_during_close(name: str, tmp_path: Path) -> None:
    """Runs in a mount namespace with a name server that never answers: the resolver gives up after
    a second, and close() has to wait for the thread that is in the resolver."""
    resolver = tmp_path / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    script = """
        import select, socket, sys, threading, time
        import penstock
        names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            names.bind(("127.0.0.1", 53))
        except OSError:
            sys.exit("taken")
        tier = penstock.SecondTier("redis://cache.example.", retry_first=0.001, retry_most=0.001)
        store = penstock.Store.create(sys.argv[1], capacity="1MiB", second_tier=tier)
        while select.select([names], [], [], 0)[0]:
            names.recv(1000)  # of the trials until now
        names.recv(1000)  # the next one has begun
        gaps, is_over = [0.0], threading.Event()
        def beat():
            last = time.monotonic()
            while not is_over.wait(0.001):
                gaps.append(time.monotonic() - last)
                last = time.monotonic()
        beating = threading.Thread(target=beat)
        beating.start()
        store.close(timeout=0)
        is_over.set()
        beating.join()
        print("stood still" if max(gaps) > 0.5 else "went on")
    """
    mounted = ("unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"')
    outcome = run_script(script, name, prefix=(*mounted, str(resolver)))
    if "taken" in outcome.stderr:
        pytest.skip("port 53 is taken")
    assert outcome.stdout == "went on\n", outcome.stderr


def test_a_forked_child_attaches_anew(make: Make, server: RedisServer) -> None:
    store = make()
    store.put("x", 1)
    held = store.reserve("held", 10)
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            signal.alarm(int(WITHIN))
            assert "parent" in repr(store)
            assert store.close() == NOTHING  # the parent's
            with pytest.raises(penstock.WrongProcess):
                held.commit()
            assert store.get_copy("x") == 1
            assert store.put("child", 2)
            assert store.flush(WITHIN) == NOTHING
            assert tier_stats(store).written == 1
            assert store.close(WITHIN) == NOTHING
            del store, held
            gc.collect()
            code = 0
        os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    held.abort()
    assert store.flush(WITHIN) == NOTHING
    assert store.get_copy("x") == 1
    assert sorted(server.names()) == ["penstock:o:child", "penstock:o:x"]


def test_a_forked_child_meets_a_server_that_refuses_it(make: Make, server: RedisServer) -> None:
    store = make()
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            signal.alarm(int(WITHIN))
            server.say("CONFIG", "SET", "requirepass", "secret")
            assert store.get("x", None) is None
            assert "NOAUTH" in tier_stats(store).last_error
            code = 0
        os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_forked_child_does_not_wait_for_a_server_that_hangs(
    make: Make, server: RedisServer
) -> None:
    store = make(connect_timeout=600, request_timeout=600)
    store.put("x", 1)
    assert store.flush(WITHIN) == NOTHING
    with server.hanging():
        pid = os.fork()
        if pid == 0:
            code = 1
            with contextlib.suppress(BaseException):
                signal.alarm(int(WITHIN))
                assert store.get_copy("x", timeout=0) == 1
                with pytest.raises(penstock.Timeout):
                    store.get("y", timeout=0.1)
                code = 0
            os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0


def test_dropped_handles_leave_nothing(name: str, server: RedisServer) -> None:
    before = threads_here()
    for _ in range(2):
        tier = penstock.SecondTier(server.url, **PATIENT)
        store = penstock.Store.create(name, capacity="1MiB", second_tier=tier)
        store.put("x", np.arange(1000))
        assert store.flush(WITHIN) == NOTHING
        assert threads_here() > before
        gone = weakref.ref(store)
        with store.get("x") as kept:
            pass
        del store
        assert gone() is None
        eventually(lambda: threads_here() == before)
        assert (kept == np.arange(1000)).all()
        del kept
        assert not Path(f"/dev/shm/penstock.{name}").exists()


def test_views_outlive_the_tiers(make: Make) -> None:
    here, there = make(policy="write_through"), make()
    here.put("x", np.arange(1000))
    view = there.get("x")
    with view as found:
        there.close()
        assert (found == np.arange(1000)).all()
    reservation = here.reserve("y", 10)
    here.close()
    with pytest.raises(penstock.Cancelled):  # reaches only the first tier
        reservation.commit()


def test_its_repr_and_stats(make: Make) -> None:
    store = make()
    store.put_bytes("x", bytes(10))
    store.flush()
    store.get_copy("nothing", None)
    assert repr(store) == f"<penstock.Store '{store.name}'>"
    stats = tier_stats(store)
    assert (stats.hits, stats.misses, stats.inflight, stats.servers_away) == (0, 1, 0, 0)
