"""A worker's KV cache that the server itself copies: LMCache's transfer mode `lmcache_driven`, for
caches on the CPU, which lie in POSIX shared memory. LMCache's own functions copy, so that a chunk
has the same bytes whichever side has copied it.

Imported only where a server is started, for it imports lmcache.
"""
# mypy: ignore-errors

import math
import warnings
from typing import Any

import torch
from lmcache.v1.gpu_connector.utils import (
    get_num_blocks,
    normalize_kv_and_discover_format,
)
from lmcache.v1.multiprocess.transfer_context.base import (
    compute_kv_layout,
    gather_paged_kv_to_cpu,
    scatter_cpu_to_paged_kv,
)

from .server_workers import Layout

__all__ = ["ServedCache"]

# Chunks that are read are tensors as long as they are pinned, and are not written.
warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning, __name__)

_NULL_BLOCK = 0  # of vLLM: a block without tokens


class ServedCache:
    """One worker's cache, mapped here. Any thread; the caller must keep copies of the same blocks
    apart."""

    def __init__(
        self, wrappers: Any, chunk_tokens: int, engine_type: Any, hints: Any, groups: Any
    ) -> None:
        """ValueError with an explanation for a cache that can't be served."""
        if any(wrapper.device_type != "cpu" for wrapper in wrappers):
            raise ValueError("only caches on the CPU are copied by this server")
        if len(groups) > 1:
            raise ValueError(f"this server copies one KV group, and there are {len(groups)}")
        self.segments = {wrapper.shm_name.lstrip("/") for wrapper in wrappers if wrapper.shm_name}
        self._caches = {str(number): wrapper.to_tensor() for number, wrapper in enumerate(wrappers)}
        self._how = {"layout_hints": hints or None, "engine_type": engine_type}
        block, layers, hidden, dtype, self._format, planes = compute_kv_layout(
            self._caches, **self._how
        )
        tokens = {group.tokens_per_block or block for group in groups}
        if chunk_tokens % block or tokens - {block}:
            raise ValueError(f"blocks of {block} slots don't make chunks of {chunk_tokens} tokens")
        self._blocks_in_chunk = chunk_tokens // block
        self._block_count = self._count_blocks()
        shape = (layers, chunk_tokens, hidden) if planes == 1 else (2, layers, chunk_tokens, hidden)
        self._dtype = getattr(torch, dtype)
        self.layout = Layout(shape, dtype, math.prod(shape) * self._dtype.itemsize)

    def has_blocks(self, table: list[list[int]], chunks: int) -> bool:
        """Whether the block table has blocks for that many chunks, and the cache has all of
        them."""
        if len(table) != 1 or len(table[0]) < chunks * self._blocks_in_chunk:
            return False
        return all(0 <= block < self._block_count for block in table[0])

    def chunks_of(self, table: list[list[int]], chunks: int) -> list[int]:
        """The chunks that have any tokens, by the rule of LMCache's server."""
        size = self._blocks_in_chunk
        return [
            chunk
            for chunk in range(chunks)
            if any(block != _NULL_BLOCK for block in table[0][chunk * size : (chunk + 1) * size])
        ]

    def gather(self, table: list[list[int]], chunks: list[int], rooms: list[memoryview]) -> None:
        """Copies those chunks of the block table, each into its room."""
        gather_paged_kv_to_cpu(
            self._caches,
            table[0],
            self._blocks_in_chunk,
            engine_kv_format=self._format,
            out=[self._tensor(room) for room in rooms],
            chunk_indices=chunks,
            **self._how,
        )

    def scatter(self, table: list[list[int]], chunks: list[memoryview], skip_tokens: int) -> None:
        """Copies the first chunks into the blocks of the table, without the first tokens."""
        scatter_cpu_to_paged_kv(
            self._caches,
            table[0],
            [self._tensor(chunk) for chunk in chunks],
            self._blocks_in_chunk,
            skip_first_n_tokens=skip_tokens,
            engine_kv_format=self._format,
            **self._how,
        )

    def _count_blocks(self) -> int:
        found, caches = normalize_kv_and_discover_format(
            list(self._caches.values()), self._how["engine_type"], self._how["layout_hints"]
        )
        return get_num_blocks(caches, found)

    def _tensor(self, memory: memoryview) -> torch.Tensor:
        return torch.frombuffer(memory, dtype=self._dtype).view(self.layout.shape)
