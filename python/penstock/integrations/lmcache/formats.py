"""Arrangements of a layer's blocks in engines, and the same blocks as planes of [blocks, tokens,
token].

A plane is a view: nothing is copied, whatever the order of the dimensions. Layers come as a
sequence, or as vLLM's dict of layer name to tensor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from ...errors import InvalidArgument
from .layout import EngineContext, ObjectGroup, dtype_name

__all__ = ["KVCaches", "KVFormat", "context_of_caches", "in_order", "planes_of"]

#: The caches of all layers: in the model's order, or by name (``model.layers.0.self_attn.attn``).
KVCaches = Sequence[Any] | Mapping[str, Any]

#: K and V apart: ``kv_blocks``: [2, blocks, block_size, heads, dim]; ``blocks_kv``: [blocks, 2, …];
#: ``split``: a pair (K, V) of [blocks, block_size, heads, dim]. K beside V: ``fused``: [blocks,
#: block_size, heads, 2 · dim]. One plane (MLA; or K and V as they are): ``mla``: [blocks,
#: block_size, …]. With ``_hnd`` the heads come before the block's tokens: [2, blocks, heads,
#: block_size, dim] and so on; ``mla_hnd`` is [blocks, heads, block_size, dim].
KVFormat = Literal[
    "kv_blocks",
    "blocks_kv",
    "split",
    "fused",
    "mla",
    "kv_blocks_hnd",
    "blocks_kv_hnd",
    "split_hnd",
    "fused_hnd",
    "mla_hnd",
]

_LAYER_NUMBER: Final = re.compile(r"(?:^|\.)(\d+)(?=\.|$)")


def in_order(kv_caches: KVCaches) -> list[Any]:
    """The layers' caches in the model's order: a dict is sorted by the number in the names, if each
    has its own, and otherwise keeps its order."""
    if not isinstance(kv_caches, Mapping):
        return list(kv_caches)
    numbers = {name: _LAYER_NUMBER.findall(name) for name in kv_caches}
    distinct = {int(found[0]) for found in numbers.values() if len(found) == 1}
    if len(distinct) < len(numbers):
        return list(kv_caches.values())
    return [kv_caches[name] for name in sorted(numbers, key=lambda name: int(numbers[name][0]))]


def planes_of(
    group: ObjectGroup, number: int, cache: Any, format: KVFormat | None
) -> tuple[Any, ...]:
    """A layer's planes, each [blocks, block_size, *token_shape], if it matches the group."""
    format = format or _format_of(group, number, cache)
    return _SPLIT[format.removesuffix("_hnd")](_heads_behind(format, cache), group)


def context_of_caches(
    instance_id: str,
    model_name: str,
    kv_caches: KVCaches,
    *,
    format: KVFormat,
    world_size: int = 1,
    kv_rank: int = 0,
    chunk_tokens: int,
) -> EngineContext:
    """Implements ``EngineContext.of_kv_caches``."""
    alike: dict[_Blocks, list[int]] = {}
    for number, cache in enumerate(in_order(kv_caches)):
        alike.setdefault(_blocks_of(number, cache, format), []).append(number)
    groups = tuple(
        ObjectGroup(group_id, tuple(layers), *blocks)
        for group_id, (blocks, layers) in enumerate(alike.items())
    )
    count = sum(len(layers) for layers in alike.values())
    return EngineContext(instance_id, model_name, world_size, kv_rank, count, groups, chunk_tokens)


class _Blocks(NamedTuple):
    """Fields of an ObjectGroup, in its order."""

    token_shape: tuple[int, ...]
    dtype: str
    block_size: int
    planes: int


def _blocks_of(number: int, cache: Any, format: KVFormat) -> _Blocks:
    """The fields of one layer's cache, read as that format."""
    first = cache[0] if format.startswith("split") else cache
    shape = tuple(int(one) for one in first.shape)
    lead = 1 if format.startswith(("split", "fused", "mla")) else 2  # blocks; and K and V
    rest = shape[lead:]
    least = 2 if format == "mla" else 3
    if len(rest) < least or (lead == 2 and 2 not in shape[:2]):
        raise InvalidArgument(f"layer {number} has the shape {shape}, which is not {format!r}")
    if format.endswith("_hnd"):
        rest = (rest[1], rest[0], *rest[2:])
    block_size, *token = rest
    if format.startswith("fused"):
        token[-1] //= 2
    planes = 1 if format.startswith("mla") else 2
    return _Blocks(tuple(token), dtype_name(first.dtype), block_size, planes)


def _heads_behind(format: KVFormat, cache: Any) -> Any:
    """The shape with the block's tokens before the heads."""
    if not format.endswith("_hnd"):
        return cache
    if format == "split_hnd":
        return tuple(plane.swapaxes(1, 2) for plane in cache)
    return cache.swapaxes(-3, -2)


def _fused(cache: Any, group: ObjectGroup) -> tuple[Any, ...]:
    dim = group.token_shape[-1]
    return (cache[..., :dim], cache[..., dim:])


def _one_plane(cache: Any, group: ObjectGroup) -> tuple[Any, ...]:
    """Drops a dimension of one head that the group does not mention."""
    has_head = len(cache.shape) == 3 + len(group.token_shape) and cache.shape[2] == 1
    return (cache[:, :, 0] if has_head else cache,)


_SPLIT: Final = {
    "kv_blocks": lambda cache, _: (cache[0], cache[1]),
    "blocks_kv": lambda cache, _: (cache[:, 0], cache[:, 1]),
    "split": lambda cache, _: tuple(cache),
    "fused": _fused,
    "mla": _one_plane,
}


def _format_of(group: ObjectGroup, number: int, cache: Any) -> KVFormat:
    """The format, by the shape; if a block has as many heads as tokens, tokens first is assumed."""
    is_pair = isinstance(cache, list | tuple)
    shape = tuple((cache[0] if is_pair else cache).shape)
    found = [
        format
        for format, wanted in _shapes(group, is_pair).items()
        if len(shape) == len(wanted)
        and all(size in (None, one) for one, size in zip(shape, wanted, strict=True))
    ]
    plain = [format for format in found if not format.endswith("_hnd")]
    if len(plain or found) == 1:
        return (plain or found)[0]
    if group.planes == 1:
        return "mla"  # mismatches are reported where shapes are compared
    if is_pair:
        return "split"
    first, second = shape[:1] == (2,), shape[1:2] == (2,)
    if len(shape) != 3 + len(group.token_shape) or first == second:
        raise InvalidArgument(
            f"layer {number} has the shape {shape}, which may be any format or none: say which"
        )
    return "kv_blocks" if first else "blocks_kv"


def _shapes(group: ObjectGroup, is_pair: bool) -> dict[KVFormat, tuple[int | None, ...]]:
    """The shape of that group's cache in each format; None: any number of blocks."""
    block, token = group.block_size, group.token_shape
    shapes: dict[KVFormat, tuple[int | None, ...]]
    if group.planes == 1:
        shapes = {"mla": (None, block, *token)}
        if len(token) == 1:
            shapes["mla_hnd"] = (None, 1, block, *token)
        if len(token) == 2:
            shapes["mla_hnd"] = (None, token[0], block, token[1])
    elif is_pair:
        shapes = {"split": (None, block, *token)}
        if len(token) == 2:
            shapes["split_hnd"] = (None, token[0], block, token[1])
    else:
        shapes = {"kv_blocks": (2, None, block, *token), "blocks_kv": (None, 2, block, *token)}
        if len(token) == 2:
            heads, dim = token
            shapes["fused"] = (None, block, heads, 2 * dim)
            shapes["kv_blocks_hnd"] = (2, None, heads, block, dim)
            shapes["blocks_kv_hnd"] = (None, 2, heads, block, dim)
            shapes["fused_hnd"] = (None, heads, block, 2 * dim)
    return shapes
