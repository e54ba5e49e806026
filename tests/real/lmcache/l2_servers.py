"""`lmcache server` with an L2 adapter of Penstock's, in a process of its own; and LMCache's worker
classes. Servers are forked from a process that has imported lmcache: that takes seconds.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import socket
import sys
from pathlib import Path
from typing import Any

import torch

MODEL = "model"
CHUNK = 16  # tokens
BLOCK = 4  # tokens
BLOCKS = CHUNK // BLOCK
WITHIN = 100.0  # seconds, for anything

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "lmcache.cli.main",
        "lmcache.v1.multiprocess.http_server",
        "lmcache.v1.multiprocess.transfer_context",
        "lmcache.v1.multiprocess.transport.factory",
        "penstock.integrations.lmcache.l2",
        "penstock.integrations.lmcache.native",
    ]
)

ADAPTERS: dict[str, dict[str, Any]] = {
    "plugin": {
        "type": "plugin",
        "module_path": "penstock.integrations.lmcache.l2",
        "class_name": "PenstockL2Adapter",
    },
    "native_plugin": {
        "type": "native_plugin",
        "module_path": "penstock.integrations.lmcache.native",
        "class_name": "PenstockConnector",
    },
}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """`lmcache server`, as its own command line starts it."""

    def __init__(self, adapter: str, log: Path, **params: Any) -> None:
        spec = {**ADAPTERS[adapter], "adapter_params": {"capacity": "16MiB", **params}}
        port = _free_port()
        self.address = f"tcp://127.0.0.1:{port}"
        command = ["server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--http-port", str(_free_port()), "--chunk-size", str(CHUNK)]
        command += ["--l1-size-gb", "0.0625", "--no-l1-use-lazy", "--eviction-policy", "LRU"]
        command += ["--shm-name", f"l2test{port}", "--supported-transfer-mode", "engine_driven"]
        command += ["--disable-metrics", "--l2-adapter", json.dumps(spec)]
        self.log = log
        self._process = _CONTEXT.Process(target=_run, args=(command, str(log)), daemon=True)
        self._process.start()

    def kill(self) -> None:
        self._process.kill()
        self._process.join(WITHIN)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _run(command: list[str], log: str) -> None:
    from lmcache.cli.main import main

    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["lmcache", *command]
    main()


class Worker:
    """In this process: LMCache's worker classes over one paged cache of torch tensors."""

    def __init__(self, server: Server, seed: int) -> None:
        from lmcache.v1.multiprocess.transfer_context import create_transfer_context
        from lmcache.v1.multiprocess.transport.factory import RequestClientFactory

        torch.manual_seed(seed)
        shape = (2, 16 * BLOCKS, BLOCK, 2, 8)
        self.caches = {f"layer_{number}": torch.randn(shape) for number in range(2)}
        self._client = RequestClientFactory.create(server.address)
        instance = int.from_bytes(os.urandom(7), "little")
        self._context = create_transfer_context(
            self.caches, instance_id=instance, req_client=self._client, mode="engine_driven"
        )
        self._context.register(self.caches, MODEL, 1, BLOCKS, WITHIN)

    def _key(self, tokens: list[int], request: str, rank: int | None) -> Any:
        from lmcache.v1.multiprocess.custom_types import IPCCacheServerKey

        return IPCCacheServerKey.from_token_ids(
            MODEL,
            worker_id=rank,
            token_ids=tokens,
            request_id=request,
            world_size=1,
            start=0,
            end=len(tokens),
        )

    def store(self, tokens: list[int], request: str) -> bool:
        key = self._key(tokens, request, 0)
        future = self._context.submit_store(
            request, key, self.caches, [_blocks(tokens)], None, BLOCKS
        )
        return bool(future.result(timeout=WITHIN))

    def lookup(self, tokens: list[int], request: str) -> int | None:
        """Chunks that can be retrieved; None while they are being loaded."""
        found = self._client.query_prefetch_status(request).result(timeout=WITHIN)
        return None if found is None else int(found)

    def begin_lookup(self, tokens: list[int], request: str) -> None:
        self._client.lookup(self._key(tokens, request, None), 1).result(timeout=WITHIN)

    def retrieve(self, tokens: list[int], request: str) -> bool:
        key = self._key(tokens, request, 0)
        future = self._context.submit_retrieve(
            request, key, self.caches, [_blocks(tokens)], None, BLOCKS
        )
        return bool(future.result(timeout=WITHIN))

    def data(self, tokens: list[int]) -> bytes:
        blocks = _blocks(tokens)
        parts = [cache[:, blocks].contiguous() for cache in self.caches.values()]
        return b"".join(part.numpy().tobytes() for part in parts)

    def wipe(self) -> None:
        for cache in self.caches.values():
            cache.zero_()

    def close(self) -> None:
        with contextlib.suppress(Exception):  # of a server that was killed
            self._context.close()
        with contextlib.suppress(Exception):
            self._client.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _blocks(tokens: list[int]) -> list[int]:
    return list(range(len(tokens) // CHUNK * BLOCKS))
