"""The entry points that vLLM calls in each of its processes; they act where PENSTOCK_VLLM=1.

``platform`` is called before vLLM imports its modules, and has Penstock's imported in their place;
``general`` is called later, and verifies it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os

from . import redirect, versions
from .announcement import announce
from .ends import end_soon, end_with_parent
from .engine_errors import name_in_errors

__all__ = ["general", "is_wanted", "platform"]

_log = logging.getLogger("vllm.penstock")


def is_wanted() -> bool:
    """Whether PENSTOCK_VLLM asks for Penstock's modules."""
    return os.environ.get("PENSTOCK_VLLM", "").strip().lower() in ("1", "true", "yes", "on")


def platform() -> None:
    """``vllm.platform_plugins``: installs the finder. Returns None: Penstock is no platform.

    vLLM hides what a platform plugin raises, so errors are left to ``general``.
    """
    if is_wanted() and (vllm := versions.installed()) is not None and vllm.is_known:
        redirect.install()


def general() -> None:
    """``vllm.general_plugins``: verifies, replaces modules that came before the finder, and logs.

    Raises Incompatible if only a part of this process could be given Penstock's modules.
    """
    if not is_wanted():
        return
    vllm = versions.installed()
    if vllm is None or not vllm.is_known:
        redirect.uninstall()
        _log.warning(
            "Penstock does not know vLLM %s (it knows %s): vLLM's own message queue and object "
            "store stay",
            "unknown" if vllm is None else vllm.version,
            ", ".join(versions.KNOWN),
        )
        return
    from .rebinding import rebind

    rebound = rebind()
    redirect.install()
    name_in_errors()
    end_with_parent()
    end_soon()
    announce(
        f"Penstock is vLLM {vllm.version}'s message queue and object store in "
        f"{multiprocessing.current_process().name} (pid {os.getpid()})"
        + (f"; rebound: {', '.join(sorted(rebound))}" if rebound else "")
    )
