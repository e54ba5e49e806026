"""What Penstock would do in the vLLM of this Python, and why: for ``penstock vllm check``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from . import versions
from .plugin import is_wanted
from .rings import CAPACITY

__all__ = ["Outlook", "outlook"]

_GROUPS = ("vllm.platform_plugins", "vllm.general_plugins")


@dataclass(frozen=True)
class Outlook:
    """The outlook of a program that is started with this environment."""

    version: str | None  #: of vLLM; None: there is none
    replaces: bool  #: vLLM's message queue and object store would be Penstock's
    reasons: list[str]  #: why not, or what is special


def outlook() -> Outlook:
    """Looks at files and at the environment; imports nothing of vLLM's."""
    vllm = versions.installed()
    if vllm is None:
        return Outlook(None, False, ["there is no vLLM in this Python"])
    obstacles = _obstacles(vllm)
    return Outlook(vllm.version, not obstacles, obstacles or _remarks())


def _obstacles(vllm: versions.Installed) -> list[str]:
    found = []
    if not vllm.is_known:
        found.append(
            f"vLLM {vllm.version} is not known (known: {', '.join(versions.KNOWN)}), so its own "
            "modules stay"
        )
    if not is_wanted():
        found.append("PENSTOCK_VLLM is not 1: set it for every process of the engine")
    found += [
        f"Penstock's entry point in {group} is not installed: pip install penstock"
        for group in _GROUPS
        if not entry_points(group=group, name="penstock")
    ]
    plugins = os.environ.get("VLLM_PLUGINS")
    if plugins is not None and "penstock" not in plugins.split(","):
        found.append(f"VLLM_PLUGINS is {plugins!r}, without penstock: add it")
    return found


def _remarks() -> list[str]:
    found = []
    if os.environ.get("VLLM_TARGET_DEVICE") == "cpu":
        found.append(
            "VLLM_TARGET_DEVICE=cpu makes vLLM skip platform plugins: its modules are replaced "
            "after they were imported, and the engine does not start where that is too late"
        )
    shm = Path("/dev/shm")
    if shm.is_dir():
        facts = os.statvfs(shm)
        free = facts.f_bavail * facts.f_frsize
        queue = CAPACITY / (1 << 20)
        found.append(
            f"/dev/shm has {free >> 20} MiB free; an engine of N workers makes N + 2 queues of "
            f"over {queue:.0f} MiB, and needs room for large messages while they are in transit"
        )
    return found
