"""A real `lmcache server` whose L2 is a Penstock store, by its own `--l2-adapter` line: the next
server loads the chunks of a killed one, and live servers share one tier."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from l2_servers import CHUNK, WITHIN, Server, Worker
from peers import eventually
from redis_server import RedisServer, why_no_server

import penstock
from penstock import inspect

TOKENS = list(range(1000, 1000 + 4 * CHUNK))

pytestmark = [pytest.mark.timeout(400), pytest.mark.usefixtures("all_imported")]

in_the_full_tier = pytest.mark.skipif(
    os.environ.get("PENSTOCK_TEST_TIER") != "full", reason="in the full tier"
)


@pytest.fixture
def tier(name: str) -> Iterator[str]:
    yield name
    with contextlib.suppress(penstock.NotFound):
        eventually(lambda: inspect.remove_if_abandoned(name, data=True))


@pytest.fixture(params=["plugin", pytest.param("native_plugin", marks=in_the_full_tier)])
def adapter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def no_pools_left() -> Iterator[None]:
    """Remove LMCache's own pools of servers that were killed."""
    yield
    for pool in Path("/dev/shm").glob("lmcache_l1_pool_l2test*"):
        pool.unlink(missing_ok=True)


def keys_of(tier: str) -> list[str]:
    try:
        with penstock.Store.attach(tier) as store:
            return store.keys()
    except penstock.NotFound:
        return []


def store_chunks(server: Server, tier: str) -> bytes:
    with Worker(server, seed=1) as worker:
        assert worker.store(TOKENS, "store")
        eventually(lambda: len(keys_of(tier)) == 4, within=WITHIN)
        return worker.data(TOKENS)


def load_chunks(server: Server) -> bytes:
    with Worker(server, seed=2) as worker:
        worker.wipe()
        worker.begin_lookup(TOKENS, "load")
        found: list[int] = []

        def is_found() -> bool:
            count = worker.lookup(TOKENS, "load")
            found.extend([] if count is None else [count])
            return bool(found)

        eventually(is_found, within=WITHIN)
        assert found == [4]
        assert worker.retrieve(TOKENS, "load")
        return worker.data(TOKENS)


def test_a_server_that_was_killed_leaves_its_chunks_to_the_next(
    tier: str, adapter: str, tmp_path: Path
) -> None:
    with Server(adapter, tmp_path / "first.log", name=tier) as first:
        stored = store_chunks(first, tier)
        first.kill()
    with Server(adapter, tmp_path / "second.log", name=tier) as second:
        assert load_chunks(second) == stored


def test_two_servers_with_any_adapters_share_one_tier(tier: str, tmp_path: Path) -> None:
    with (
        Server("plugin", tmp_path / "first.log", name=tier) as first,
        Server("native_plugin", tmp_path / "second.log", name=tier) as second,
    ):
        stored = store_chunks(first, tier)
        assert load_chunks(second) == stored


@in_the_full_tier
def test_a_server_ended_while_it_stores_leaves_whole_chunks(
    tier: str, adapter: str, tmp_path: Path
) -> None:
    with Server(adapter, tmp_path / "first.log", name=tier) as first:
        with Worker(first, seed=1) as worker:
            assert worker.store(TOKENS, "store")  # into L1: copies into L2 are under way
            first.end()
            stored = worker.data(TOKENS)
        said = first.log.read_text()
        assert "Application shutdown complete" in said  # its web server raises the signal again
        assert "Traceback" not in said
    found = len(keys_of(tier))
    with (
        Server(adapter, tmp_path / "second.log", name=tier) as second,
        Worker(second, seed=1) as again,
    ):
        assert again.data(TOKENS) == stored
        assert again.store(TOKENS, "store")  # the missing chunks
        eventually(lambda: len(keys_of(tier)) == 4, within=WITHIN)
        second.kill()
    with Server(adapter, tmp_path / "third.log", name=tier) as third:
        assert load_chunks(third) == stored, f"{found} were there"


@in_the_full_tier
def test_a_server_with_impossible_options_ends_with_a_message(
    tier: str, adapter: str, tmp_path: Path
) -> None:
    with Server(adapter, tmp_path / "log", name=tier, populate="yes") as server:
        assert server.wait() != 0
        assert "populate must be true or false, not 'yes'" in server.log.read_text()


@in_the_full_tier
@pytest.mark.skipif(bool(why_no_server), reason=why_no_server)
def test_two_machines_share_a_second_tier(tier: str, adapter: str, tmp_path: Path) -> None:
    """Two stores stand for the machines, with Redis between them."""
    redis = RedisServer(tmp_path)
    other = f"{tier}-other"
    behind = {"url": redis.url, "policy": "write_through"}
    try:
        with Server(adapter, tmp_path / "first.log", name=tier, second_tier=behind) as first:
            stored = store_chunks(first, tier)
        with Server(adapter, tmp_path / "second.log", name=other, second_tier=behind) as second:
            assert load_chunks(second) == stored
    finally:
        redis.kill()
        with contextlib.suppress(penstock.NotFound):
            eventually(lambda: inspect.remove_if_abandoned(other, data=True))
