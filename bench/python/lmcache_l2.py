"""LMCache's L2, side by side in one run: Penstock's adapters, and LMCache's for files on tmpfs.

    build/lmcache/bin/python bench/python/lmcache_l2.py [--rounds 15] [--seconds 40]

It needs the environment of `./dev environments`. Each round stores new chunks into every adapter
and loads them, in turns, beside a plain copy of as many bytes. Medians, in milliseconds for the
whole batch. A batch size ends after its rounds or its seconds, whichever comes first, but not
before 3 rounds.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import select
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from lmcache.v1.distributed.api import MemoryLayoutDesc, ObjectKey
from lmcache.v1.distributed.l2_adapters.config import get_l2_adapter_config_class
from lmcache.v1.distributed.l2_adapters.factory import create_l2_adapter_from_registry
from lmcache.v1.memory_management import MemoryFormat, MemoryObjMetadata, TensorMemoryObj
from lmcache.v1.platform import consume_fd

from penstock import inspect

KIB = 1 << 10
MIB = 1 << 20
BATCHES = [(1, 256 * KIB), (16, 256 * KIB), (1, 32 * MIB), (4, 32 * MIB)]
COLD = 2  # rounds that do not count: pages are touched for the first time
LAYOUT = {0: MemoryLayoutDesc(shapes=[], dtypes=[])}


def adapters(folder: str, name: str) -> dict[str, Any]:
    ours = {"name": name, "capacity": "1GiB", "populate": True}
    native = {**ours, "name": f"{name}-native"}
    module = "penstock.integrations.lmcache"
    specs = {
        "penstock, plugin": {
            "type": "plugin",
            "module_path": f"{module}.l2",
            "class_name": "PenstockL2Adapter",
            "adapter_params": ours,
        },
        "penstock, native_plugin": {
            "type": "native_plugin",
            "module_path": f"{module}.native",
            "class_name": "PenstockConnector",
            "adapter_params": native,
        },
        "lmcache, fs on tmpfs": {"type": "fs", "base_path": folder},
        "lmcache, fs_native on tmpfs": {
            "type": "fs_native",
            "base_path": f"{folder}/native",
            "num_workers": 2,
        },
    }
    made = {}
    for title, spec in specs.items():
        config = get_l2_adapter_config_class(spec["type"]).from_dict(spec)
        made[title] = create_l2_adapter_from_registry(config)
    return made


def objects_of(count: int, nbytes: int) -> list[TensorMemoryObj]:
    made = []
    for _ in range(count):
        data = torch.randint(0, 255, (nbytes,), dtype=torch.uint8)
        meta = MemoryObjMetadata(
            shape=data.shape,
            dtype=data.dtype,
            address=0,
            phy_size=nbytes,
            fmt=MemoryFormat.KV_2LTD,
            ref_count=1,
        )
        made.append(TensorMemoryObj(data, meta, parent_allocator=None))
    return made


class Lane:
    """One adapter with its own chunks, and its times."""

    def __init__(self, adapter: Any) -> None:
        self.adapter = adapter
        self.times: dict[str, list[float]] = {"store": [], "look up": [], "load": []}

    def turn(self, keys: list[ObjectKey], given: list[Any], into: list[Any]) -> None:
        own = self.adapter
        stored = self._step(
            "store",
            own.get_store_event_fd(),
            lambda: own.submit_store_task(keys, given),
            lambda task: own.pop_completed_store_tasks().get(task),
        )
        assert stored.is_successful()
        found = self._step(
            "look up",
            own.get_lookup_and_lock_event_fd(),
            lambda: own.submit_lookup_and_lock_task(keys, LAYOUT),
            own.query_lookup_and_lock_result,
        )
        assert found.popcount() == len(keys)
        loaded = self._step(
            "load",
            own.get_load_event_fd(),
            lambda: own.submit_load_task(keys, into),
            own.query_load_result,
        )
        assert loaded.popcount() == len(keys)
        own.submit_unlock(keys)
        for sent, got in zip(given, into, strict=True):
            assert torch.equal(sent.raw_data, got.raw_data)
            got.raw_data.zero_()
        own.delete(keys)

    def _step(
        self, what: str, event: int, submit: Callable[[], int], result: Callable[[int], Any]
    ) -> Any:
        """The answer; records the milliseconds until it, waiting as LMCache's controllers do."""
        begun = time.perf_counter()
        task = submit()
        answer = None
        while answer is None:
            assert select.select([event], [], [], 60)[0], "no answer in time"
            consume_fd(event)
            answer = result(task)
        self.times[what].append(1e3 * (time.perf_counter() - begun))
        return answer


class CopyLane:
    """memcpy by one thread, instead of a load."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {"load": []}

    def turn(self, _: list[ObjectKey], given: list[Any], into: list[Any]) -> None:
        begun = time.perf_counter()
        for sent, got in zip(given, into, strict=True):
            ctypes.memmove(got.data_ptr, sent.data_ptr, sent.get_size())
        self.times["load"].append(1e3 * (time.perf_counter() - begun))


def measure(
    made: dict[str, Any], count: int, nbytes: int, rounds: int, seconds: float
) -> dict[str, Lane | CopyLane]:
    lanes: dict[str, Lane | CopyLane] = {title: Lane(one) for title, one in made.items()}
    lanes["memcpy"] = CopyLane()
    given, into = objects_of(count, nbytes), objects_of(count, nbytes)
    until = time.monotonic() + seconds
    for number in range(rounds + COLD):
        if number >= COLD + 3 and time.monotonic() > until:
            break
        keys = [
            ObjectKey(
                chunk_hash=f"{count}.{nbytes}.{number}.{at}".encode(), model_name="m", kv_rank=0
            )
            for at in range(count)
        ]
        for lane in lanes.values():
            lane.turn(keys, given, into)
    for lane in lanes.values():
        lane.times = {what: times[COLD:] for what, times in lane.times.items()}
    return lanes


def cell(what: str, times: list[float]) -> str:
    return f"{what:>9} {statistics.median(times):8.3f} ({min(times):.3f})"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--seconds", type=float, default=40, help="for each batch size")
    given = arguments.parse_args()
    name = f"bench-l2-{os.getpid()}"
    folder = tempfile.mkdtemp(prefix="bench-l2-", dir="/dev/shm")
    made = adapters(folder, name)
    try:
        for count, nbytes in BATCHES:
            lanes = measure(made, count, nbytes, given.rounds, given.seconds)
            rounds = len(lanes["memcpy"].times["load"])
            print(f"\n{count} x {nbytes / MIB:g} MiB, median (least) of {rounds}, ms")
            for title, lane in lanes.items():
                print(f"  {title:28}" + "".join(map(cell, lane.times, lane.times.values())))
    finally:
        for adapter in made.values():
            adapter.close()
        shutil.rmtree(folder)
        for store in (name, f"{name}-native"):
            inspect.remove_if_abandoned(store, data=True)


if __name__ == "__main__":
    main()
