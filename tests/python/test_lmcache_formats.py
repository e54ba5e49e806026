"""All layouts in which engines arrange their caches: what one stored, another layout finds bit for
bit; impossible caches are refused with a reason."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import penstock
from penstock import _core
from penstock.integrations.lmcache import EngineContext, ObjectGroup, PoolClient, PoolServer

CHUNK, BLOCK, WIDTH = 64, 16, 4
LAYERS, HEADS, DIM, COUNT = 3, 4, 8, 40

#: A cache of each layout, made from [2, blocks, tokens, heads, dim].
FORMATS = {
    "kv_blocks": lambda kv: kv,
    "blocks_kv": lambda kv: kv.transpose(1, 0, 2, 3, 4),
    "split": lambda kv: (kv[0], kv[1]),
    "fused": lambda kv: np.concatenate([kv[0], kv[1]], axis=-1),
    "kv_blocks_hnd": lambda kv: kv.transpose(0, 1, 3, 2, 4),
    "blocks_kv_hnd": lambda kv: kv.transpose(1, 0, 3, 2, 4),
    "split_hnd": lambda kv: (kv[0].transpose(0, 2, 1, 3), kv[1].transpose(0, 2, 1, 3)),
    "fused_hnd": lambda kv: np.concatenate([kv[0], kv[1]], axis=-1).transpose(0, 2, 1, 3),
}
#: The reverse.
PLAIN = {
    "kv_blocks": lambda cache: cache,
    "blocks_kv": lambda cache: cache.transpose(1, 0, 2, 3, 4),
    "split": np.stack,
    "fused": lambda cache: np.stack([cache[..., :DIM], cache[..., DIM:]]),
    "kv_blocks_hnd": lambda cache: cache.transpose(0, 1, 3, 2, 4),
    "blocks_kv_hnd": lambda cache: cache.transpose(1, 0, 3, 2, 4),
    "split_hnd": lambda cache: np.stack([plane.transpose(0, 2, 1, 3) for plane in cache]),
    "fused_hnd": lambda cache: np.stack([cache[..., :DIM], cache[..., DIM:]]).transpose(
        0, 1, 3, 2, 4
    ),
}


def plain_kv(seed: int, dtype: Any = np.int16) -> list[npt.NDArray[Any]]:
    random = np.random.default_rng(seed)
    shape = (2, COUNT, BLOCK, HEADS, DIM)
    return [random.integers(0, 100, shape).astype(dtype) for _ in range(LAYERS)]


def contiguous(cache: Any) -> Any:
    if isinstance(cache, tuple):
        return tuple(np.ascontiguousarray(plane).copy() for plane in cache)
    return np.ascontiguousarray(cache).copy()


def as_tensors(cache: Any, dtype: str) -> Any:
    torch = pytest.importorskip("torch")
    if isinstance(cache, tuple):
        return tuple(as_tensors(plane, dtype) for plane in cache)
    return torch.from_numpy(cache).view(getattr(torch, dtype))


def by_name(caches: list[Any]) -> dict[str, Any]:
    """As vLLM passes them, in random order."""
    named = {f"model.layers.{n}.self_attn.attn": cache for n, cache in enumerate(caches)}
    return dict(sorted(named.items(), reverse=True))


@pytest.fixture
def server(name: str) -> Iterator[PoolServer]:
    with PoolServer.open(name, capacity="8MiB", chunk_tokens=CHUNK) as server:
        yield server


def context_of(instance_id: str, dtype: str = "uint8", **changes: Any) -> EngineContext:
    options: dict[str, Any] = {
        "num_layers": LAYERS, "token_shape": (HEADS, DIM), "dtype": dtype, "block_size": BLOCK,
        "chunk_tokens": CHUNK, **changes,
    }  # fmt: skip
    return EngineContext.of_one_group(instance_id, "model", **options)


TOKENS = np.arange(2 * CHUNK)
SOURCE, TARGET = np.random.default_rng(5).permutation(COUNT)[: 4 * WIDTH].reshape(2, -1).tolist()


@pytest.mark.parametrize("named", [False, True], ids=["list", "dict"])
@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("target", ["kv_blocks", "fused_hnd"])
def test_chunks_of_one_layout_are_found_by_another(
    server: PoolServer, source: str, target: str, named: bool
) -> None:
    before, after = plain_kv(1, np.uint8), plain_kv(2, np.uint8)
    sources = [contiguous(FORMATS[source](kv)) for kv in before]
    targets = [contiguous(FORMATS[target](kv)) for kv in after]
    with PoolClient.attach(server.name) as writer, PoolClient.attach(server.name) as reader:
        give = by_name if named else list
        writer.register(context_of("writer"), give(sources), format=source)
        reader.register(context_of("reader"), give(targets))  # derived from its shapes
        assert writer.store(TOKENS, SOURCE).is_complete
        assert reader.retrieve(TOKENS, TARGET, skip_first_n_tokens=21).tokens == len(TOKENS)
    for kv, cache, untouched in zip(before, targets, after, strict=True):
        found = PLAIN[target](cache)
        flat = (2, 2 * CHUNK, HEADS, DIM)
        wanted = kv[:, SOURCE].reshape(flat)[:, 21:]
        assert (found[:, TARGET].reshape(flat)[:, 21:] == wanted).all()
        rest = [block for block in range(COUNT) if block not in TARGET]
        assert (found[:, rest] == untouched[:, rest]).all()
        assert (found[:, TARGET].reshape(flat)[:, :21] ==
                untouched[:, TARGET].reshape(flat)[:, :21]).all()  # fmt: skip


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "bfloat16", "float16"])
@pytest.mark.parametrize("format", ["kv_blocks_hnd", "fused", "split_hnd"])
def test_tensors_and_fp8(server: PoolServer, format: str, dtype: str) -> None:
    item = np.uint8 if dtype.startswith("float8") else np.int16
    before, after = plain_kv(1, item), plain_kv(2, item)
    sources = [contiguous(FORMATS[format](kv)) for kv in before]
    targets = [contiguous(FORMATS[format](kv)) for kv in after]
    with PoolClient.attach(server.name) as writer, PoolClient.attach(server.name) as reader:
        writer.register(
            context_of("writer", dtype), by_name([as_tensors(one, dtype) for one in sources])
        )
        reader.register(context_of("reader", dtype), [as_tensors(one, dtype) for one in targets])
        assert writer.store(TOKENS, SOURCE).is_complete
        assert reader.retrieve(TOKENS, TARGET).tokens == len(TOKENS)
    for kv, cache in zip(before, targets, strict=True):
        assert (PLAIN[format](cache)[:, TARGET] == kv[:, SOURCE]).all()


@pytest.mark.parametrize("heads", [None, 1, HEADS])
def test_one_plane_with_heads_before_tokens(server: PoolServer, heads: int | None) -> None:
    """MLA's latent; and vLLM's [blocks, heads, tokens, content], with K and V unchanged."""
    token = (DIM,) if heads == 1 else (heads, DIM) if heads else (DIM,)
    random = np.random.default_rng(3)
    plain = [random.integers(0, 100, (COUNT, BLOCK, *token)).astype("u1") for _ in range(LAYERS)]
    if heads is None:
        caches = [one.copy() for one in plain]
    elif heads == 1:
        caches = [one[:, None].copy() for one in plain]
    else:
        caches = [np.ascontiguousarray(one.transpose(0, 2, 1, 3)) for one in plain]
    changes = {"token_shape": token, "use_mla": True}
    with PoolClient.attach(server.name) as client:
        client.register(context_of("engine", **changes), caches)
        assert client.store(TOKENS, SOURCE).is_complete
        assert client.retrieve(TOKENS, TARGET).tokens == len(TOKENS)
    for one, cache in zip(plain, caches, strict=True):
        found = cache if heads is None else cache[:, 0] if heads == 1 else cache.swapaxes(1, 2)
        assert (found[TARGET] == one[SOURCE]).all()


def test_a_context_of_the_caches_themselves(server: PoolServer) -> None:
    """Two kinds of layers in one dict are two groups, each with its own blocks."""
    wide = [np.random.default_rng(n).integers(0, 99, (2, COUNT, BLOCK, HEADS, DIM)).astype("i2")
            for n in range(2)]  # fmt: skip
    flat = [np.random.default_rng(9).integers(0, 99, (2, COUNT, 2 * BLOCK, 2, DIM)).astype("u1")]
    caches = {"layers.0.attn": wide[0], "layers.2.attn": wide[1], "layers.1.attn": flat[0]}
    caches = {name: cache.astype("f2") if cache is not flat[0] else cache
              for name, cache in caches.items()}  # fmt: skip
    context = EngineContext.of_kv_caches(
        "engine", "model", caches, format="kv_blocks", chunk_tokens=CHUNK
    )
    assert [(group.layers, group.block_size, group.dtype) for group in context.groups] == [
        ((0, 2), BLOCK, "float16"),
        ((1,), 2 * BLOCK, "uint8"),
    ]
    tables = [SOURCE, list(range(4))]
    others = [TARGET, list(range(10, 14))]
    with PoolClient.attach(server.name) as client:
        client.register(context, caches)
        assert client.store(TOKENS, tables).is_complete
        assert client.retrieve(TOKENS, others).tokens == len(TOKENS)
    for name, cache in caches.items():
        group = int(name == "layers.1.attn")
        assert (cache[:, others[group]] == cache[:, tables[group]]).all()


def test_a_cache_with_as_many_heads_as_tokens_is_taken_as_before(server: PoolServer) -> None:
    shape = (2, COUNT, BLOCK, BLOCK, DIM)
    caches = [np.random.default_rng(n).integers(0, 9, shape).astype("u1") for n in range(LAYERS)]
    with PoolClient.attach(server.name) as client:
        client.register(context_of("engine", token_shape=(BLOCK, DIM)), caches)
        ticket_layers = client._kv._planes[0][0]  # type: ignore[union-attr]
        assert ticket_layers[0].strides == caches[0][0].strides


@pytest.mark.parametrize(
    ("shape", "format"),
    [((COUNT, BLOCK, HEADS, DIM), "kv_blocks"), ((2, 3, 4), "fused"), ((2,), "mla")],
)
def test_a_context_of_caches_that_are_no_such_thing(shape: Any, format: Any) -> None:
    with pytest.raises(penstock.InvalidArgument, match=f"layer 0 has the shape .* {format!r}"):
        EngineContext.of_kv_caches("engine", "model", [np.zeros(shape, "u1")], format=format)


def test_invalid_copies_are_refused_by_the_copy_itself(name: str) -> None:
    """Whatever Python has checked before, a missing block is never written."""
    plane = np.zeros((4, 2, 8), "u1")
    planes = _core.PagedPlanes([plane])
    with penstock.Store.create(name, capacity="1MiB") as store:
        reservation = store.reserve("x", nbytes=32)
        for blocks, problem in (
            ([0, 4], "block 4"),
            ([0, -1], "block -1"),
            ([0], "16 bytes, and the object has 32"),
        ):
            with pytest.raises(penstock.InvalidArgument, match=problem):
                reservation._gather(planes, np.array(blocks, np.int64))
        for ids in (np.array([0, 1], np.int32), np.zeros(2), np.array([[0, 1]])):
            with pytest.raises(penstock.InvalidArgument, match="int64"):
                reservation._gather(planes, ids)
        plane[1:3] = [[[7]], [[9]]]
        reservation._gather(planes, np.array([2, 1], np.int64))
        reservation.commit()
        with pytest.raises(penstock.Expired):
            reservation._gather(planes, np.array([2, 1], np.int64))
        view = store.get("x")
        plane[:] = 0
        view._scatter(planes, np.array([1, 2], np.int64), 1)
        assert plane[:, :, 0].tolist() == [[0, 0], [0, 9], [7, 7], [0, 0]]
        with pytest.raises(penstock.InvalidArgument, match="block 7"):
            view._scatter(planes, np.array([1, 7], np.int64), 0)
        view.release()
        empty = store.reserve("empty", nbytes=0)
        with pytest.raises(penstock.InvalidArgument, match="without planes"):
            empty._gather(_core.PagedPlanes([]), np.array([], np.int64))
        # Without strides a byte is a block of any size; the sum of four of these overflows to 0.
        vast = np.lib.stride_tricks.as_strided(np.zeros(1, "u1"), (1, 1 << 62), (0, 0))
        with pytest.raises(penstock.InvalidArgument, match="the object has 0"):
            empty._gather(_core.PagedPlanes([vast]), np.zeros(4, np.int64))
    frozen = np.zeros((4, 2, 8), "u1")
    frozen.flags.writeable = False
    with pytest.raises((ValueError, BufferError)):
        _core.PagedPlanes([frozen])
    with pytest.raises(penstock.InvalidArgument, match="differ"):
        _core.PagedPlanes([np.zeros((4, 2, 8), "u1"), np.zeros((4, 2, 9), "u1")])


def test_strides_of_every_kind_go_both_ways(name: str) -> None:
    """Planes with gaps, reversed, and with dimensions in any order."""
    base = np.random.default_rng(1).integers(0, 255, (6, 10, 12, 14)).astype("u1")
    planes_by_hand = [
        base.transpose(order)[::step, ::step] for order in itertools.permutations(range(4))
        for step in (1, 2, -1)
    ]  # fmt: skip
    with penstock.Store.create(name, capacity="8MiB") as store:
        for number, plane in enumerate(planes_by_hand):
            planes = _core.PagedPlanes([plane])
            blocks = np.array([2, 0, 1], np.int64)
            reservation = store.reserve(str(number), nbytes=plane[blocks].nbytes)
            reservation._gather(planes, blocks)
            reservation.commit()
            wanted = plane[blocks].copy()
            assert store.get_copy(str(number)) == wanted.tobytes()
            plane[blocks] = 0
            view = store.get(str(number))
            view._scatter(planes, blocks, 0)
            view.release()
            assert (plane[blocks] == wanted).all()


def test_a_group_of_a_window_and_one_without(server: PoolServer) -> None:
    """Layers in two groups by hand; blocks that have left the window are -1."""
    caches = by_name(plain_kv(4, np.uint8))
    groups = (
        ObjectGroup(0, (0, 2), (HEADS, DIM), "uint8", BLOCK),
        ObjectGroup(1, (1,), (HEADS, DIM), "uint8", BLOCK, num_chunks_in_sw=1),
    )
    context = EngineContext("engine", "model", 1, 0, LAYERS, groups, CHUNK)
    window = [-1] * WIDTH + SOURCE[WIDTH:]
    with PoolClient.attach(server.name) as client:
        client.register(context, caches)
        assert client.store(TOKENS, [SOURCE, window]).is_complete
        into = [TARGET, [-1] * WIDTH + TARGET[WIDTH:]]
        assert client.retrieve(TOKENS, into).tokens == len(TOKENS)
    first, second = caches["model.layers.0.self_attn.attn"], caches["model.layers.1.self_attn.attn"]
    assert (first[:, TARGET] == first[:, SOURCE]).all()
    assert (second[:, TARGET[WIDTH:]] == second[:, SOURCE[WIDTH:]]).all()
