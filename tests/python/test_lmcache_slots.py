"""Owners of slot memory in the server of LMCache's worker protocol, while servers and workers, each
its own process, are killed and stopped. Without lmcache: its calls are made here.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peers
import pytest
from peers import Peer, eventually, run_script

import penstock
from penstock.integrations.lmcache import PoolServer
from penstock.integrations.lmcache.server_core import ChunkServer
from penstock.integrations.lmcache.server_workers import Layout

CHUNK = 16  # tokens
LAYOUT = Layout((2, 2, CHUNK, 16), "float32", 4096)
CHUNKS = (1 << 20) // LAYOUT.nbytes  # of the whole pool
SHM = Path("/dev/shm")


@dataclasses.dataclass
class Key:
    token_ids: list[int]
    request_id: str = "r"
    model_name: str = "model"
    world_size: int = 1
    worker_id: int | None = 0
    start: int = 0
    end: int = CHUNK
    cache_salt: str = ""


def key_of(seed: int, request: str = "r") -> Key:
    return Key([seed * CHUNK + number for number in range(CHUNK)], request)


# Functions run by peers.


def serve(objects: dict[str, Any], name: str, **options: Any) -> None:
    pool = PoolServer.open(
        name, capacity="1MiB", chunk_tokens=CHUNK, participants=8, persistent=True
    )
    objects["pool"] = pool
    objects["server"] = ChunkServer(pool._store, CHUNK, **options)


def die_at_a_retain(objects: dict[str, Any], name: str) -> None:
    """Die where a server that takes over would retain a slot, or soon after if it has none."""

    def retain(self: penstock.Store, key: bytes) -> bool:
        if bytes(key).startswith(b"lm-slot:"):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, key)

    real = penstock.Store.retain
    penstock.Store.retain = retain  # type: ignore[method-assign, assignment]
    serve(objects, name)
    os.kill(os.getpid(), signal.SIGKILL)


def open_pool(objects: dict[str, Any], link: str) -> None:
    with open(SHM / link, "r+b") as file:
        objects["memory"] = mmap.mmap(file.fileno(), 0)


def fill(objects: dict[str, Any], offset: int, value: int) -> None:
    objects["memory"][offset : offset + LAYOUT.nbytes] = bytes([value]) * LAYOUT.nbytes


def kept(objects: dict[str, Any]) -> int:
    return int(objects["pool"]._store.stats().retained)


# Functions called by tests.

HERE = __name__.rpartition(".")[2]


@pytest.fixture
def server(name: str, peer: Callable[..., Peer]) -> Iterator[Callable[..., Peer]]:
    """Start servers of the pool."""

    def start(**options: Any) -> Peer:
        started = peer()
        started.call("do", f"{HERE}:serve", name, **options)
        return started

    yield start
    (SHM / f"penstock.{name}").unlink(missing_ok=True)
    for link in SHM.glob(f"lmcache_l1_pool_{name}.*"):
        link.unlink()


def register(server: Peer, worker: Peer, instance: int) -> None:
    link, _ = server.call("server.register", instance, "model", 1, LAYOUT)
    worker.call("do", f"{HERE}:open_pool", link)


def prepare(server: Peer, instance: int, key: Key) -> int | None:
    """The offset of the slot, or None if it can't be stored now."""
    slots = server.call("server.prepare_store", key, instance).get("slots")
    return slots[0]["offset"] if slots else None


def store_all_of_a_pool(server: Peer, instance: int) -> list[int]:
    """More chunks than fit; return the offsets of all slots."""
    offsets = []
    for seed in range(1000, 1000 + 2 * CHUNKS):
        key = key_of(seed, f"fill{seed}")
        offset = prepare(server, instance, key)
        if offset is not None:
            offsets.append(offset)
            server.call("server.commit_store", key, instance)
        server.call("server.end_session", key.request_id)
    assert len(offsets) > CHUNKS
    return offsets


def set_aside(server: Peer) -> int:
    return int(server.call("server.status")["set_aside"])


@pytest.mark.full
def test_a_store_in_flight_keeps_its_slot_when_its_request_has_ended(
    server: Callable[..., Peer], peer: Callable[..., Peer]
) -> None:
    serving, worker = server(), peer()
    register(serving, worker, 1)
    before = serving.call("do", f"{HERE}:kept")
    late = key_of(1, "first")
    offset = prepare(serving, 1, late)
    assert offset is not None
    serving.call("server.end_session", "first")  # as schedulers do, without waiting for the store
    same = key_of(1, "second")
    other = prepare(serving, 1, same)
    assert other is not None
    assert other != offset, "the first one still writes there"
    worker.call("do", f"{HERE}:fill", other, 2)
    assert serving.call("server.commit_store", same, 1) is True
    assert offset not in store_all_of_a_pool(serving, 1)
    worker.call("do", f"{HERE}:fill", offset, 66)
    assert serving.call("server.commit_store", late, 1) is False
    assert serving.call("server.prepare_retrieve", key_of(1), 1) is None, "evicted by all those"
    assert serving.call("do", f"{HERE}:kept") == before, "it has committed, and its slot is free"


@pytest.mark.full
def test_a_server_killed_while_it_takes_over_frees_no_slot_of_one_that_lives(
    server: Callable[..., Peer], peer: Callable[..., Peer], name: str
) -> None:
    first, worker = server(), peer()
    register(first, worker, 1)
    offset = prepare(first, 1, key_of(1))
    with worker.stopped():
        first.kill()
        second = peer()
        second.start("do", f"{HERE}:die_at_a_retain", name)
        eventually(lambda: peers.state_of(second.pid) in ("", "Z"))
        third, other = server(), peer()
        assert set_aside(third) == 1
        register(third, other, 2)
        assert offset not in store_all_of_a_pool(third, 2)
    worker.kill()
    eventually(lambda: set_aside(third) == 0)


@pytest.mark.full
def test_slots_of_unseen_workers_are_released_after_their_time_in_the_next_server_too(
    server: Callable[..., Peer],
) -> None:
    first = server()
    first.call("server.register", 1, "model", 1, LAYOUT)  # and it opens no file
    assert prepare(first, 1, key_of(1)) is not None
    first.kill()
    second = server()
    assert set_aside(second) == 1
    second.kill()
    third = server(release_after=0.1)
    eventually(lambda: set_aside(third) == 0)


@pytest.mark.full
def test_slots_of_another_dead_server_of_the_pool_are_found(
    server: Callable[..., Peer], peer: Callable[..., Peer]
) -> None:
    staying, dying, worker = server(), server(), peer()
    register(dying, worker, 1)
    before = staying.call("do", f"{HERE}:kept")
    assert prepare(dying, 1, key_of(1)) is not None
    dying.kill()
    eventually(lambda: set_aside(staying) == 1)
    assert staying.call("do", f"{HERE}:kept") == before + 1
    worker.kill()
    eventually(lambda: staying.call("do", f"{HERE}:kept") == before)
    assert set_aside(staying) == 0


@pytest.mark.full
def test_a_process_with_names_that_are_no_text_hides_no_worker(
    server: Callable[..., Peer], peer: Callable[..., Peer], tmp_path: Path
) -> None:
    odd = os.fsencode(tmp_path) + b"/\xff\xfe"
    script = (
        "import ctypes, mmap, sys\n"
        f"file = open({odd!r}, 'w+b'); file.truncate(4096)\n"
        "memory = mmap.mmap(file.fileno(), 4096)\n"
        "assert ctypes.CDLL(None).prctl(15, b'\\xff\\xfe)', 0, 0, 0) == 0\n"  # PR_SET_NAME
        "print(flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        serving, worker = server(), peer()
        register(serving, worker, 1)
        assert prepare(serving, 1, key_of(1)) is not None
        worker.kill()
        eventually(lambda: serving.call("server.status")["workers"] == 0)
        process.communicate()


@pytest.mark.full
def test_a_server_that_was_stopped_takes_no_worker_for_silent(server: Callable[..., Peer]) -> None:
    serving = server(silence=2.0)
    serving.call("server.register", 1, "model", 1, LAYOUT)  # and is known by its pings alone
    assert serving.call("server.ping", 1) is True
    with serving.stopped():
        time.sleep(4)  # longer than the silence; messages sent meanwhile arrive afterwards
    assert serving.call("server.ping", 1) is True
    assert prepare(serving, 1, key_of(1)) is not None
    eventually(lambda: serving.call("server.status")["workers"] == 0)


def test_a_request_of_any_number_of_ranks_is_answered_at_once(server: Callable[..., Peer]) -> None:
    serving = server()
    serving.call("server.register", 1, "model", 10**9, LAYOUT)
    key = dataclasses.replace(key_of(1), world_size=10**9, worker_id=None)
    serving.call("server.lookup", key)
    assert serving.call("server.found", key.request_id) == 0


def test_gc_gives_the_memory_back_that_a_killed_server_had_named_for_a_worker(name: str) -> None:
    script = """
        import os, signal, sys
        from penstock.integrations.lmcache import PoolServer
        from penstock.integrations.lmcache.server_core import ChunkServer
        from penstock.integrations.lmcache.server_workers import Layout
        pool = PoolServer.open(sys.argv[1], capacity="1MiB", chunk_tokens=16)
        server = ChunkServer(pool._store, 16)
        server.register(1, "model", 1, Layout((2, 2, 16, 16), "float32", 4096))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), name], check=False, timeout=peers.WITHIN
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(list(SHM.glob(f"*{name}*"))) == 2
    subprocess.run(
        [sys.executable, "-m", "penstock.cli.main", "gc", name],
        check=True, stdout=subprocess.DEVNULL, timeout=peers.WITHIN,
    )  # fmt: skip
    assert not list(SHM.glob(f"*{name}*")), "the other name would keep all of its memory"


def _may_unshare() -> bool:
    probe = ["unshare", "--pid", "--fork", "true"]
    try:
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not _may_unshare(), reason="needs unshare(1), and the right to")
def test_with_the_proc_of_an_outer_namespace_no_worker_is_taken_for_another(name: str) -> None:
    # Process numbers are chosen so that each means another process on the other side.
    script = """
        import mmap, os, signal, sys
        from penstock.integrations.lmcache import PoolServer, server_writers

        def fork(number):
            with open("/proc/sys/kernel/ns_last_pid", "w") as last:
                last.write(str(number - 1))
            child = os.fork()
            assert child in (0, number), "another took that number"
            return child

        pool = PoolServer.open(sys.argv[1], capacity="1MiB", chunk_tokens=16)
        link = server_writers.Link(sys.argv[1])
        file = open(f"/dev/shm/{link.name}", "r+b")
        memory = mmap.mmap(file.fileno(), 0)
        sleeper = fork(int(os.readlink("/proc/self")))
        if sleeper == 0:
            signal.pause()
        seen = link.mappers()
        assert not any(server_writers.wait_for_death([one], 0) for one in seen)
        os.kill(sleeper, signal.SIGKILL)
        os.waitpid(sleeper, 0)
        assert all(one.is_alive() for one in seen), "the one that has it mapped lives"
        nobody = next(n for n in range(30000, 40000) if not os.path.exists(f"/proc/{n}"))
        if fork(nobody) == 0:
            link = server_writers.Link(sys.argv[1])
            server_writers.forget_links(sys.argv[1])
            os._exit(0 if os.path.exists(f"/dev/shm/{link.name}") else 1)
        assert os.waitpid(nobody, 0)[1] == 0, "its server lives"
        server_writers.forget_links(sys.argv[1])
        os.system(f"rm /dev/shm/lmcache_l1_pool_{sys.argv[1]}.*")
    """
    inside = run_script(script, name, prefix=("unshare", "--pid", "--fork"))
    assert inside.returncode == 0, inside.stderr
