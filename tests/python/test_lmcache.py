"""The KV pool: gathered blocks are scattered bit for bit, every chunk's status is true, the dead
hold nothing, the living lose nothing, and copies end before their memory is reused.
"""

from __future__ import annotations

import gc
import multiprocessing
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from peers import WITHIN, Peer, eventually, needs_a_mount, with_own_shm

import penstock
from penstock.integrations import lmcache
from penstock.integrations.lmcache import (
    ChunkStatus,
    EngineContext,
    ObjectGroup,
    PoolClient,
    PoolServer,
    StoreTicket,
)

LONG = 30.0
CHUNK = 256
BLOCK = 16
WIDTH = CHUNK // BLOCK  # blocks of a chunk
LAYERS = 3
HEADS, DIM = 2, 8
CHUNK_BYTES = 2 * LAYERS * CHUNK * HEADS * DIM * 2

CACHED, STORED, RESERVED = ChunkStatus.CACHED, ChunkStatus.STORED, ChunkStatus.RESERVED
HIT, MISSING, SKIPPED = ChunkStatus.HIT, ChunkStatus.MISSING, ChunkStatus.SKIPPED
STAGED_BY_OTHER, NO_SPACE = ChunkStatus.STAGED_BY_OTHER, ChunkStatus.NO_SPACE
NOT_REGISTERED = ChunkStatus.NOT_REGISTERED


def context_of(instance_id: str = "engine", **changes: Any) -> EngineContext:
    options: dict[str, Any] = {
        "num_layers": LAYERS,
        "token_shape": (HEADS, DIM),
        "dtype": "float16",
        "block_size": BLOCK,
        **changes,
    }
    return EngineContext.of_one_group(
        instance_id, str(options.pop("model_name", "model")), **options
    )


def tokens_of(chunks: float, seed: int = 0) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 100_000, int(chunks * CHUNK))


def caches_of(blocks: int = 64, seed: int | None = 1, dtype: Any = np.float16) -> list[Any]:
    """A cache for each layer; zeros without a seed."""
    shape = (2, blocks, BLOCK, HEADS, DIM)
    if seed is None:
        return [np.zeros(shape, dtype) for _ in range(LAYERS)]
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape).astype(dtype) for _ in range(LAYERS)]


def blocks_of(chunks: float, seed: int = 2, blocks: int = 64) -> list[int]:
    """Block numbers for so many chunks, in random order."""
    return np.random.default_rng(seed).permutation(blocks)[: int(chunks * WIDTH)].tolist()


@pytest.fixture
def server(name: str) -> Iterator[PoolServer]:
    with PoolServer.open(name, capacity="8MiB") as server:
        yield server


@pytest.fixture
def engine(server: PoolServer) -> Iterator[Callable[..., PoolClient]]:
    """Make registered clients, and close them."""
    clients: list[PoolClient] = []

    def make(
        instance_id: str = "", caches: Sequence[Any] | None = None, **changes: Any
    ) -> PoolClient:
        client = PoolClient.attach(server.name)
        clients.append(client)
        client.register(context_of(instance_id or f"engine-{len(clients)}", **changes), caches)
        return client

    yield make
    for client in clients:
        client.close()


def fill(ticket: StoreTicket, value: float = 1.0) -> None:
    for group, chunk in ticket.reserved:
        ticket.slot(group, chunk)[...] = value


def put(client: PoolClient, tokens: Any, value: float = 1.0, **options: Any) -> Any:
    ticket = client.prepare_store(tokens, **options)
    fill(ticket, value)
    return client.commit_store(ticket)


def nothing_is_held(server: PoolServer, engines: int) -> bool:
    """Except for each registration: its record, and its reservation."""
    gc.collect()
    stats = server.stats()
    return (stats.in_use, stats.staged, stats.doomed) == (engines, engines, 0)


# Round trips


def test_the_contract(server: PoolServer, engine: Callable[..., PoolClient]) -> None:
    source, target = caches_of(), caches_of(seed=None)
    tokens = tokens_of(3.5)
    blocks, others = blocks_of(3.5), blocks_of(3.5, seed=3)
    worker = engine(caches=source)
    assert worker.lookup(tokens) == 0
    stored = worker.store(tokens, blocks)
    assert stored.statuses == ((STORED,) * 3,)
    assert stored.is_complete
    assert worker.store(tokens, blocks).statuses == ((CACHED,) * 3,)
    reader = engine(caches=target)
    assert reader.lookup(tokens) == 3 * CHUNK
    loaded = reader.retrieve(tokens, others)
    assert loaded.tokens == 3 * CHUNK
    assert loaded.statuses == ((HIT,) * 3,)
    whole = 3 * WIDTH
    untouched = sorted(set(range(64)) - set(others[:whole]))
    for before, after in zip(source, target, strict=True):
        assert (after[:, others[:whole]] == before[:, blocks[:whole]]).all()
        assert not after[:, untouched].any()
    assert nothing_is_held(server, 2)


def test_two_phases_by_hand(engine: Callable[..., PoolClient]) -> None:
    worker = engine()
    tokens = tokens_of(2)
    ticket = worker.prepare_store(tokens)
    assert ticket.statuses == ((RESERVED, RESERVED),)
    slot = ticket.slot(0, 1)
    assert slot.shape == (2, LAYERS, CHUNK, HEADS * DIM)
    assert not slot.flags.owndata
    assert worker.lookup(tokens) == 0  # invisible before the commit
    ticket.slot(0, 0)[...] = 1
    slot[...] = 2
    assert worker.commit_store(ticket).statuses == ((STORED, STORED),)
    with pytest.raises(ValueError, match="read-only"):
        slot[...] = 3
    reading = worker.prepare_retrieve(tokens)
    assert reading.tokens == 2 * CHUNK
    assert (reading.slot(0, 0) == 1).all()
    assert (reading.slot(0, 1) == 2).all()
    assert not reading.slot(0, 1).flags.writeable
    assert worker.commit_retrieve(reading)
    assert not worker.commit_retrieve(reading)
    with pytest.raises(penstock.Expired):
        reading.slot(0, 0)


def bits_of(array: Any) -> npt.NDArray[np.uint8]:
    if isinstance(array, np.ndarray):
        return np.ascontiguousarray(array).view(np.uint8)
    import torch

    plain: npt.NDArray[np.uint8] = array.cpu().contiguous().view(torch.uint8).numpy()
    return plain


def random_cache(shape: tuple[int, ...], dtype: str, use_torch: bool, seed: int) -> Any:
    """Random bits, NaNs of every kind included."""
    width = lmcache.layout.ITEM_BYTES[dtype]
    raw = np.random.default_rng(seed).integers(0, 256, (*shape[:-1], shape[-1] * width), np.uint8)
    if use_torch:
        torch = pytest.importorskip("torch")
        return torch.from_numpy(raw).view(getattr(torch, dtype))
    return raw.view(penstock._core.dtype_named(dtype))


FORMATS: dict[str, tuple[int, ...]] = {
    "kv_blocks": (2, 40, BLOCK, HEADS, DIM),
    "blocks_kv": (40, 2, BLOCK, HEADS, DIM),
    "split": (40, BLOCK, HEADS, DIM),
    "mla": (40, BLOCK, 72),
}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn", "float32", "uint8"])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("use_torch", [False, True], ids=["numpy", "torch"])
def test_bit_for_bit(
    engine: Callable[..., PoolClient], format: str, dtype: str, use_torch: bool
) -> None:
    if not use_torch and dtype in ("bfloat16", "float8_e4m3fn"):
        pytest.importorskip("ml_dtypes")
    shape = FORMATS[format]

    def make(seed: int) -> list[Any]:
        if format != "split":
            return [random_cache(shape, dtype, use_torch, seed + n) for n in range(LAYERS)]
        return [
            tuple(random_cache(shape, dtype, use_torch, seed + 9 * n + k) for k in range(2))
            for n in range(LAYERS)
        ]

    changes = {"dtype": dtype, "token_shape": shape[-1:] if format == "mla" else (HEADS, DIM)}
    changes["use_mla"] = format == "mla"
    source, target = make(1), make(100)
    tokens = tokens_of(2)
    blocks, others = blocks_of(2, blocks=40), blocks_of(2, seed=5, blocks=40)
    assert engine(caches=source, **changes).store(tokens, blocks).is_complete
    assert engine(caches=target, **changes).retrieve(tokens, others).tokens == 2 * CHUNK

    def rows(layer: Any, ids: list[int]) -> list[npt.NDArray[np.uint8]]:
        if format == "split":
            return [bits_of(plane[ids]) for plane in layer]
        if format == "mla":
            return [bits_of(layer[ids])]
        planes = [layer[k] if format == "kv_blocks" else layer[:, k] for k in range(2)]
        return [bits_of(plane[ids]) for plane in planes]

    for before, after in zip(source, target, strict=True):
        for one, other in zip(rows(before, blocks), rows(after, others), strict=True):
            assert (one == other).all()


def test_engines_with_other_blocks_and_arrays_share(engine: Callable[..., PoolClient]) -> None:
    torch = pytest.importorskip("torch")
    source = caches_of()
    target = [torch.zeros(2, 32, 64, HEADS, DIM, dtype=torch.float16) for _ in range(LAYERS)]
    tokens = tokens_of(2)
    blocks = blocks_of(2)
    assert engine(caches=source).store(tokens, blocks).is_complete
    reader = engine(caches=target, block_size=64)
    assert reader.retrieve(tokens, [7, 3, 1, 0, 30, 31, 2, 9]).tokens == 2 * CHUNK
    for before, after in zip(source, target, strict=True):
        expected = before[:, blocks].reshape(2, 2 * CHUNK, HEADS, DIM)
        found = after[:, [7, 3, 1, 0, 30, 31, 2, 9]].reshape(2, 2 * CHUNK, HEADS, DIM)
        assert (found.numpy() == expected).all()


@pytest.mark.parametrize("skip", [0, 1, BLOCK, BLOCK + 5, CHUNK - 1, CHUNK, CHUNK + 37, 3 * CHUNK])
def test_the_first_tokens_are_skipped_to_the_token(
    engine: Callable[..., PoolClient], skip: int
) -> None:
    source, target = caches_of(), caches_of(seed=None)
    tokens, blocks = tokens_of(3), blocks_of(3)
    assert engine(caches=source).store(tokens, blocks).is_complete
    loaded = engine(caches=target).retrieve(tokens, blocks, skip_first_n_tokens=skip)
    assert loaded.tokens == 3 * CHUNK
    assert loaded.count(SKIPPED) == skip // CHUNK
    for before, after in zip(source, target, strict=True):
        flat = (2, 3 * CHUNK, HEADS, DIM)
        one, other = before[:, blocks].reshape(flat), after[:, blocks].reshape(flat)
        assert (one[:, skip:] == other[:, skip:]).all()
        assert not other[:, :skip].any()


def test_skipped_chunks_are_neither_stored_nor_needed(engine: Callable[..., PoolClient]) -> None:
    worker = engine()
    tokens = tokens_of(3)
    result = put(worker, tokens, skip_first_n_tokens=CHUNK + 1)
    assert result.statuses == ((SKIPPED, STORED, STORED),)
    assert worker.lookup(tokens) == 0
    with worker.prepare_retrieve(tokens, skip_first_n_tokens=CHUNK) as ticket:
        assert ticket.tokens == 3 * CHUNK
        assert ticket.statuses == ((SKIPPED, HIT, HIT),)


# Keys and prefixes


def test_the_prefix_is_exact(engine: Callable[..., PoolClient]) -> None:
    worker = engine()
    tokens = tokens_of(4)
    put(worker, tokens[: 2 * CHUNK + 100])
    for length, found in [
        (0, 0),
        (CHUNK - 1, 0),
        (CHUNK, CHUNK),
        (2 * CHUNK - 1, CHUNK),
        (2 * CHUNK, 2 * CHUNK),
        (4 * CHUNK, 2 * CHUNK),
    ]:
        assert worker.lookup(tokens[:length]) == found
    for changed, found in [(0, 0), (CHUNK - 1, 0), (CHUNK, CHUNK), (2 * CHUNK, 2 * CHUNK)]:
        other = tokens.copy()
        other[changed] += 1
        assert worker.lookup(other) == found
    assert worker.lookup(tokens.astype(np.int32).tolist()) == 2 * CHUNK
    swapped = np.concatenate([tokens[CHUNK : 2 * CHUNK], tokens[:CHUNK]])
    assert worker.lookup(swapped) == 0  # the second chunk's tokens without their prefix


def test_a_gap_ends_the_prefix(server: PoolServer, engine: Callable[..., PoolClient]) -> None:
    worker = engine()
    tokens = tokens_of(3)
    put(worker, tokens)
    key = (
        context_of()
        .namespace(context_of().groups[0], "")
        .keys(lmcache.chunk_hashes(tokens, CHUNK))[1]
    )
    with penstock.Store.attach(server.name) as store:
        assert len(key) <= 40
        assert store.delete(key)
    assert worker.lookup(tokens) == CHUNK
    with worker.prepare_retrieve(tokens) as ticket:
        assert ticket.statuses == ((HIT, MISSING, MISSING),)
        assert ticket.hits == [(0, 0)]
    assert put(worker, tokens).statuses == ((CACHED, STORED, CACHED),)
    assert worker.lookup(tokens) == 3 * CHUNK


@pytest.mark.parametrize(
    "other",
    [
        {"model_name": "model2"},
        {"world_size": 2},
        {"world_size": 2, "kv_rank": 1},
        {"dtype": "bfloat16"},
        {"token_shape": (DIM, HEADS)},
        {"use_mla": True},
    ],
    ids=str,
)
def test_other_models_ranks_and_layouts_share_nothing(
    engine: Callable[..., PoolClient], other: dict[str, Any]
) -> None:
    tokens = tokens_of(2)
    put(engine(), tokens)
    assert engine(**other).lookup(tokens) == 0


def test_salts_keep_tenants_apart(engine: Callable[..., PoolClient]) -> None:
    worker = engine()
    tokens = tokens_of(1)
    assert put(worker, tokens, 1, cache_salt="a").is_complete
    assert worker.lookup(tokens) == 0
    assert worker.lookup(tokens, cache_salt="b") == 0
    assert put(worker, tokens, 2, cache_salt="b").statuses == ((STORED,),)
    for salt, value in [("a", 1), ("b", 2)]:
        with worker.prepare_retrieve(tokens, cache_salt=salt) as ticket:
            assert (ticket.slot(0, 0) == value).all()


def test_no_two_namespaces_run_together() -> None:
    fields = [
        ("m", 1, 0, 0, "", "l"),
        ("m1", 1, 0, 0, "", "l"),
        ("m", 11, 0, 0, "", "l"),
        ("m", 1, 10, 0, "", "l"),
        ("m", 1, 1, 0, "", "l"),
        ("m", 1, 0, 1, "", "l"),
        ("m", 1, 0, 0, "l", ""),
        ("m", 1, 0, 0, "l", "l"),
        ("", 1, 0, 0, "m", "l"),
        ("m", 1, 0, 0, "0", "l"),
        ("m\0", 1, 0, 0, "", "l"),
        ("m", 1, 0, 0, "\0", "l"),
        ("m", 1, 0, 0, "@/\\", "l"),
    ]
    hashes = lmcache.chunk_hashes(range(10 * CHUNK), CHUNK)
    assert len(hashes) == 10
    keys = {key for one in fields for key in lmcache.Namespace(*one).keys(hashes)}
    assert len(keys) == len(fields) * 10
    assert lmcache.chunk_hashes(range(512), 512) != lmcache.chunk_hashes(range(512), 256)[1:]


@pytest.mark.parametrize("tokens", [[1.5], [[1, 2]], ["a"], np.zeros((2, 2), int), [2**63]])
def test_invalid_tokens_are_refused(engine: Callable[..., PoolClient], tokens: Any) -> None:
    with pytest.raises(penstock.InvalidArgument, match="tokens"):
        engine().lookup(tokens)


def test_all_ranks_of_a_model(server: PoolServer, engine: Callable[..., PoolClient]) -> None:
    ranks = [engine(world_size=2, kv_rank=rank) for rank in range(2)]
    tokens = tokens_of(3)
    put(ranks[0], tokens, 1)
    put(ranks[1], tokens[: 2 * CHUNK], 2)
    assert ranks[0].lookup(tokens) == 3 * CHUNK
    assert ranks[0].lookup(tokens, every_rank=True) == 2 * CHUNK
    with ranks[0].hold(tokens, every_rank=True) as held:
        assert held.tokens == 2 * CHUNK
        assert (held.slot(1, 1) == 2).all()
        assert server.stats().in_use == 2 + 4
    assert nothing_is_held(server, 2)


# Object groups


def hybrid(instance_id: str = "hybrid", window: int | None = 1) -> EngineContext:
    return EngineContext(
        instance_id,
        "hybrid",
        world_size=1,
        kv_rank=0,
        num_layers=3,
        groups=(
            ObjectGroup(0, (0, 2), (HEADS, DIM), "float16", BLOCK),
            ObjectGroup(1, (1,), (DIM,), "float32", 32, planes=1, num_chunks_in_sw=window),
        ),
    )


def hybrid_caches(seed: int | None) -> list[Any]:
    full, one = (2, 64, BLOCK, HEADS, DIM), (32, 32, DIM)
    if seed is None:
        return [np.zeros(full, "f2"), np.zeros(one, "f4"), np.zeros(full, "f2")]
    random = np.random.default_rng(seed)
    shapes = [(full, "f2"), (one, "f4"), (full, "f2")]
    return [random.standard_normal(shape).astype(dtype) for shape, dtype in shapes]


@pytest.fixture
def mixed(engine: Callable[..., PoolClient], server: PoolServer) -> Iterator[Any]:
    clients: list[PoolClient] = []

    def make(caches: list[Any] | None = None, window: int | None = 1) -> PoolClient:
        client = PoolClient.attach(server.name)
        clients.append(client)
        client.register(hybrid(f"hybrid-{len(clients)}", window), caches)
        return client

    yield make
    for client in clients:
        client.close()


def test_groups_have_their_own_shape_and_dtype(mixed: Any) -> None:
    source, target = hybrid_caches(1), hybrid_caches(None)
    tokens = tokens_of(3)
    tables = [blocks_of(3), list(range(31, 7, -1))]
    assert mixed(source).store(tokens, tables).statuses == ((STORED,) * 3, (STORED,) * 3)
    loaded = mixed(target).retrieve(tokens, tables)
    assert loaded.tokens == 3 * CHUNK
    assert loaded.statuses == ((HIT,) * 3, (SKIPPED, SKIPPED, HIT))  # a window of one chunk
    for layer in (0, 2):
        assert (target[layer][:, tables[0]] == source[layer][:, tables[0]]).all()
    window = tables[1][16:]
    assert (target[1][window] == source[1][window]).all()
    assert not target[1][tables[1][:16]].any()


def test_groups_keep_apart_and_all_must_be_there(mixed: Any) -> None:
    worker = mixed()
    tokens = tokens_of(2)
    ticket = worker.prepare_store(tokens)
    ticket.slot(0, 0)[...] = 1
    assert ticket.slot(0, 0).dtype != ticket.slot(1, 0).dtype
    last = ticket._plan.keys[1][1]
    assert worker.commit_store(ticket).statuses == ((STORED, STORED), (STORED, STORED))
    worker._store.delete(last)
    assert worker.lookup(tokens) == CHUNK  # the window of the longer prefix has a gap
    assert put(worker, tokens).statuses == ((CACHED, CACHED), (CACHED, STORED))
    assert worker.lookup(tokens) == 2 * CHUNK


def test_a_window_needs_no_more_than_its_last_chunks(mixed: Any) -> None:
    worker = mixed(window=2)
    tokens = tokens_of(5)
    gone = list(range(40))
    gone[: 3 * 8] = [-1] * (3 * 8)
    tables = [list(range(5 * WIDTH)), gone]
    ticket = worker.prepare_store(tokens, blocks=tables)
    assert ticket.statuses == ((RESERVED,) * 5, (SKIPPED,) * 3 + (RESERVED,) * 2)
    fill(ticket)
    assert ticket.commit().is_complete
    assert worker.lookup(tokens) == 5 * CHUNK
    assert worker.lookup(tokens[: 4 * CHUNK]) == 0  # the first chunk of its window is missing
    with worker.prepare_retrieve(tokens) as reading:
        assert reading.statuses == ((HIT,) * 5, (SKIPPED,) * 3 + (HIT,) * 2)


def test_a_full_group_can_do_without_no_block(mixed: Any) -> None:
    source = hybrid_caches(1)
    with pytest.raises(penstock.InvalidArgument, match="chunk 1 of object group 0"):
        mixed(source).store(tokens_of(2), [[*range(WIDTH), *[-1] * WIDTH], list(range(16))])


# Lack of room


def test_no_room_is_no_success(name: str) -> None:
    with (
        PoolServer.open(name, capacity="256KiB", eviction="none") as server,
        PoolClient.attach(name) as worker,
    ):
        worker.register(context_of())
        tokens = tokens_of(20)
        result = put(worker, tokens)
        stored = result.count(STORED)
        assert 0 < stored < 20
        assert result.statuses == ((STORED,) * stored + (NO_SPACE,) * (20 - stored),)
        assert not result.is_complete
        assert worker.lookup(tokens) == stored * CHUNK  # as far as there was room
        again = worker.prepare_store(tokens_of(2, seed=9))
        assert again.statuses == ((NO_SPACE, NO_SPACE),)
        assert again.reserved == []
        assert not again.commit().is_complete
        assert nothing_is_held(server, 1)


@pytest.mark.parametrize("eviction", ["sieve", "fifo", "lru"])
def test_a_request_never_evicts_its_own_beginning(name: str, eviction: Any) -> None:
    with (
        PoolServer.open(name, capacity="256KiB", eviction=eviction),
        PoolClient.attach(name) as worker,
    ):
        worker.register(context_of())
        tokens = tokens_of(20)
        put(worker, tokens[: 2 * CHUNK])
        for seed in range(20, 22):
            put(worker, tokens_of(1, seed=seed))
        result = put(worker, tokens)
        assert result.count(CACHED) == 2
        there = result.count(CACHED) + result.count(STORED)
        assert 0 < there < 20
        assert result.count(NO_SPACE) == 20 - there
        assert worker.lookup(tokens) == there * CHUNK
        old = put(worker, tokens_of(4, seed=99))  # the oldest are evicted
        assert old.is_complete


def test_a_request_that_can_never_fit_is_refused(name: str) -> None:
    with PoolServer.open(name, capacity="64KiB"), PoolClient.attach(name) as worker:
        worker.register(context_of(num_layers=64))
        result = put(worker, tokens_of(2))
        assert result.statuses == ((ChunkStatus.TOO_LARGE,) * 2,)
        assert worker.lookup(tokens_of(2)) == 0


def test_a_group_without_room_takes_nothing_from_the_others(name: str) -> None:
    with (
        PoolServer.open(name, capacity="128KiB", eviction="none") as server,
        PoolClient.attach(name) as worker,
    ):
        groups = (
            ObjectGroup(0, (0,), (DIM,), "float16", BLOCK),
            ObjectGroup(1, (1,), (64, DIM), "float32", BLOCK),
        )
        worker.register(EngineContext("engine", "model", 1, 0, 2, groups))
        ticket = worker.prepare_store(tokens_of(2))
        assert ticket.statuses == ((ChunkStatus.TOO_LARGE,) * 2,) * 2
        assert server.stats().staged == 1  # the registration's
        ticket.abort()


# Two phases, and how they end


def test_an_abort_leaves_nothing(server: PoolServer, engine: Callable[..., PoolClient]) -> None:
    worker = engine()
    tokens = tokens_of(3)
    ticket = worker.prepare_store(tokens)
    fill(ticket)
    assert worker.abort_store(ticket)
    assert not worker.abort_store(ticket)
    assert worker.commit_store(ticket).statuses == ((ChunkStatus.ABORTED,) * 3,)
    assert worker.lookup(tokens) == 0
    assert put(worker, tokens).is_complete  # nothing is locked
    assert nothing_is_held(server, 1)


def test_a_ticket_that_is_forgotten_leaves_nothing(
    server: PoolServer, engine: Callable[..., PoolClient]
) -> None:
    worker = engine()
    put(worker, tokens_of(1, seed=1))
    worker.prepare_store(tokens_of(3))
    worker.prepare_retrieve(tokens_of(1, seed=1))
    assert nothing_is_held(server, 1)


def test_chunks_that_were_cached_reserve_nothing(
    server: PoolServer, engine: Callable[..., PoolClient]
) -> None:
    worker = engine()
    tokens = tokens_of(3)
    put(worker, tokens)
    ticket = worker.prepare_store(tokens)
    assert ticket.statuses == ((CACHED,) * 3,)
    assert ticket.reserved == []
    assert server.stats().staged == 1
    assert ticket.commit().is_complete
    assert nothing_is_held(server, 1)


def test_a_commit_that_failed_says_so(
    server: PoolServer, engine: Callable[..., PoolClient]
) -> None:
    slow, quick = engine(), engine()
    tokens = tokens_of(2)
    late = slow.prepare_store(tokens, expires_after=0)
    fill(late, 1)
    assert put(quick, tokens, 2).statuses == ((STORED, STORED),)
    late.slot(0, 0)[...] = 5  # the memory is still the writer's: it stays invisible
    result = slow.commit_store(late)
    assert result.statuses == ((ChunkStatus.EXPIRED,) * 2,)
    assert not result.is_complete
    with quick.prepare_retrieve(tokens) as ticket:
        assert (ticket.slot(0, 0) == 2).all()
    assert nothing_is_held(server, 2)


def test_a_commit_after_the_pool_was_cleared(
    server: PoolServer, engine: Callable[..., PoolClient]
) -> None:
    worker = engine()
    ticket = worker.prepare_store(tokens_of(2))
    with penstock.Store.attach(server.name) as store:
        store.clear()
    assert worker.commit_store(ticket).statuses == ((NOT_REGISTERED,) * 2,)


def test_the_server_clears_chunks_and_nothing_else(
    server: PoolServer, engine: Callable[..., PoolClient]
) -> None:
    worker = engine()
    tokens = tokens_of(2)
    put(worker, tokens)
    with worker.prepare_retrieve(tokens) as ticket:
        assert server.clear() == 2
        assert (ticket.slot(0, 1) == 1).all()  # readers continue
    assert worker.is_registered
    assert put(worker, tokens).statuses == ((STORED, STORED),)


def test_a_slot_that_is_held_is_committed_and_cut_off(
    server: PoolServer, engine: Callable[..., PoolClient]
) -> None:
    worker = engine()
    ticket = worker.prepare_store(tokens_of(2))
    fill(ticket)
    kept = ticket.slot(0, 1)[0, 0]
    with pytest.warns(ResourceWarning, match="outlives its commit"):
        assert ticket.commit().statuses == ((STORED, STORED),)
    kept[...] = 99
    with worker.prepare_retrieve(tokens_of(2)) as held:
        assert (held.slot(0, 1) == 1).all()
    del kept
    assert nothing_is_held(server, 1)


def test_two_retrieves_of_one_prefix_have_leases_of_their_own(
    server: PoolServer, engine: Callable[..., PoolClient]
) -> None:
    worker = engine()
    tokens = tokens_of(2)
    put(worker, tokens, 7)
    first, second = worker.prepare_retrieve(tokens), worker.prepare_retrieve(tokens)
    assert worker.commit_retrieve(first)
    assert not worker.commit_retrieve(first)  # the second commit releases no other lease
    server.clear()
    assert (second.slot(0, 1) == 7).all()
    assert server.stats().doomed == 2
    assert worker.commit_retrieve(second)
    assert nothing_is_held(server, 1)


def test_chunks_being_read_are_never_evicted(name: str) -> None:
    with PoolServer.open(name, capacity="256KiB"), PoolClient.attach(name) as worker:
        worker.register(context_of())
        tokens = tokens_of(2)
        put(worker, tokens, 3)
        with worker.prepare_retrieve(tokens) as ticket:
            for seed in range(50, 100):
                put(worker, tokens_of(1, seed=seed))
            assert worker.lookup(tokens) == 2 * CHUNK
            assert (ticket.slot(0, 0) == 3).all()


def test_a_hold_bridges_lookup_and_retrieve(name: str) -> None:
    """A hit that was promised to a queued request stays one."""
    with PoolServer.open(name, capacity="256KiB") as server, PoolClient.attach(name) as worker:
        worker.register(context_of())
        tokens = tokens_of(2)
        put(worker, tokens, 3, cache_salt="tenant")
        held = worker.hold(tokens, cache_salt="tenant")
        for seed in range(50, 100):
            put(worker, tokens_of(1, seed=seed))
        with worker.prepare_retrieve(tokens, cache_salt="tenant") as ticket:
            assert ticket.tokens == held.tokens == 2 * CHUNK
        held.commit()
        assert nothing_is_held(server, 1)


# Copies and their order


class Recording(lmcache.PagedKV):
    """Records the order of events; raises where it is told to."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.notes: list[str] = []
        self.fails_at = ""

    def note(self, what: str) -> None:
        self.notes.append(what)
        if what == self.fails_at:
            raise RuntimeError(f"{what} fails on purpose")

    def gather(self, *arguments: Any) -> None:
        self.note("gather")
        super().gather(*arguments)

    def scatter(self, *arguments: Any) -> None:
        self.note("scatter")
        super().scatter(*arguments)

    def synchronize(self) -> None:
        self.note("synchronize")


@pytest.fixture
def recorded(
    server: PoolServer, engine: Callable[..., PoolClient], monkeypatch: pytest.MonkeyPatch
) -> tuple[PoolClient, Recording]:
    worker = engine()
    kv = Recording(context_of("engine-1"), caches_of())
    worker._kv = kv

    def noting(kind: type[Any], method: str) -> None:
        real = getattr(kind, method)

        def wrapped(ticket: Any) -> Any:
            if ticket._result is None if kind is StoreTicket else ticket.is_open:
                kv.notes.append(method)
            return real(ticket)

        monkeypatch.setattr(kind, method, wrapped)

    noting(StoreTicket, "commit")
    noting(StoreTicket, "abort")
    noting(lmcache.RetrieveTicket, "commit")
    return worker, kv


def test_the_device_is_done_before_slots_change_hands(
    recorded: tuple[PoolClient, Recording],
) -> None:
    worker, kv = recorded
    tokens, blocks = tokens_of(2), blocks_of(2)
    assert worker.store(tokens, blocks).is_complete
    assert kv.notes == ["gather", "gather", "synchronize", "commit"]
    kv.notes.clear()
    assert worker.retrieve(tokens, blocks).tokens == 2 * CHUNK
    assert kv.notes == ["scatter", "scatter", "synchronize", "commit"]


def test_a_gather_that_fails_aborts_after_the_device(
    server: PoolServer, recorded: tuple[PoolClient, Recording]
) -> None:
    worker, kv = recorded
    kv.fails_at = "gather"
    with pytest.raises(RuntimeError, match="on purpose"):
        worker.store(tokens_of(2), blocks_of(2))
    assert kv.notes == ["gather", "synchronize", "abort"]
    assert worker.lookup(tokens_of(2)) == 0
    assert nothing_is_held(server, 1)


@pytest.mark.parametrize("fails_at", ["scatter", "synchronize"])
def test_slots_are_released_also_after_an_error(
    server: PoolServer, recorded: tuple[PoolClient, Recording], fails_at: str
) -> None:
    worker, kv = recorded
    put(worker, tokens_of(2))
    kv.notes.clear()
    kv.fails_at = fails_at
    with pytest.raises(RuntimeError, match="on purpose"):
        worker.retrieve(tokens_of(2), blocks_of(2))
    assert kv.notes[-2:] == ["synchronize", "commit"]
    assert nothing_is_held(server, 1)


@pytest.mark.parametrize(
    ("blocks", "problem"),
    [([*range(WIDTH - 1), 64], "block 64"), (list(range(WIDTH - 1)), "has not all its blocks")],
)
def test_blocks_that_are_not_there(
    engine: Callable[..., PoolClient], blocks: list[int], problem: str
) -> None:
    worker = engine(caches=caches_of())
    with pytest.raises(penstock.InvalidArgument, match=problem):
        worker.store(tokens_of(1), blocks)
    with pytest.raises(penstock.InvalidArgument, match=problem):
        worker.retrieve(tokens_of(1), blocks)


# Registration


def test_registering_again_changes_nothing(
    server: PoolServer, engine: Callable[..., PoolClient]
) -> None:
    worker = engine("e")
    worker.register(context_of("e"))
    assert server.registrations() == [context_of("e")]
    with pytest.raises(penstock.AlreadyExists, match="another context"):
        worker.register(context_of("e", num_layers=9))
    with pytest.raises(penstock.AlreadyExists, match="alive"):
        engine("e")
    assert worker.unregister()
    assert not worker.unregister()
    assert server.registrations() == []
    worker.register(context_of("e", num_layers=9))
    assert server.registrations()[0].num_layers == 9


def test_an_unregistered_client_is_refused_at_once(server: PoolServer) -> None:
    with PoolClient.attach(server.name) as client:
        tokens = tokens_of(2)
        refused = ((NOT_REGISTERED,) * 2,)
        assert client.prepare_store(tokens).statuses == refused
        assert client.prepare_store(tokens).commit().statuses == refused
        assert not client.prepare_store(tokens).commit().is_complete
        assert client.prepare_retrieve(tokens).statuses == refused
        assert client.store(tokens, blocks_of(2)).statuses == refused
        assert client.retrieve(tokens, blocks_of(2)).tokens == 0
        assert client.hold(tokens).statuses == refused
        with pytest.raises(penstock.NotFound, match="registered"):
            client.lookup(tokens)


def test_an_engine_unregistered_by_the_server_learns_it(
    server: PoolServer, engine: Callable[..., PoolClient]
) -> None:
    worker = engine("e", caches=caches_of())
    tokens = tokens_of(2)
    put(worker, tokens[:CHUNK])
    open_ticket = worker.prepare_store(tokens)
    reading = worker.prepare_retrieve(tokens)
    assert server.unregister("e")
    assert not server.unregister("e")
    assert worker.commit_store(open_ticket).statuses == ((CACHED, NOT_REGISTERED),)
    assert not reading.is_open
    assert not worker.is_registered
    assert worker.store(tokens, blocks_of(2)).statuses == ((NOT_REGISTERED,) * 2,)
    assert nothing_is_held(server, 0)
    worker.register(context_of("e"), caches_of())
    assert worker.store(tokens, blocks_of(2)).statuses == ((CACHED, STORED),)


GROUP = ObjectGroup(0, (0, 1), (2, 8), "float16", 16)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: context_of(block_size=24), "whole number of blocks"),
        (lambda: context_of(dtype="object"), "dtype"),
        (lambda: context_of(dtype="int64"), "dtype"),
        (lambda: context_of(world_size=2, kv_rank=2), "kv_rank"),
        (lambda: context_of(world_size=0), "world_size"),
        (lambda: context_of(model_name=""), "model_name"),
        (lambda: context_of(instance_id="x" * 129), "instance_id"),
        (lambda: context_of(num_layers=0), "layers"),
        (lambda: context_of(token_shape=()), "sizes"),
        (lambda: context_of(block_size=0), "sizes"),
        (lambda: EngineContext("e", "m", 1, 0, 3, (GROUP,)), "has 3, each once"),
        (lambda: EngineContext("e", "m", 1, 0, 2, (GROUP, GROUP)), "numbered"),
        (lambda: EngineContext("e", "m", 1, 0, 2, ()), "no object groups"),
        (lambda: ObjectGroup(0, (0,), (8,), "float16", 16, planes=3), "planes"),
        (lambda: ObjectGroup(0, (0,), (8,), "float16", 16, num_chunks_in_sw=0), "window"),
        (lambda: ObjectGroup(0, (0,), (8,), "float16", 16, num_chunks_in_sw=-1), "sizes"),
    ],
)
def test_contexts_that_contradict_themselves(make: Callable[[], Any], problem: str) -> None:
    with pytest.raises(penstock.InvalidArgument, match=problem):
        make()


def test_a_record_is_rebuilt_and_compared() -> None:
    record = hybrid().to_record()
    assert EngineContext.from_record(record) == hybrid()
    record["groups"][1]["slot_shape"][1] += 1
    with pytest.raises(penstock.InvalidArgument, match="slots"):
        EngineContext.from_record(record)


@pytest.mark.parametrize(
    ("caches", "problem"),
    [
        (caches_of()[:2], "2 KV tensors"),
        (caches_of(dtype=np.float32), "float32"),
        ([np.zeros((2, 64, BLOCK, HEADS, 9), "f2")] * LAYERS, "layer 0"),
        ([np.zeros((3, 64, BLOCK, HEADS, DIM), "f2")] * LAYERS, "say which"),
        ([np.zeros((2, 2, BLOCK, HEADS, DIM), "f2")] * LAYERS, "say which"),
    ],
)
def test_caches_that_are_not_as_the_context_says(
    engine: Callable[..., PoolClient], caches: list[Any], problem: str
) -> None:
    with pytest.raises(penstock.InvalidArgument, match=problem):
        engine(caches=caches)


@pytest.mark.parametrize(("use_mla", "format"), [(False, "mla"), (True, "split")])
def test_a_format_with_other_planes_than_the_context(
    server: PoolServer, use_mla: bool, format: Any
) -> None:
    plane = np.zeros((8, BLOCK, HEADS, DIM), "f2")
    caches = [plane if format == "mla" else (plane, plane)] * LAYERS
    with (
        PoolClient.attach(server.name) as client,
        pytest.raises(penstock.InvalidArgument, match="planes"),
    ):
        client.register(context_of(use_mla=use_mla), caches, format=format)


def test_a_cache_on_two_devices_is_refused(server: PoolServer) -> None:
    torch = pytest.importorskip("torch")
    shape = (2, 8, BLOCK, HEADS, DIM)
    places = ["cpu", "meta", "cpu"]
    caches = [torch.zeros(shape, dtype=torch.float16, device=place) for place in places]
    with (
        PoolClient.attach(server.name) as client,
        pytest.raises(penstock.InvalidArgument, match="one device"),
    ):
        client.register(context_of(), caches)


def test_a_format_that_shapes_leave_open_can_be_said(server: PoolServer) -> None:
    with PoolClient.attach(server.name) as client:
        caches = [np.zeros((2, 2, BLOCK, HEADS, DIM), "f2")] * LAYERS
        client.register(context_of(), caches, format="blocks_kv")


# The pool and its server


def test_a_server_that_comes_again_finds_the_pool_alive(
    name: str, peer: Callable[..., Peer]
) -> None:
    other = peer("spawn")
    other.call("do", "lmcache_peer:serve", name, capacity="8MiB")
    with PoolClient.attach(name) as worker:
        worker.register(context_of("e"))
        tokens = tokens_of(2)
        put(worker, tokens, 4)
        reading = worker.prepare_retrieve(tokens)
        other.kill()
        assert put(worker, tokens_of(1, seed=5)).is_complete  # without a server
        with PoolServer.open(name, capacity="8MiB") as server:
            assert server.registrations() == [context_of("e")]
            assert worker.lookup(tokens) == 2 * CHUNK
            assert (reading.slot(0, 0) == 4).all()
            assert put(worker, tokens_of(1, seed=6)).is_complete
        with pytest.raises(penstock.Incompatible, match="capacity"):
            PoolServer.open(name, capacity="9MiB")
        with pytest.raises(penstock.Incompatible, match="chunk_tokens"):
            PoolServer.open(name, capacity="8MiB", chunk_tokens=128)
        assert worker.lookup(tokens) == 2 * CHUNK


def test_a_server_that_was_killed_leaves_nothing_that_grows(
    name: str, peer: Callable[..., Peer]
) -> None:
    for number in (signal.SIGKILL, signal.SIGTERM):
        other = peer("spawn")
        other.call("do", "lmcache_peer:serve", name, capacity="8MiB")
        other.signal(number)
        other._process.join(LONG)
        assert len(list(Path("/dev/shm").glob(f"penstock.{name}*"))) == 1
    with PoolServer.open(name, capacity="4MiB"):  # replaces the dead pool: another size is fine
        assert len(list(Path("/dev/shm").glob(f"penstock.{name}*"))) == 1
    assert not list(Path("/dev/shm").glob(f"penstock.{name}*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_ended_by_a_signal_leaves_nothing(name: str, number: int) -> None:
    command = [sys.executable, "-m", "penstock.integrations.lmcache", name, "--capacity", "8MiB"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "serving" in process.stdout.readline()
        with PoolClient.attach(name) as worker:
            worker.register(context_of())
            assert put(worker, tokens_of(1)).is_complete
            process.send_signal(number)
            assert process.wait(LONG) == 0
            assert worker.lookup(tokens_of(1)) == CHUNK
    assert not list(Path("/dev/shm").glob(f"penstock.{name}*"))


def test_a_second_server_of_a_name_shares_the_pool(
    server: PoolServer, engine: Callable[..., PoolClient]
) -> None:
    worker = engine()
    put(worker, tokens_of(1))
    with PoolServer.open(server.name, capacity="8MiB") as second:
        assert second.registrations() == server.registrations()
    assert worker.lookup(tokens_of(1)) == CHUNK


def test_a_forked_child_is_another_engine(
    server: PoolServer, engine: Callable[..., PoolClient]
) -> None:
    worker = engine("e")
    put(worker, tokens_of(1), 3)
    ticket, reading = worker.prepare_store(tokens_of(2)), worker.prepare_retrieve(tokens_of(1))
    context = multiprocessing.get_context("fork")
    child = context.Process(target=be_another_engine, args=(worker,))
    child.start()
    child.join(LONG)
    assert child.exitcode == 0
    assert server.registrations() == [context_of("e")]
    assert (reading.slot(0, 0) == 3).all()
    fill(ticket)
    assert ticket.commit().statuses == ((CACHED, STORED),)


def be_another_engine(worker: PoolClient) -> None:
    assert not worker.is_registered
    assert worker.prepare_store(tokens_of(2)).statuses == ((NOT_REGISTERED,) * 2,)
    worker.register(context_of("child"))
    assert worker.lookup(tokens_of(1)) == CHUNK
    worker.close()


@needs_a_mount
def test_a_shm_smaller_than_the_pool_is_used_to_its_end() -> None:
    outcome = with_own_shm(
        """
        from penstock.integrations.lmcache import *
        with PoolServer.open("p", capacity="64MiB"), PoolClient.attach("p") as worker:
            worker.register(EngineContext.of_one_group(
                "e", "m", num_layers=16, token_shape=(2, 32), dtype="float16", block_size=16))
            tokens = list(range(256 * 40))
            ticket = worker.prepare_store(tokens)
            for place in ticket.reserved:
                ticket.slot(*place)[...] = 1
            result = ticket.commit()
            stored = result.count(ChunkStatus.STORED)
            assert 0 < stored < 40, stored
            assert result.count(ChunkStatus.NO_SPACE) == 40 - stored
            assert worker.lookup(tokens) == 256 * stored
            print("good")
        """,
        mount="size=16m",
    )
    assert outcome.stdout == "good\n", outcome.stderr


def test_a_leaving_client_leaves_the_pool_to_others(
    server: PoolServer, engine: Callable[..., PoolClient]
) -> None:
    worker = engine()
    put(worker, tokens_of(1))
    script = """
        import sys
        from penstock.integrations.lmcache import PoolClient
        PoolClient.attach(sys.argv[1])
    """
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), server.name], check=True, timeout=LONG
        )
    with PoolClient.attach(server.name) as late:
        late.register(context_of("late"))
        assert late.lookup(tokens_of(1)) == CHUNK


def test_attaching_to_another_store_is_refused(name: str) -> None:
    with pytest.raises(penstock.NotFound):
        PoolClient.attach(name)
    with penstock.Store.create(name), pytest.raises(penstock.NotFound, match="no KV pool"):
        PoolClient.attach(name)


def test_another_chunk_length_is_refused(name: str) -> None:
    with (
        PoolServer.open(name, capacity="1MiB", chunk_tokens=64),
        PoolClient.attach(name) as client,
        pytest.raises(penstock.Incompatible, match="256 tokens"),
    ):
        client.register(context_of())


def test_a_pool_too_large_for_any_machine_is_refused_in_words(name: str) -> None:
    with pytest.raises(penstock.Error, match="capacity"):
        PoolServer.open(name, capacity=1 << 60)


# Many processes


def test_a_writer_that_is_killed_holds_no_slot(
    server: PoolServer, engine: Callable[..., PoolClient], peer: Callable[..., Peer]
) -> None:
    worker, other = engine(), peer("spawn")
    other.call("do", "lmcache_peer:register", server.name, context_of("doomed").to_record())
    tokens = tokens_of(3)
    assert other.call("do", "lmcache_peer:prepare_store", tokens) == ["reserved"] * 3
    ticket = worker.prepare_store(tokens)
    assert ticket.statuses == ((STAGED_BY_OTHER,) * 3,)
    assert not ticket.commit().is_complete
    with worker.prepare_retrieve(tokens) as reading:
        assert reading.statuses == ((STAGED_BY_OTHER,) * 3,)
    other.kill()
    assert worker.lookup(tokens) == 0  # half of it was written: invisible
    with worker.prepare_retrieve(tokens) as reading:
        assert reading.statuses == ((MISSING,) * 3,)  # and no longer being written
    assert put(worker, tokens).statuses == ((STORED,) * 3,)  # at once
    assert [context.instance_id for context in server.registrations()] == ["engine-1"]
    assert nothing_is_held(server, 1)


@pytest.mark.full
def test_a_reader_that_is_killed_holds_no_slot(name: str, peer: Callable[..., Peer]) -> None:
    with PoolServer.open(name, capacity="256KiB") as server, PoolClient.attach(name) as worker:
        worker.register(context_of("e"))
        tokens = tokens_of(4)
        assert put(worker, tokens).is_complete
        other = peer("spawn")
        other.call("do", "lmcache_peer:register", name, context_of("doomed").to_record())
        assert other.call("do", "lmcache_peer:prepare_retrieve", tokens) == 4 * CHUNK
        for _ in range(100):  # reads of the same by others renew nothing for it
            worker.prepare_retrieve(tokens).commit()
        full = put(worker, tokens_of(4, seed=1))
        assert full.count(NO_SPACE) > 0
        assert worker.lookup(tokens) == 4 * CHUNK
        other.kill()
        assert put(worker, tokens_of(4, seed=1)).is_complete  # at once
        assert nothing_is_held(server, 1)


def test_a_dead_engine_s_id_is_free(
    server: PoolServer, engine: Callable[..., PoolClient], peer: Callable[..., Peer]
) -> None:
    other = peer("spawn")
    other.call("do", "lmcache_peer:register", server.name, context_of("e").to_record())
    with pytest.raises(penstock.AlreadyExists, match="alive"):
        engine("e")
    other.kill()
    engine("e", num_layers=5)
    assert [context.num_layers for context in server.registrations()] == [5]


@pytest.mark.full
def test_a_stopped_writer_blocks_no_caller_beyond_its_timeout(
    server: PoolServer, engine: Callable[..., PoolClient], peer: Callable[..., Peer]
) -> None:
    worker, other = engine(), peer("spawn")
    other.call("do", "lmcache_peer:register", server.name, context_of("slow").to_record())
    tokens = tokens_of(2)
    other.call("do", "lmcache_peer:prepare_store", tokens, expires_after=0.05)
    with other.stopped():
        eventually(lambda: put(worker, tokens, 2).is_complete)
    assert other.call("do", "lmcache_peer:commit_store") == ["expired"] * 2
    with worker.prepare_retrieve(tokens) as ticket:
        assert (ticket.slot(0, 0) == 2).all()


@pytest.mark.full
def test_many_workers_store_the_same_prefix_at_once(
    server: PoolServer, engine: Callable[..., PoolClient], peer: Callable[..., Peer]
) -> None:
    others = [peer("spawn") for _ in range(4)]
    for number, other in enumerate(others):
        other.call("do", "lmcache_peer:register", server.name, context_of(f"w{number}").to_record())
    rounds = 30
    for other in others:
        other.start("do", "lmcache_peer:store_rounds", rounds)
    found = [other.result() for other in others]
    assert all(one["wrong"] == 0 for one in found)
    assert sum(one["stored"] for one in found) == rounds * 4  # each chunk by one of them
    worker = engine()
    for seed in range(rounds):
        tokens = tokens_of(4, seed=seed)
        with worker.prepare_retrieve(tokens) as ticket:
            assert ticket.tokens == 4 * CHUNK
            for chunk in range(4):
                assert (ticket.slot(0, chunk) == seed + chunk).all()
    assert nothing_is_held(server, 5)


def test_threads_of_one_worker(server: PoolServer, engine: Callable[..., PoolClient]) -> None:
    source = caches_of()
    worker = engine(caches=source)
    wrong: list[Any] = []

    def work(seed: int) -> None:
        for turn in range(20):
            tokens, blocks = tokens_of(2, seed=turn), blocks_of(2, seed=turn)
            worker.store(tokens, blocks)
            with worker.prepare_retrieve(tokens) as ticket:
                for group, chunk in ticket.hits:
                    ids = blocks[chunk * WIDTH : (chunk + 1) * WIDTH]
                    slot = ticket.slot(group, chunk)[0, seed % LAYERS]
                    rows = source[seed % LAYERS][0, ids].reshape(slot.shape)
                    if (slot != rows).any():
                        wrong.append((turn, chunk))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert nothing_is_held(server, 1)


@pytest.mark.full
def test_random_kills_leave_no_locks(
    server: PoolServer, engine: Callable[..., PoolClient], peer: Callable[..., Peer]
) -> None:
    """Crash after crash, at random points: existing chunks are whole, and all other memory is
    free."""
    worker = engine()
    for turn in range(6):
        other = peer("spawn")
        other.call("do", "lmcache_peer:register", server.name, context_of("doomed").to_record())
        other.start("do", "lmcache_peer:store_rounds", 100_000)
        time.sleep(0.02 + 0.013 * turn)
        other.kill()
        for seed in range(40):
            tokens = tokens_of(4, seed=seed)
            with worker.prepare_retrieve(tokens) as ticket:
                for group, chunk in ticket.hits:
                    assert (ticket.slot(group, chunk) == seed + chunk).all()
        server.clear()
        assert put(worker, tokens_of(160, seed=1000 + turn)).is_complete  # nearly all of the pool


def test_its_repr_and_stats(engine: Callable[..., PoolClient], server: PoolServer) -> None:
    worker = engine("e")
    assert "'e' registered" in repr(worker)
    ticket = worker.prepare_store(tokens_of(2))
    assert "2 slots to fill" in repr(ticket)
    ticket.abort()
    assert "over" in repr(ticket)
    assert "256 tokens" in repr(server)
    assert "0 tokens" in repr(worker.prepare_retrieve(tokens_of(2)))
    assert worker.name == server.name


def test_pinned_for_a_gpu_or_a_sentence(name: str) -> None:
    torch = pytest.importorskip("torch")
    for populate in (True, False):
        with (
            PoolServer.open(name, capacity="4MiB", populate=populate),
            PoolClient.attach(name) as worker,
        ):
            if populate and torch.cuda.is_available():
                worker.register(context_of(), pinned=True)
                continue
            wrong = penstock.NotFound if populate else penstock.InvalidArgument
            with pytest.raises(wrong, match="CUDA" if populate else "populate"):
                worker.register(context_of(), pinned=True)
            assert not worker.is_registered


class OnADevice(lmcache.PagedKV):
    """Uses the path for devices, with the CPU as the device."""

    def _bits(self, plane: Any) -> Any:
        self._device = plane.device
        self.is_torch = True
        return lmcache.gather._torch_bits(plane)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("format", ["kv_blocks", "blocks_kv"])
def test_tensors_on_a_device(
    engine: Callable[..., PoolClient], device: str, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if device == "cpu":
        monkeypatch.setattr(lmcache.client, "PagedKV", OnADevice)
    shape = (2, 64, BLOCK, HEADS, DIM)
    source = [torch.randn(shape, dtype=torch.bfloat16, device=device) for _ in range(LAYERS)]
    target = [torch.zeros(shape, dtype=torch.bfloat16, device=device) for _ in range(LAYERS)]

    def caches(layers: list[Any]) -> list[Any]:
        return [x if format == "kv_blocks" else x.transpose(0, 1) for x in layers]

    tokens, blocks, others = tokens_of(3), blocks_of(3), blocks_of(3, seed=3)
    assert engine(caches=caches(source), dtype="bfloat16").store(tokens, blocks).is_complete
    reader = engine(caches=caches(target), dtype="bfloat16")
    assert reader.retrieve(tokens, others, skip_first_n_tokens=21).tokens == 3 * CHUNK
    for before, after in zip(source, target, strict=True):
        flat = (2, 3 * CHUNK, HEADS, DIM)
        one, other = before[:, blocks].reshape(flat), after[:, others].reshape(flat)
        assert (one[:, 21:] == other[:, 21:]).all()
        assert not other[:, :21].any()


def test_a_device_reads_chunks_that_numpy_stored(
    engine: Callable[..., PoolClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    tokens, blocks = tokens_of(1), blocks_of(1)
    source = caches_of()
    assert engine(caches=source).store(tokens, blocks).is_complete
    monkeypatch.setattr(lmcache.client, "PagedKV", OnADevice)
    target = [torch.zeros(source[0].shape, dtype=torch.float16) for _ in range(LAYERS)]
    assert engine(caches=target).retrieve(tokens, blocks).tokens == CHUNK
    assert all(
        (after.numpy()[:, blocks] == before[:, blocks]).all()
        for before, after in zip(source, target, strict=True)
    )


def test_a_closed_client_says_so(server):
    client = PoolClient.attach(server.name)
    client.close()
    assert repr(client) == f"<penstock.PoolClient of '{server.name}', closed>"
    calls = (
        lambda: client.lookup(list(range(512))),
        lambda: client.hold(list(range(512))),
        lambda: client.prepare_store(list(range(512))),
        lambda: client.prepare_retrieve(list(range(512))),
        lambda: client.store(list(range(512)), [0]),
        lambda: client.retrieve(list(range(512)), [0]),
        lambda: client.register(context_of()),
    )
    for call in calls:
        with pytest.raises(penstock.Closed, match="was closed") as raised:
            call()
        assert raised.value.by == "self"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a/b"], "InvalidName"),
        (["{name}", "--capacity", "lots"], "InvalidArgument"),
        (["{name}", "--capacity", "16MiB"], "Incompatible"),
        (["{name}", "--capacity", "8MiB", "--chunk-tokens", "7"], "Incompatible"),
    ],
)
def test_the_command_refuses_in_a_sentence(server, arguments, said):
    outcome = subprocess.run(
        [
            *(sys.executable, "-m", "penstock.integrations.lmcache"),
            *(one.format(name=server.name) for one in arguments),
        ],
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert outcome.returncode == 1
    assert outcome.stderr.startswith(f"{said}: ")
    assert outcome.stderr.count("\n") == 1
