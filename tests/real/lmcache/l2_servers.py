"""`lmcache server` with an L2 adapter of Penstock, in its own process; and LMCache's worker
classes. Servers are forked from a process that has imported lmcache, which takes seconds.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import torch
from ports import free_port

MODEL = "model"
CHUNK = 16  # tokens
BLOCK = 4  # tokens
BLOCKS = CHUNK // BLOCK
WITHIN = 100.0  # seconds, a bound for everything


def _modules_of(package: str, pattern: str) -> list[str]:
    """By their files: importing the package here is to be avoided."""
    top = importlib.util.find_spec(package.partition(".")[0])
    assert top is not None
    assert top.submodule_search_locations
    folder = Path(top.submodule_search_locations[0], *package.split(".")[1:])
    return [
        f"{package}.{file.stem}" for file in sorted(folder.glob(pattern)) if file.stem[0] != "_"
    ]


_CONTEXT = multiprocessing.get_context("forkserver")

# LMCache's command line imports all of both packages for its help.
IMPORTS = [
    *_modules_of("lmcache.cli.commands", "*"),
    *_modules_of("lmcache.v1.distributed.l2_adapters", "*_l2_adapter.py"),
    *_modules_of("lmcache.v1.multiprocess.http_apis", "*_api.py"),
    "lmcache.cli.main",
    "lmcache.v1.multiprocess.http_server",
    "lmcache.v1.multiprocess.transfer_context",
    "lmcache.v1.multiprocess.transport.zmq_impl",
    "penstock.cli.main",
    "penstock.integrations.lmcache.l2",
    "penstock.integrations.lmcache.native",
    "penstock.integrations.lmcache.server_handlers",
]

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


def import_all() -> None:
    """Imported in the process from which servers are forked, before anything is timed: seconds, and
    minutes the first time on a busy machine, without compiled modules. The last call decides what
    is imported."""
    _CONTEXT.set_forkserver_preload(IMPORTS)
    process = _CONTEXT.Process(target=int)
    process.start()
    process.join()
    for module in ("transfer_context", "transport.factory"):  # for Worker, in this process
        importlib.import_module(f"lmcache.v1.multiprocess.{module}")


class Server:
    """`lmcache server`, started as by its own command line."""

    def __init__(self, adapter: str, log: Path, **params: Any) -> None:
        spec = {**ADAPTERS[adapter], "adapter_params": {"capacity": "16MiB", **params}}
        port = free_port()
        self.address = f"tcp://127.0.0.1:{port}"
        command = ["server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--http-port", str(free_port()), "--chunk-size", str(CHUNK)]
        command += ["--l1-size-gb", "0.0625", "--no-l1-use-lazy", "--eviction-policy", "LRU"]
        command += ["--shm-name", f"l2test{port}", "--supported-transfer-mode", "engine_driven"]
        command += ["--disable-metrics", "--l2-adapter", json.dumps(spec)]
        self.log = log
        self._process = _CONTEXT.Process(target=_run, args=(command, str(log)), daemon=True)
        self._process.start()

    def kill(self) -> None:
        self._process.kill()
        self._process.join(WITHIN)

    def end(self) -> int | None:
        """End it in good order; its exit code, or None if it has not ended."""
        self._process.terminate()
        return self.wait()

    def wait(self) -> int | None:
        """Wait for its end; its exit code, or None if it has not ended."""
        self._process.join(WITHIN)
        return self._process.exitcode

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
    """LMCache's worker classes in this process, over one paged cache of torch tensors."""

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
        """The number of chunks that can be retrieved; None while they are being loaded."""
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
        with contextlib.suppress(Exception):  # the server was killed
            self._context.close()
        with contextlib.suppress(Exception):
            self._client.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _blocks(tokens: list[int]) -> list[int]:
    return list(range(len(tokens) // CHUNK * BLOCKS))
