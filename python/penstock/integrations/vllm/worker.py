"""The worker's half: vLLM's caches as the pool's object groups, and the copies of each step."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import Error
from ..lmcache import Blocks, EngineContext, ObjectGroup, PoolClient
from .requests import Copy
from .settings import Settings

__all__ = ["Outcome", "Worker", "groups_of"]

_log = logging.getLogger(__name__)
_NULL_BLOCK = 0  # of vLLM: a block that has left a window


@dataclass(frozen=True)
class _Source:
    """Source of an object group's block ids: vLLM's group, whose blocks may each be several of the
    cache's."""

    group: int
    parts: int

    def table(self, blocks: Sequence[Sequence[int]]) -> Any:
        ids = np.asarray(blocks[self.group], np.int64)
        ids = np.where(ids == _NULL_BLOCK, -1, ids)
        if self.parts == 1:
            return ids
        parts = ids[:, None] * self.parts + np.arange(self.parts)
        return np.where(ids[:, None] < 0, -1, parts).reshape(-1)


@dataclass
class Outcome:
    """Outcome of a step's loads."""

    loaded: set[str]
    failed: set[str]
    failed_blocks: set[int]  #: of vLLM


class Worker:
    """For one thread at a time, vLLM's model runner."""

    def __init__(self, client: PoolClient, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._sources: list[_Source] = []
        self._failed: dict[str, int] = {}  # by request: the attempt whose KV is invalid

    def register(self, kv_caches: Mapping[str, Any], kv_cache_config: Any) -> None:
        """Takes the argument of ``register_kv_caches``: [blocks, heads, tokens, content] for each
        layer."""
        settings = self._settings
        chunk_tokens = self._client.chunk_tokens
        layers, groups, self._sources = groups_of(kv_caches, kv_cache_config, chunk_tokens)
        context = EngineContext(
            settings.instance_of(settings.rank),
            f"{settings.model_name} {_interior_of(layers)}",
            settings.world_size,
            settings.rank,
            len(layers),
            groups,
            chunk_tokens,
        )
        self._client.register(
            context,
            layers,
            format="mla_hnd",
            pinned=bool(settings.options["pinned"]),
            populate=bool(settings.options["populate"]),
        )

    def load(self, copies: Sequence[Copy]) -> Outcome:
        """Before the forward pass. Failed loads are reported, and computed anew."""
        outcome = Outcome(set(), set(), set())
        for copy in copies:
            try:
                there = self._client.retrieve(
                    copy.tokens,
                    self._tables(copy),
                    cache_salt=copy.salt,
                    skip_first_n_tokens=copy.skip_tokens,
                ).tokens
            except Error as error:
                _log.warning("penstock: request %s: %s", copy.request_id, error)
                there = 0
            if there < len(copy.tokens):
                outcome.failed.add(copy.request_id)
                outcome.failed_blocks |= self._blocks_from(copy, max(there, copy.skip_tokens))
                self._failed[copy.request_id] = copy.attempt
            outcome.loaded.add(copy.request_id)
        return outcome

    def store(self, copies: Sequence[Copy]) -> None:
        """After the forward pass. A chunk that finds no room is not stored: it is a later miss."""
        for copy in copies:
            if self._failed.get(copy.request_id, -1) >= copy.attempt:
                continue
            try:
                self._client.store(
                    copy.tokens,
                    self._tables(copy),
                    cache_salt=copy.salt,
                    skip_first_n_tokens=copy.skip_tokens,
                )
            except Error as error:
                _log.warning("penstock: request %s: %s", copy.request_id, error)

    def forget(self, request_ids: set[str]) -> None:
        """These requests have ended."""
        for request_id in request_ids:
            self._failed.pop(request_id, None)

    def close(self) -> None:
        """Leave the pool."""
        self._client.close()

    def _tables(self, copy: Copy) -> Blocks:
        return [source.table(copy.blocks) for source in self._sources]

    def _blocks_from(self, copy: Copy, token: int) -> set[int]:
        """vLLM's blocks of all groups that hold tokens from that one on."""
        failed: set[int] = set()
        for source, group in zip(self._sources, self._groups(), strict=True):
            block_size = group.block_size * source.parts
            end = -(-len(copy.tokens) // block_size)
            failed.update(copy.blocks[source.group][token // block_size : end])
        return failed - {_NULL_BLOCK}

    def _groups(self) -> Sequence[ObjectGroup]:
        registration = self._client._registration
        return () if registration is None else registration.context.groups


def groups_of(
    kv_caches: Mapping[str, Any], kv_cache_config: Any, chunk_tokens: int
) -> tuple[list[Any], tuple[ObjectGroup, ...], list[_Source]]:
    """The layers' caches in order, the pool's groups of them, and each group's block ids.

    A group of vLLM whose layers differ in shape or dtype becomes several of the pool's. Raises
    ValueError for layers that keep no blocks of tokens.
    """
    layers: list[Any] = []
    groups: list[ObjectGroup] = []
    sources: list[_Source] = []
    for number, group in enumerate(kv_cache_config.kv_cache_groups):
        alike: dict[tuple[Any, ...], list[int]] = {}
        for name in group.layer_names:
            spec = _spec_of(group.kv_cache_spec, name)
            cache = kv_caches[name]
            if not hasattr(cache, "shape") or len(cache.shape) != 4:
                raise ValueError(
                    f"layer {name} has no cache of [blocks, heads, tokens, content]: "
                    "PenstockMPConnector shares attention only"
                )
            window = getattr(spec, "sliding_window", None)
            shape = tuple(int(one) for one in cache.shape[1:])
            key = (shape, str(cache.dtype), int(spec.block_size), window)
            alike.setdefault(key, []).append(len(layers))
            layers.append(cache)
        for (shape, dtype, block_size, window), numbers in alike.items():
            heads, tokens, content = shape
            groups.append(
                ObjectGroup(
                    len(groups),
                    tuple(numbers),
                    (heads, content),
                    dtype.removeprefix("torch."),
                    tokens,
                    planes=1,
                    num_chunks_in_sw=_chunks_in(window, chunk_tokens),
                )
            )
            sources.append(_Source(number, block_size // tokens))
    return layers, tuple(groups), sources


def _interior_of(layers: Sequence[Any]) -> str:
    """Everything that determines how tokens lie inside a block, which is up to the attention
    backend: on a CPU the rows of a block are not its tokens, so that blocks of another size can't
    be used."""
    devices = {str(getattr(cache.device, "type", cache.device)) for cache in layers}
    sizes = {int(cache.shape[2]) for cache in layers}
    return f"{sorted(devices)} blocks={sorted(sizes)}"


def _spec_of(spec: Any, name: str) -> Any:
    """A layer's own spec, if the group has one for each."""
    return getattr(spec, "kv_cache_specs", {}).get(name, spec)


def _chunks_in(window: int | None, chunk_tokens: int) -> int | None:
    """How many chunks the next token looks back into."""
    return None if window is None else max(1, -(-(window - 1) // chunk_tokens))
