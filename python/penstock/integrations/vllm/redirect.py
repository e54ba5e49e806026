"""Penstock's modules under the names of vLLM's, installed before vLLM imports its own.

``import vllm.distributed.device_communicators.shm_broadcast`` then gives
``penstock.integrations.vllm.shm_broadcast``, the same module object.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

__all__ = ["REPLACED", "install", "is_replaced", "uninstall"]

_FROM = "vllm.distributed.device_communicators"
#: vLLM's module, and the one that takes its place.
REPLACED = {
    f"{_FROM}.shm_broadcast": f"{__package__}.shm_broadcast",
    f"{_FROM}.shm_object_storage": f"{__package__}.shm_object_storage",
}


def install() -> None:
    """Modules that are imported from now on are Penstock's. Idempotent."""
    if not any(isinstance(one, _Finder) for one in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def uninstall() -> None:
    """Modules that are imported from now on are vLLM's own."""
    sys.meta_path[:] = [one for one in sys.meta_path if not isinstance(one, _Finder)]


def is_replaced(name: str) -> bool | None:
    """Whether the loaded module of that name is Penstock's; None: it is not loaded."""
    module = sys.modules.get(name)
    return None if module is None else module is sys.modules.get(REPLACED[name])


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the names in REPLACED."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in REPLACED:
            return None
        return importlib.machinery.ModuleSpec(fullname, _Loader(REPLACED[fullname]))


class _Loader(importlib.abc.Loader):
    """Returns a module that is loaded already and keeps its own name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._spec: Any = None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import has set that of vLLM's name
