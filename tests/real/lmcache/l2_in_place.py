"""A pytest plugin for LMCache's own tests: Penstock's L2 adapters replace the tested ones.

The assertions are unchanged. Each adapter gets a store of its own, removed with it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
import types
from typing import Any

import lmcache
import pytest
from lmcache.v1.distributed.l2_adapters import mock_l2_adapter
from lmcache.v1.distributed.l2_adapters.config import L2AdapterConfigBase

from penstock import NotFound, Store, inspect
from penstock.integrations.lmcache.l2 import PenstockL2Adapter, PenstockL2AdapterConfig
from penstock.integrations.lmcache.l2_keys import key_text
from penstock.integrations.lmcache.native import PenstockConnector

SMALLEST = 64 << 10  # the smallest store
_numbers = itertools.count()


def _unused_name() -> str:
    return f"contract-{os.getpid()}-{next(_numbers)}"


def _remove(name: str) -> None:
    with contextlib.suppress(NotFound):  # closed twice
        inspect.remove_if_abandoned(name, data=True)


class MockL2Adapter(PenstockL2Adapter):
    """For configs of the mock adapter and the example plugin, with the extras that tests expect of
    the mock: a bandwidth, and a view of the store. Its status has its name."""

    def __init__(self, config: Any, l1_memory_desc: Any = None) -> None:
        size = config["max_size_gb"] if isinstance(config, dict) else config.max_size_gb
        wanted = int(size * 1024**3)
        self._bandwidth = 1024**3 * getattr(config, "mock_bandwidth_gb", 1000)
        params = {"name": _unused_name(), "capacity": max(wanted, SMALLEST), "eviction": "fifo"}
        self._untaken: set[int] = set()
        super().__init__(PenstockL2AdapterConfig.from_dict(params), l1_memory_desc)
        self._ballast = 0
        if wanted < SMALLEST:
            _leave_room(self._store, wanted)
            self._ballast = 1

    def _submit(self, submit: Any, done: Any, kept: Any = None) -> int:
        objects = kept if isinstance(kept, list) else []

        def done_in_time(outcome: Any) -> None:
            time.sleep(sum(len(one.byte_array) for one in objects) / self._bandwidth)
            done(outcome)

        return super()._submit(submit, done_in_time, kept)

    def debug_has_key(self, key: Any) -> bool:
        return key_text(key) in self._store

    def debug_get_stored_object_count(self) -> int:
        return self._store.stats().objects - self._ballast

    def submit_lookup_and_lock_task(self, keys: list[Any], group_layout_descs: Any) -> int:
        task = super().submit_lookup_and_lock_task(keys, group_layout_descs)
        self._untaken.add(task)
        return task

    def query_lookup_and_lock_result(self, task_id: int) -> Any:
        found = super().query_lookup_and_lock_result(task_id)
        if found is not None:
            self._untaken.discard(task_id)
        return found

    def debug_get_locked_key_count(self) -> int:
        """0 before the caller of the look-up learns of the lock: tests rely on that."""
        return 0 if self._untaken else self._store.stats().in_use

    def close(self) -> None:
        super().close()
        _remove(self.name)


def _leave_room(store: Store, nbytes: int) -> None:
    """Leave `nbytes` of room beside a retained object, which is never evicted."""
    store.put_bytes("ballast", bytes(SMALLEST - nbytes - 1024))
    store.retain("ballast")


class InMemoryL2AdapterConfig(L2AdapterConfigBase):
    def __init__(self, max_size_gb: float) -> None:
        self.max_size_gb = max_size_gb

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> InMemoryL2AdapterConfig:
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
        _remove(self.name)


mock_l2_adapter.MockL2Adapter = MockL2Adapter
# Tests of the controllers require an accelerator, and run on the CPU.
lmcache.torch_dev.is_available = lambda: True

example = types.ModuleType("lmc_external_l2_adapter")
example.InMemoryL2Adapter = MockL2Adapter
example.InMemoryL2AdapterConfig = InMemoryL2AdapterConfig
sys.modules["lmc_external_l2_adapter"] = example


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The connector is defined in the file that tests it."""
    for item in items:
        module = getattr(item, "module", None)
        if hasattr(module, "MockNativeConnector"):
            module.MockNativeConnector = ConnectorInPlace
