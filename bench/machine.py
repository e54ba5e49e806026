"""The properties of the machine that the figures depend on."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    *("penstock", "numpy", "pyzmq", "iceoryx2", "kickmsg", "tachyon-ipc", "faster-fifo"),
    *("redis", "torch", "ray"),
)


def _read(path: str, key: str) -> str:
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _read_if_there(path: str) -> str:
    file = Path(path)
    return file.read_text().strip() if file.exists() else ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def describe_machine() -> dict[str, Any]:
    is_virtual = "hypervisor" in _read("/proc/cpuinfo", "flags").split()
    return {
        "processor": _read("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "virtual": is_virtual,
        "memory": _read("/proc/meminfo", "MemTotal"),
        "kernel": f"{platform.system()} {platform.release()}",
        "clock": _read_if_there("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "huge_pages_for_shm": _read_if_there("/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "versions": {package: _version(package) for package in PACKAGES},
    }


def one_line(machine: dict[str, Any]) -> str:
    kind = "virtual machine" if machine["virtual"] else "machine"
    return (
        f"{machine['processor']}, {kind} with {machine['cores']} cores, {machine['kernel']}, "
        f"Python {machine['python']}, load before {machine['load_before']:.1f}"
    )
