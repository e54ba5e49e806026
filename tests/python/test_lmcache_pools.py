"""A pool between its servers: a persistent one is taken over with its chunks after the last server
left or died; and its memory is mapped into each process that asks for it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import penstock
from penstock.integrations.lmcache import EngineContext, PoolClient, PoolServer

TOKENS = list(range(512))


@pytest.fixture(autouse=True)
def removed(name: str) -> Iterator[None]:
    yield
    subprocess.run(
        [sys.executable, "-m", "penstock.cli.main", "gc", "--data", name],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, check=False,
    )  # fmt: skip


def context_of(instance_id: str) -> EngineContext:
    return EngineContext.of_one_group(
        instance_id, "model", num_layers=2, token_shape=(2, 8), dtype="float16", block_size=16
    )


def store_chunks(name: str) -> None:
    with PoolClient.attach(name) as client:
        client.register(context_of("writer"))
        ticket = client.prepare_store(TOKENS)
        for group, chunk in ticket.reserved:
            ticket.slot(group, chunk)[...] = 1
        assert ticket.commit().is_complete


def found(name: str) -> int:
    with PoolClient.attach(name) as client:
        client.register(context_of("reader"))
        return client.lookup(TOKENS)


def leave(name: str, persistent: bool) -> None:
    with PoolServer.open(name, capacity="8MiB", persistent=persistent):
        store_chunks(name)


def die(name: str, persistent: bool) -> None:
    """SIGKILL of the only process that used the store."""
    program = f"""
        import os, signal, sys
        sys.path.insert(0, {str(__file__).rpartition("/")[0]!r})
        from test_lmcache_pools import *
        server = PoolServer.open({name!r}, capacity="8MiB", persistent={persistent})
        store_chunks({name!r})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    outcome = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], timeout=60, check=False
    )
    assert outcome.returncode == -9


@pytest.mark.parametrize(
    ("end", "was_persistent"), [(leave, True), (die, True), (die, False)], ids=str
)
def test_a_persistent_server_takes_over_existing_chunks(
    name: str, end: Callable[[str, bool], None], was_persistent: bool
) -> None:
    end(name, was_persistent)
    with PoolServer.open(name, capacity="8MiB", persistent=True) as server:
        assert server.stats().objects >= 2
        assert found(name) == len(TOKENS)
    with PoolServer.open(name, capacity="8MiB", persistent=True):
        assert found(name) == len(TOKENS)  # persistent from now on, however it was created


def test_a_living_pool_stays_once_a_persistent_server_was_there(name: str) -> None:
    first = PoolServer.open(name, capacity="8MiB")
    store_chunks(name)
    PoolServer.open(name, capacity="8MiB", persistent=True).close()
    first.close()
    with PoolServer.open(name, capacity="8MiB"):  # without asking again
        assert found(name) == len(TOKENS)


def test_without_persistent_an_abandoned_pool_is_replaced(name: str) -> None:
    die(name, False)
    with PoolServer.open(name, capacity="8MiB"):
        assert found(name) == 0


def test_an_existing_pool_must_have_the_capacity(name: str) -> None:
    die(name, True)
    with pytest.raises(penstock.Incompatible, match="8388608 bytes, and 16777216"):
        PoolServer.open(name, capacity="16MiB", persistent=True)


def test_a_store_is_made_to_stay(name: str) -> None:
    with penstock.Store.create(name, capacity="1MiB") as store:
        store.put("x", 1)
        assert not store.persistent
        with penstock.Store.attach(name) as other:
            other.persist()
        assert store.persistent
    kept = [one for one in penstock.inspect.list_segments() if one.name == name]
    assert kept[0].kept.persistent
    assert kept[0].kept.objects == 1
    with pytest.raises(penstock.AlreadyExists, match="persistent"):
        penstock.Store.create(name, capacity="1MiB")
    with penstock.Store.attach(name) as store:
        assert store.persistent
        assert store.get_copy("x") == 1


def mapped_kib(name: str) -> dict[str, int]:
    """KiB of the segment in this process's page tables, by the rights of the mapping."""
    kib: dict[str, int] = {}
    rights = ""
    with open("/proc/self/smaps", encoding="utf-8") as maps:
        for line in maps:
            first, *rest = line.split()
            if "-" in first and len(rest) >= 4:
                rights = rest[0] if line.rstrip().endswith(f"penstock.{name}") else ""
            elif rights and first == "Rss:":
                kib[rights] = kib.get(rights, 0) + int(rest[0])
    return kib


@pytest.mark.parametrize("takes_all", [True, False], ids=["populated", "in use"])
def test_populate_maps_the_memory_that_there_is(name: str, takes_all: bool) -> None:
    with penstock.Store.create(name, capacity="32MiB", populate=takes_all) as creator:
        creator.put_bytes("x", bytes(4 << 20))
        before = creator.stats().reserved_bytes
        for how in ("attach", "method"):
            with penstock.Store.attach(name, populate=how == "attach") as store:
                if how == "method":
                    assert mapped_kib(name).get("r--s", 0) < 64
                    store.populate()
                mapped = mapped_kib(name)
                least = (32 << 10) if takes_all else (4 << 10)
                assert mapped["rw-s"] >= least
                assert mapped["r--s"] >= least
                assert store.get_copy("x") == bytes(4 << 20)
        assert creator.stats().reserved_bytes == before  # it reserves no memory


def test_populate_for_tasks(name: str) -> None:
    async def main() -> None:
        store = await penstock.Store.attach_async(name, populate=True)
        assert mapped_kib(name)["rw-s"] >= 32 << 10
        await store.populate_async()
        with pytest.raises(penstock.Timeout):
            await store.populate_async(timeout=0)
        store.close()

    with penstock.Store.create(name, capacity="64MiB", populate=True):
        asyncio.run(main())


def test_populate_times_out_and_fails_on_a_closed_store(name: str) -> None:
    with penstock.Store.create(name, capacity="128MiB", populate=True):
        store = penstock.Store.attach(name)
        with pytest.raises(penstock.Timeout):
            store.populate(timeout=0)
        store.close()
        with pytest.raises(penstock.Closed):
            store.populate()


def test_a_client_populates_when_it_attaches_or_registers(name: str) -> None:
    caches: list[Any] = []
    with PoolServer.open(name, capacity="32MiB", populate=True):
        for at in ("attach", "register", "call"):
            with PoolClient.attach(name, populate=at == "attach") as client:
                client.register(context_of("engine"), caches or None, populate=at == "register")
                if at == "call":
                    client.populate()
                assert mapped_kib(name)["rw-s"] >= 32 << 10
