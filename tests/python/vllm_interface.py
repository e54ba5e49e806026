"""The part of vLLM 0.32's connector interface that penstock.integrations.vllm relies on, copied:
names, signatures, abstract methods. For machines without vLLM.
"""

from __future__ import annotations

import enum
import sys
import types
from abc import ABC, abstractmethod
from typing import Any

MODULE = "vllm.distributed.kv_transfer.kv_connector.v1.base"


class SupportsHMA(ABC):
    @abstractmethod
    def request_finished_all_groups(self, request: Any, block_ids: Any) -> Any: ...


class KVConnectorRole(enum.Enum):
    SCHEDULER = 0
    WORKER = 1


class KVConnectorMetadata(ABC):  # noqa: B024
    pass


class KVConnectorWorkerMetadata(ABC):
    @abstractmethod
    def aggregate(self, other: Any) -> Any: ...


class KVConnectorBase_V1(ABC):
    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        self._connector_metadata: Any = None
        self._vllm_config = vllm_config
        self._kv_transfer_config = vllm_config.kv_transfer_config
        self._kv_cache_config = kv_cache_config
        self._role = role

    @property
    def requires_kv_delivery(self) -> bool:
        return bool(self._kv_transfer_config.is_kv_producer)

    def bind_connector_metadata(self, connector_metadata: Any) -> None:
        self._connector_metadata = connector_metadata

    def clear_connector_metadata(self) -> None:
        self._connector_metadata = None

    def _get_connector_metadata(self) -> Any:
        assert self._connector_metadata is not None
        return self._connector_metadata

    @abstractmethod
    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None: ...
    @abstractmethod
    def wait_for_layer_load(self, layer_name: str) -> None: ...
    @abstractmethod
    def save_kv_layer(
        self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any
    ) -> None: ...
    @abstractmethod
    def wait_for_save(self) -> None: ...
    @abstractmethod
    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> Any: ...
    @abstractmethod
    def update_state_after_alloc(
        self, request: Any, blocks: Any, num_external_tokens: int
    ) -> None: ...
    @abstractmethod
    def build_connector_meta(self, scheduler_output: Any) -> Any: ...


def install() -> None:
    """Install it where vLLM itself is missing."""
    parts = MODULE.split(".")
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        sys.modules.setdefault(name, types.ModuleType(name))
    module = sys.modules[MODULE]
    for one in (SupportsHMA, KVConnectorRole, KVConnectorMetadata, KVConnectorWorkerMetadata,
                KVConnectorBase_V1):  # fmt: skip
        setattr(module, one.__name__, one)
