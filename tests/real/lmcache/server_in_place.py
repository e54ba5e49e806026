"""A pytest plugin for LMCache's own tests of its server, run on Penstock's.

The assertions are unchanged. `in_place()` copies a test file and replaces the lines that start
LMCache's server or require CUDA; the rest of this file replaces LMCache's modules when a test
imports them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import MagicMock

import pytest
from lmcache.v1.multiprocess.modules import engine_driven_transfer, lookup

from penstock import Store
from penstock.integrations.lmcache.server_core import ChunkServer
from penstock.integrations.lmcache.server_handlers import LMCacheModule

HOST = "127.0.0.1"
WITHIN = 120.0  # seconds, for a server to start
_numbers = itertools.count()

# Replacements in test_cache_server.py: caches are smaller and lie in shared memory instead of
# CUDA's, and the server is ours.
REPLACED = {
    'if not (torch_dev.is_available() and torch_device_type == "cuda"):': "if False:",
    "from lmcache.v1.platform.devices.cuda.ipc_wrapper import CudaIPCWrapper": (
        "from lmcache.v1.platform.devices.cpu.shm import CpuShmTensorWrapper"
    ),
    "if not _has_working_new_shared_cuda():": "if False:",
    "[CudaIPCWrapper(tensor) for tensor in": "[CpuShmTensorWrapper.wrap(tensor) for tensor in",
    "num_layers: int = 32,": "num_layers: int = 2,",
    "num_heads: int = 8,": "num_heads: int = 2,",
    "head_size: int = 128,": "head_size: int = 16,",
    "(2, num_pages, page_size, num_heads, head_size)": (
        "(2, num_pages, num_heads, page_size, head_size)"  # vLLM's layout on the CPU
    ),
    "    time.sleep(2)\n": "    server_in_place.wait_for(SERVER_PORT)\n",
    "SERVER_PORT = 5599": "SERVER_PORT = ports.free_port()",
    "        target=server_process_runner,": "        target=server_in_place.serve,",
    "from typing import Any,": "import ports\nimport server_in_place\nfrom typing import Any,",
}


def in_place(source: Path, folder: Path) -> Path:
    """The copy in that folder, which uses another server."""
    text = source.read_text()
    for line, other in REPLACED.items():
        assert line in text, f"not in {source}: {line}"
        text = text.replace(line, other)
    copy = folder / source.name
    copy.write_text(text)
    return copy


def serve(transport: str, host: str, port: int, chunk_size: int, gibibytes: float) -> None:
    """Run `penstock lmcache serve` in a process of the test."""
    from penstock.cli.main import main

    command = ["lmcache", "serve", "--pool", _unused_name(), "--host", HOST, "--port", str(port)]
    command += ["--transport", transport, "--chunk-tokens", str(chunk_size), "--capacity", "1GiB"]
    sys.exit(main(command))


def wait_for(port: int) -> None:
    end = time.monotonic() + WITHIN
    while True:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port)):
            return
        assert time.monotonic() < end, "the server does not listen"
        time.sleep(0.05)


def _unused_name() -> str:
    return f"in-place-{os.getpid()}-{next(_numbers)}"


class ModuleInPlace(LMCacheModule):
    """For contexts with a mock of the storage: chunks that the mock claims to have are stored
    before."""

    opened: ClassVar[list[tuple[ChunkServer, Store]]] = []

    def __init__(self, context: Any = None) -> None:
        store = Store.create(_unused_name(), capacity="1MiB")
        chunks = ChunkServer(store, getattr(context, "chunk_size", 8))
        self.opened.append((chunks, store))
        super().__init__(chunks)
        self._storage = getattr(context, "storage_manager", MagicMock())

    def prepare_store(self, key: Any, instance_id: int) -> Any:
        missing = self._storage.reserve_write.return_value
        if isinstance(missing, dict):
            self._store_all_but(len(missing), key, instance_id)
        return super().prepare_store(key, instance_id)

    def _store_all_but(self, count: int, key: Any, instance_id: int) -> None:
        """Store all chunks but the last ones."""
        end = key.end - count * self._chunks.chunk_tokens
        if end == 0:
            return
        there = type(key)(**{**vars_of(key), "end": end})
        self._chunks.prepare_store(there, instance_id)
        assert self._chunks.commit_store(there, instance_id)


class LookupInPlace(ModuleInPlace):
    """Constructed by object.__new__, as a test does."""

    def __getattr__(self, name: str) -> Any:
        if name == "_chunks":
            LMCacheModule.__init__(self, ModuleInPlace()._chunks)
            return self._chunks
        raise AttributeError(name)


def vars_of(key: Any) -> dict[str, Any]:
    return {name: getattr(key, name) for name in key.__dataclass_fields__}


engine_driven_transfer.EngineDrivenTransferModule = ModuleInPlace
lookup.LookupModule = LookupInPlace


@pytest.fixture(autouse=True)
def close_what_was_opened() -> Iterator[None]:
    yield
    while ModuleInPlace.opened:
        chunks, store = ModuleInPlace.opened.pop()
        chunks.close()
        store.close()
