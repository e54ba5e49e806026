"""A pytest plugin for LMCache's own tests: what they test is replaced by Penstock's L2 adapters.

The assertions stay as they are. Each adapter gets a store of its own, which is gone with it.
"""

from __future__ import annotations

import itertools
import os
import sys
import types
from typing import Any

import pytest
from lmcache.v1.distributed.l2_adapters import mock_l2_adapter
from lmcache.v1.distributed.l2_adapters.config import L2AdapterConfigBase

from penstock import Store, inspect
from penstock.integrations.lmcache.l2 import PenstockL2Adapter, PenstockL2AdapterConfig
from penstock.integrations.lmcache.l2_keys import key_text
from penstock.integrations.lmcache.native import PenstockConnector

SMALLEST = 64 << 10  # no store is smaller
_numbers = itertools.count()


def _unused_name() -> str:
    return f"contract-{os.getpid()}-{next(_numbers)}"


class AdapterInPlace(PenstockL2Adapter):
    """Of a config that the mock adapter and the example plugin have, with what tests ask of the
    mock beside the contract."""

    def __init__(self, config: Any, l1_memory_desc: Any = None) -> None:
        size = config["max_size_gb"] if isinstance(config, dict) else config.max_size_gb
        wanted = int(size * 1024**3)
        params = {"name": _unused_name(), "capacity": max(wanted, SMALLEST), "eviction": "fifo"}
        super().__init__(PenstockL2AdapterConfig.from_dict(params), l1_memory_desc)
        self._ballast = 0
        if wanted < SMALLEST:
            _leave_room(self._store, wanted)
            self._ballast = 1

    def debug_has_key(self, key: Any) -> bool:
        return key_text(key) in self._store

    def debug_get_stored_object_count(self) -> int:
        return self._store.stats().objects - self._ballast

    def debug_get_locked_key_count(self) -> int:
        return self._store.stats().pinned

    def close(self) -> None:
        super().close()
        inspect.remove_if_abandoned(self.name, data=True)


def _leave_room(store: Store, nbytes: int) -> None:
    """What is kept is never evicted."""
    store.put_bytes("ballast", bytes(SMALLEST - nbytes - 1024))
    store.pin("ballast")


class AdapterInPlaceConfig(L2AdapterConfigBase):
    def __init__(self, max_size_gb: float) -> None:
        self.max_size_gb = max_size_gb

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> AdapterInPlaceConfig:
        return cls(d["max_size_gb"])

    @classmethod
    def help(cls) -> str:
        return ""


class ConnectorInPlace(PenstockConnector):
    def __init__(self) -> None:
        self.name = _unused_name()
        super().__init__(self.name, capacity="8MiB")

    def close(self) -> None:
        super().close()
        inspect.remove_if_abandoned(self.name, data=True)


mock_l2_adapter.MockL2Adapter = AdapterInPlace

example = types.ModuleType("lmc_external_l2_adapter")
example.InMemoryL2Adapter = AdapterInPlace
example.InMemoryL2AdapterConfig = AdapterInPlaceConfig
sys.modules["lmc_external_l2_adapter"] = example


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The connector is written in the file that tests it."""
    for item in items:
        module = getattr(item, "module", None)
        if hasattr(module, "MockNativeConnector"):
            module.MockNativeConnector = ConnectorInPlace
