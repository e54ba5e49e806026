"""Puts Penstock's modules in the place of vLLM's own where those were imported first.

Needed where vLLM skips platform plugins. Every name in a module of vLLM's is replaced, or, where
an object of the old classes exists already, none.
"""

from __future__ import annotations

import gc
import importlib
import sys
from types import ModuleType
from typing import Any

from ...errors import Incompatible
from .redirect import REPLACED, is_replaced

__all__ = ["rebind"]


def rebind() -> list[str]:
    """Replaces those of the modules that are loaded; returns the names that were rebound.

    Raises Incompatible if only a part could be replaced; then nothing was.
    """
    names = [name for name in REPLACED if is_replaced(name) is False]
    for name in names:
        _check_unused(sys.modules[name])
    rebound = []
    for name in names:
        old = sys.modules[name]
        new = importlib.import_module(REPLACED[name])
        sys.modules[name] = new
        rebound += _rebind_names(old, new)
    return rebound


def _rebind_names(old: ModuleType, new: ModuleType) -> list[str]:
    """Rebinds, in all modules of vLLM's, the module itself and what was imported from it."""
    pairs = {id(old): new}
    for name, value in _own(old).items():
        if hasattr(new, name):
            pairs[id(value)] = getattr(new, name)
    rebound = []
    for module in list(sys.modules.values()):
        if not getattr(module, "__name__", "").startswith("vllm"):
            continue
        for name, value in list(vars(module).items()):
            if module is not old and id(value) in pairs:
                setattr(module, name, pairs[id(value)])
                rebound.append(f"{module.__name__}.{name}")
    return rebound


def _own(module: ModuleType) -> dict[str, Any]:
    """The classes and functions that the module defines."""
    return {
        name: value
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__
    }


def _check_unused(old: ModuleType) -> None:
    """Raises Incompatible if a class of the module has objects, or classes derived from it."""
    classes = tuple(value for value in _own(old).values() if isinstance(value, type))
    users = [f"{cls.__name__} has derived classes" for cls in classes if _derived(cls, old)]
    for one in gc.get_objects():
        if issubclass(type(one), classes):  # isinstance() would ask proxies for their __class__
            users.append(f"there is a {type(one).__name__}")
            break
    if users:
        raise Incompatible(
            f"{old.__name__} is vLLM's own and in use already ({'; '.join(users)}), so only a part "
            "of this process could be given Penstock's: let vLLM load platform plugins (leave "
            "VLLM_TARGET_DEVICE unset, and name penstock in VLLM_PLUGINS if you set that), or "
            "unset PENSTOCK_VLLM"
        )


def _derived(cls: type, old: ModuleType) -> bool:
    return any(one.__module__ != old.__name__ for one in cls.__subclasses__())
