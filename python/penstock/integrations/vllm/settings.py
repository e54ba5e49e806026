"""The user's ``kv_connector_extra_config``, and the engine's identity in the pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ...errors import InvalidArgument
from ..lmcache import CHUNK_TOKENS

__all__ = ["Settings", "model_identity"]

_PREFIX: Final = "penstock."
_OPTIONS: Final = {
    "capacity": "1GiB",
    "chunk_tokens": CHUNK_TOKENS,
    "eviction": "sieve",
    "huge_pages": False,
    "participants": 64,
    "persistent": False,
    "pinned": False,
    "pool": "kv",
    "populate": False,
}


@dataclass(frozen=True)
class Settings:
    """Settings of one engine, equal in its scheduler and its workers."""

    engine_id: str
    model_name: str
    world_size: int
    rank: int  #: of this process, if it is a worker
    role: str  #: kv_producer, kv_consumer or kv_both
    options: Mapping[str, Any]

    @classmethod
    def of(cls, config: Any) -> Settings:
        """Raises InvalidArgument for an unknown option, and ValueError for a model whose KV cache
        can't be shared."""
        transfer = config.kv_transfer_config
        parallel = config.parallel_config
        given = {
            name.removeprefix(_PREFIX): value
            for name, value in (transfer.kv_connector_extra_config or {}).items()
            if name.startswith(_PREFIX)
        }
        unknown = sorted(given.keys() - _OPTIONS.keys())
        if unknown:
            raise InvalidArgument(
                f"kv_connector_extra_config has {_PREFIX}{unknown[0]}: there are "
                f"{', '.join(_PREFIX + name for name in _OPTIONS)}"
            )
        contexts = getattr(parallel, "decode_context_parallel_size", 1)
        if contexts * getattr(parallel, "prefill_context_parallel_size", 1) > 1:
            raise ValueError(
                "PenstockMPConnector does not support context parallelism: a rank's blocks have "
                "some of the tokens only"
            )
        return cls(
            engine_id=str(transfer.engine_id),
            model_name=model_identity(config),
            world_size=parallel.world_size,
            rank=getattr(parallel, "rank", 0),
            role=transfer.kv_role or "kv_both",
            options={**_OPTIONS, **given},
        )

    @property
    def loads(self) -> bool:
        """Whether this engine loads chunks from the pool."""
        return self.role != "kv_producer"

    @property
    def stores(self) -> bool:
        """Whether this engine stores chunks in the pool."""
        return self.role != "kv_consumer"

    def instance_of(self, rank: int, side: str = "worker") -> str:
        """The id under which a process of this engine is registered."""
        return f"vllm-{self.engine_id}-{side}-{rank}"


def model_identity(config: Any) -> str:
    """Everything that makes two engines' KV of the same tokens equal, except its layout."""
    model = config.model_config
    parts = [model.model]
    for name in ("revision", "quantization", "hf_overrides"):
        value = getattr(model, name, None)
        if value:
            parts.append(f"{name}={value}")
    parts.append(f"cache_dtype={config.cache_config.cache_dtype}")
    attention = getattr(getattr(config, "attention_config", None), "backend", None)
    if attention is not None:
        parts.append(f"attention={getattr(attention, 'name', attention)}")
    return " ".join(str(part) for part in parts)
