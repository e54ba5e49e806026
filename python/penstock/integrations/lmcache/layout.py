"""An engine's registration: its model, its rank in it, and the layout of a chunk of each object
group in its slot.

A slot has the shape [planes, layers, chunk_tokens, token], with planes for K and V, or one for MLA.
It does not depend on the block size: engines with other blocks share chunks.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..._dtypes import native_name
from ...errors import InvalidArgument
from .keys import Namespace

if TYPE_CHECKING:
    from .formats import KVCaches, KVFormat

__all__ = ["CHUNK_TOKENS", "ITEM_BYTES", "EngineContext", "ObjectGroup", "dtype_name"]

CHUNK_TOKENS: Final = 256

#: Value types of KV caches, and the bytes of one value.
ITEM_BYTES: Final[Mapping[str, int]] = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "int8": 1,
    "uint8": 1,
}


def dtype_name(dtype: Any) -> str:
    """``float16`` for ``torch.float16``, ``numpy.float16`` and every other form of it.

    Raises InvalidArgument for types that no KV cache has.
    """
    # Names are accepted without NumPy, which has no bfloat16 without ml_dtypes.
    name = dtype if isinstance(dtype, str) and dtype in ITEM_BYTES else native_name(dtype)
    if name not in ITEM_BYTES:
        raise InvalidArgument(f"dtype is {dtype!r}: give one of {', '.join(ITEM_BYTES)}")
    return name


@dataclass(frozen=True)
class ObjectGroup:
    """Layers whose KV forms one object for each chunk.

    ``token_shape`` is that of one token in one plane of one layer: (heads, dim), or (dim,) for MLA.
    With ``num_chunks_in_sw`` the layers look back that many chunks at most, and a prefix needs only
    its last ones.
    """

    group_id: int
    layers: tuple[int, ...]
    token_shape: tuple[int, ...]
    dtype: str
    block_size: int  #: tokens of a block in the engine's cache
    planes: int = 2
    num_chunks_in_sw: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(_plain(layer) for layer in self.layers))
        object.__setattr__(self, "token_shape", tuple(_plain(one) for one in self.token_shape))
        _make_plain(self, "group_id", "block_size", "planes", "num_chunks_in_sw")
        object.__setattr__(self, "dtype", dtype_name(self.dtype))
        counts = (self.block_size, self.planes, self.num_chunks_in_sw or 1, *self.token_shape)
        problem = ""
        if not self.layers:
            problem = "has no layers"
        elif not self.token_shape or any(not _is_count(one) for one in counts):
            problem = "has sizes that are no positive ints"
        elif self.planes > 2:
            problem = f"has {self.planes} planes: 2 are K and V, 1 is MLA"
        elif self.num_chunks_in_sw == 0:
            problem = "has a window of no chunks: None is no window"
        if problem:
            raise InvalidArgument(f"object group {self.group_id} {problem}")

    def slot_shape(self, chunk_tokens: int) -> tuple[int, ...]:
        """[planes, layers, chunk_tokens, token]."""
        return (self.planes, len(self.layers), chunk_tokens, math.prod(self.token_shape))

    def slot_bytes(self, chunk_tokens: int) -> int:
        """Bytes of a chunk."""
        return math.prod(self.slot_shape(chunk_tokens)) * ITEM_BYTES[self.dtype]

    def layout(self, chunk_tokens: int) -> str:
        """Everything that determines the arrangement of a slot's bytes, and its layers."""
        layers = ",".join(str(layer) for layer in self.layers)
        return f"{self.slot_shape(chunk_tokens)} {self.token_shape} {self.dtype} [{layers}]"


@dataclass(frozen=True)
class EngineContext:
    """One engine process: whose chunks it stores, and their layout.

    Raises InvalidArgument if its fields contradict each other.
    """

    instance_id: str
    model_name: str
    world_size: int
    kv_rank: int
    num_layers: int
    groups: tuple[ObjectGroup, ...]
    chunk_tokens: int = CHUNK_TOKENS

    @classmethod
    def of_one_group(
        cls,
        instance_id: str,
        model_name: str,
        *,
        num_layers: int,
        token_shape: Sequence[int],
        dtype: Any,
        block_size: int,
        use_mla: bool = False,
        world_size: int = 1,
        kv_rank: int = 0,
        chunk_tokens: int = CHUNK_TOKENS,
    ) -> EngineContext:
        """For a model whose layers are all alike."""
        group = ObjectGroup(
            group_id=0,
            layers=tuple(range(num_layers)),
            token_shape=tuple(token_shape),
            dtype=dtype_name(dtype),
            block_size=block_size,
            planes=1 if use_mla else 2,
        )
        return cls(instance_id, model_name, world_size, kv_rank, num_layers, (group,), chunk_tokens)

    @classmethod
    def of_kv_caches(
        cls,
        instance_id: str,
        model_name: str,
        kv_caches: KVCaches,
        *,
        format: KVFormat,
        world_size: int = 1,
        kv_rank: int = 0,
        chunk_tokens: int = CHUNK_TOKENS,
    ) -> EngineContext:
        """For an engine's caches, all of that ``format``: equal layers form one group.

        Sliding windows can't be seen in a cache: pass ``groups`` for those.
        """
        from .formats import context_of_caches

        return context_of_caches(
            instance_id,
            model_name,
            kv_caches,
            format=format,
            world_size=world_size,
            kv_rank=kv_rank,
            chunk_tokens=chunk_tokens,
        )

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))
        _make_plain(self, "world_size", "kv_rank", "num_layers", "chunk_tokens")
        for problem in _problems(self):
            raise InvalidArgument(f"the context of engine '{self.instance_id}': {problem}")

    def namespace(
        self, group: ObjectGroup, cache_salt: str, kv_rank: int | None = None
    ) -> Namespace:
        """Namespace of that group's chunks, for this engine's rank or another rank of its model."""
        return Namespace(
            model_name=self.model_name,
            world_size=self.world_size,
            kv_rank=self.kv_rank if kv_rank is None else kv_rank,
            group_id=group.group_id,
            cache_salt=cache_salt,
            layout=group.layout(self.chunk_tokens),
        )

    def to_record(self) -> dict[str, Any]:
        """For the registry: plain values, and the slots as this process understands them."""
        return {
            "instance_id": self.instance_id,
            "model_name": self.model_name,
            "world_size": self.world_size,
            "kv_rank": self.kv_rank,
            "num_layers": self.num_layers,
            "chunk_tokens": self.chunk_tokens,
            "groups": [
                {
                    "group_id": group.group_id,
                    "layers": list(group.layers),
                    "token_shape": list(group.token_shape),
                    "dtype": group.dtype,
                    "block_size": group.block_size,
                    "planes": group.planes,
                    "num_chunks_in_sw": group.num_chunks_in_sw,
                    "slot_shape": list(group.slot_shape(self.chunk_tokens)),
                }
                for group in self.groups
            ],
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> EngineContext:
        """Checked again; the slots are recomputed, and must be the same."""
        fields = dict(record)
        groups: list[ObjectGroup] = []
        for described in fields.pop("groups"):
            parts = dict(described)
            shape = tuple(parts.pop("slot_shape"))
            group = ObjectGroup(**parts)
            rebuilt = group.slot_shape(fields["chunk_tokens"])
            if rebuilt != shape:
                raise InvalidArgument(
                    f"object group {group.group_id} of engine '{fields['instance_id']}' says that "
                    f"its slots are {shape}, and they are {rebuilt}"
                )
            groups.append(group)
        return cls(groups=tuple(groups), **fields)


def _plain(value: Any) -> Any:
    """Converts NumPy's ints to Python's; other values stay, to be refused by name."""
    try:
        return value if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return value


def _make_plain(frozen: Any, *fields: str) -> None:
    for field in fields:
        object.__setattr__(frozen, field, _plain(getattr(frozen, field)))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _problems(context: EngineContext) -> Iterable[str]:
    """The contradictions between the fields, the most important first."""
    if not context.instance_id or len(context.instance_id) > 128:
        yield "its instance_id has 1 to 128 characters"
    if not context.model_name:
        yield "it has no model_name"
    for name in ("world_size", "num_layers", "chunk_tokens"):
        if not _is_count(getattr(context, name)):
            yield f"{name} is {getattr(context, name)!r}: give a positive int"
    if not (isinstance(context.kv_rank, int) and 0 <= context.kv_rank < context.world_size):
        yield f"kv_rank is {context.kv_rank!r}, and there are {context.world_size}"
    if not context.groups:
        yield "it has no object groups"
    ids = [group.group_id for group in context.groups]
    if ids != list(range(len(ids))):
        yield f"its object groups are numbered {ids}: give 0, 1, … in order"
    for group in context.groups:
        if context.chunk_tokens % group.block_size:
            yield (
                f"a chunk of {context.chunk_tokens} tokens is no whole number of blocks of "
                f"{group.block_size} (object group {group.group_id})"
            )
    layers = sorted(layer for group in context.groups for layer in group.layers)
    if layers != list(range(context.num_layers)):
        yield f"its object groups have layers {layers}, and it has {context.num_layers}, each once"
