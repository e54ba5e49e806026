"""Calls a function for a module when it is imported, or at once if it is imported already."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

__all__ = ["when_imported"]

Act = Callable[[ModuleType], None]


def when_imported(name: str, act: Act) -> None:
    """Calls ``act(module)`` now, or right after the module's code has run, before its importer goes
    on.

    Exceptions of ``act`` come out of the import. For one name the last ``act`` counts.
    """
    module = sys.modules.get(name)
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        act(module)
        return
    _Finder.instance().acts[name] = act


class _Finder(importlib.abc.MetaPathFinder):
    """Asks the other finders, and wraps the loader that they find."""

    _one: _Finder | None = None

    def __init__(self) -> None:
        self.acts: dict[str, Act] = {}

    @classmethod
    def instance(cls) -> _Finder:
        if cls._one is None:
            cls._one = cls()
            sys.meta_path.insert(0, cls._one)
        return cls._one

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        act = self.acts.pop(fullname, None)
        if act is None:
            return None
        spec = _found(fullname, path)
        if spec is None or spec.loader is None:
            self.acts[fullname] = act
            return None
        spec.loader = _Loader(spec.loader, act)
        return spec


def _found(fullname: str, path: Sequence[str] | None) -> importlib.machinery.ModuleSpec | None:
    for finder in sys.meta_path:
        if isinstance(finder, _Finder):
            continue
        spec = finder.find_spec(fullname, path)
        if spec is not None:
            return spec
    return None


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: Any, act: Act) -> None:
        self._loader = loader
        self._act = act

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._act(module)
