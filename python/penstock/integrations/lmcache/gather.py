"""Gather chunks from an engine's paged KV cache into slots, and scatter slots back, one copy each.

The cache is not changed or moved: NumPy arrays, or PyTorch tensors on the CPU or a device. Values
are moved as bits, so that every dtype is handled alike and nothing is converted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ... import _core
from ..._reservation import Reservation
from ...errors import InvalidArgument
from .formats import KVCaches, KVFormat, in_order, planes_of
from .layout import ITEM_BYTES, EngineContext, ObjectGroup, dtype_name

__all__ = ["BlockTable", "Blocks", "PagedKV", "block_tables", "gone_chunks"]

BlockTable = npt.NDArray[np.int64]

#: One block table for all object groups, or one for each. A negative id: that block is gone.
Blocks = Sequence[int] | Sequence[Sequence[int]] | Sequence[BlockTable] | npt.NDArray[Any]

_BITS: Final = {1: "int8", 2: "int16", 4: "int32", 8: "int64"}


class _Tables(list[BlockTable]):
    """One checked table for each group."""


def block_tables(blocks: Blocks, groups: int) -> list[BlockTable]:
    """A table for each group, from token 0 on, for either form of ``blocks``."""
    if isinstance(blocks, _Tables):
        return blocks
    is_nested = len(blocks) > 0 and np.ndim(blocks[0]) > 0
    each: list[Any] = list(blocks) if is_nested else [blocks] * groups
    if len(each) != groups:
        raise InvalidArgument(f"{len(each)} block tables for {groups} object groups")
    tables = _Tables(np.asarray(table if len(table) else [], np.int64) for table in each)
    if any(table.ndim != 1 for table in tables):
        raise InvalidArgument("a block table is a flat sequence of ints")
    return tables


def gone_chunks(group: ObjectGroup, chunk_tokens: int, table: BlockTable, count: int) -> set[int]:
    """Which of the first ``count`` chunks lack some or all of their blocks in the engine."""
    width = chunk_tokens // group.block_size
    whole = min(count, len(table) // width)
    is_gone = (table[: whole * width].reshape(whole, width) < 0).any(axis=1)
    return {*np.flatnonzero(is_gone).tolist(), *range(whole, count)}


class PagedKV:
    """The KV cache of one engine: one entry of ``kv_caches`` for each layer, in order or by name.

    It only refers to the arrays. ``format`` is found by the shapes where that is unambiguous.
    Raises InvalidArgument for caches that do not match the context.
    """

    def __init__(
        self, context: EngineContext, kv_caches: KVCaches, format: KVFormat | None = None
    ) -> None:
        tensors = in_order(kv_caches)
        if len(tensors) != context.num_layers:
            raise InvalidArgument(
                f"{len(tensors)} KV tensors, and the context has {context.num_layers} layers"
            )
        self._chunk_tokens = context.chunk_tokens
        self._groups = context.groups
        self.groups = len(context.groups)
        self._device: Any = None  # of torch, if the cache is on a device
        self._has_planes = False
        self.is_torch = False
        # [group][plane][layer] of [num_blocks, block_size, *token_shape], as bits
        self._planes = [
            list(
                zip(*(self._layer(group, n, tensors[n], format) for n in group.layers), strict=True)
            )
            for group in context.groups
        ]
        self._num_blocks = [
            min(int(layer.shape[0]) for plane in planes for layer in plane)
            for planes in self._planes
        ]
        self._on_host = None if self._device is not None else [*map(_on_host, self._planes)]

    @property
    def is_on_host(self) -> bool:
        """Whether the extension can copy a ticket's slots by itself, without arrays in Python."""
        return self._on_host is not None

    def gather(self, group_id: int, chunk: int, blocks: BlockTable, slot: Any) -> None:
        """Copy a chunk into its slot: an array, or a ticket's own object for one.

        ``blocks`` is the group's block table from token 0 on. On a device the copy has ended when
        ``synchronize()`` has.
        """
        if self._on_host is not None and isinstance(slot, Reservation):
            slot._gather(self._on_host[group_id], self._slice(group_id, chunk, blocks))
            return
        ids = self._ids(group_id, chunk, blocks)
        room = self._opened(group_id, ids, slot)
        if self._device is not None:
            _copy_to_host(self._planes[group_id], _to_device(ids, self._device), room)
            return
        for plane, caches in enumerate(self._planes[group_id]):
            for layer, cache in enumerate(caches):
                # Not take(), which copies value by value here, and an array with gaps before that.
                for place, block in enumerate(ids.tolist()):
                    room[plane, layer][place] = cache[block]

    def scatter(
        self, group_id: int, chunk: int, blocks: BlockTable, slot: Any, skip_tokens: int = 0
    ) -> None:
        """Copy a slot into the chunk's blocks, except for the chunk's first ``skip_tokens``.

        On a device the copy has ended when ``synchronize()`` has.
        """
        if self._on_host is not None and isinstance(slot, _core.StoreView):
            ids = self._slice(group_id, chunk, blocks)
            slot._scatter(self._on_host[group_id], ids, skip_tokens)
            return
        ids = self._ids(group_id, chunk, blocks)
        data = self._opened(group_id, ids, slot)
        block_size = self._groups[group_id].block_size
        whole, part = -(-skip_tokens // block_size), skip_tokens % block_size
        where: Any = ids[whole:]
        if self._device is not None:
            where, data = _to_device(where, self._device), _to_device(data, self._device)
        for plane, caches in enumerate(self._planes[group_id]):
            for layer, cache in enumerate(caches):
                values = data[plane, layer]
                if part:
                    cache[int(ids[whole - 1]), part:] = values[whole - 1, part:]
                if len(where):
                    cache[where] = values[whole:]

    def synchronize(self) -> None:
        """Return when all copies have ended."""
        if self._device is not None:
            import torch

            getattr(torch, self._device.type).synchronize(self._device)

    def check(self, tables: Sequence[BlockTable]) -> None:
        """Raises InvalidArgument for block ids that the cache doesn't have."""
        for group, table in zip(self._groups, tables, strict=True):
            self._check(group.group_id, table)

    def _check(self, group_id: int, table: BlockTable) -> None:
        most = self._num_blocks[group_id]
        if table.size and int(table.max()) >= most:
            raise InvalidArgument(
                f"block {int(table.max())} of object group {group_id}, whose cache has {most}"
            )

    def _ids(self, group_id: int, chunk: int, blocks: BlockTable) -> BlockTable:
        """The chunk's blocks, checked."""
        ids = self._slice(group_id, chunk, blocks)
        if int(ids.min()) < 0:
            raise InvalidArgument(
                f"chunk {chunk} of object group {group_id} has not all its blocks"
            )
        self._check(group_id, ids)
        return ids

    def _slice(self, group_id: int, chunk: int, blocks: BlockTable) -> BlockTable:
        """The chunk's part of the table. On the host the copy itself checks the ids."""
        width = self._chunk_tokens // self._groups[group_id].block_size
        ids = blocks[chunk * width : (chunk + 1) * width]
        if len(ids) < width:
            raise InvalidArgument(
                f"chunk {chunk} of object group {group_id} has not all its blocks"
            )
        return ids

    def _opened(self, group_id: int, ids: BlockTable, slot: Any) -> Any:
        """A slot as bits: [planes, layers, blocks, block_size, …]."""
        group = self._groups[group_id]
        shape = group.slot_shape(self._chunk_tokens)
        if tuple(slot.shape) != shape or dtype_name(slot.dtype) != group.dtype:
            raise InvalidArgument(
                f"a slot of {slot.dtype} {tuple(slot.shape)}, and object group {group_id} has "
                f"{group.dtype} {shape}"
            )
        blocks = (len(ids), group.block_size)
        return _host_bits(slot).reshape(*shape[:2], *blocks, *group.token_shape)

    def _layer(
        self, group: ObjectGroup, number: int, tensor: Any, format: KVFormat | None
    ) -> list[Any]:
        """One layer's planes, as bits."""
        planes = planes_of(group, number, tensor, format)
        if len(planes) != group.planes:
            raise InvalidArgument(
                f"layer {number} has {len(planes)} planes, and its object group {group.planes}"
            )
        shape = (group.block_size, *group.token_shape)
        for plane in planes:
            if tuple(plane.shape[1:]) != shape or dtype_name(plane.dtype) != group.dtype:
                raise InvalidArgument(
                    f"layer {number} is {plane.dtype} with blocks of {tuple(plane.shape[1:])}, and "
                    f"its object group has {group.dtype} with blocks of {shape}"
                )
        return [self._bits(plane) for plane in planes]

    def _bits(self, plane: Any) -> Any:
        """The values as integers; on the CPU always as a NumPy array."""
        self.is_torch = _is_tensor(plane)
        device = plane.device if self.is_torch and plane.device.type != "cpu" else None
        if self._has_planes and device != self._device:
            raise InvalidArgument("a KV cache lies on one device, and this one does not")
        self._device, self._has_planes = device, True
        return _host_bits(plane) if device is None else _torch_bits(plane)


def _on_host(planes: Sequence[Sequence[Any]]) -> _core.PagedPlanes:
    return _core.PagedPlanes([layer for layers in planes for layer in layers])


def _is_tensor(array: Any) -> bool:
    return type(array).__module__.partition(".")[0] == "torch"


def _torch_bits(tensor: Any) -> Any:
    import torch

    return tensor.detach().view(getattr(torch, _BITS[tensor.element_size()]))


def _host_bits(array: Any) -> Any:
    """A NumPy array of integers over the memory of an array or tensor on the CPU."""
    if _is_tensor(array):
        return _torch_bits(array).numpy()
    return array.view(_BITS[ITEM_BYTES[dtype_name(array.dtype)]])


def _copy_to_host(planes: Sequence[Sequence[Any]], where: Any, room: npt.NDArray[Any]) -> None:
    import torch

    # Collected on the device, then copied at once: each small copy would wait for the bus.
    rows = torch.stack([cache.index_select(0, where) for caches in planes for cache in caches])
    torch.from_numpy(room).copy_(rows.view(room.shape), non_blocking=True)


def _to_device(values: npt.NDArray[Any], device: Any) -> Any:
    # Not torch.from_numpy(), which warns of read-only memory: it is only read here.
    tensor = _core.tensor_over_buffer(values, values.dtype.name, values.shape)
    return tensor.to(device, non_blocking=True)
