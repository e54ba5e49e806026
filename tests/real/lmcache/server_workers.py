"""`penstock lmcache serve` and workers of LMCache, each in its own process.

A worker has LMCache's own classes over one paged cache of torch tensors, and obeys commands from a
pipe. Its processes are forked from one that has imported lmcache, which takes seconds.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import multiprocessing.reduction
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

MODEL = "model"
CHUNK = 16  # tokens
BLOCK = 4  # tokens
BLOCKS = CHUNK // BLOCK
LAYERS = 2
SLOT = 2 * LAYERS * CHUNK * 16 * 4  # bytes of a chunk: 2 heads of 8 floats for a token
WITHIN = 120.0  # seconds, a bound for everything

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "lmcache.v1.multiprocess.transfer_context",
        "lmcache.v1.multiprocess.transport.factory",
        "lmcache.v1.multiprocess.transport.zmq_impl",
        "penstock.integrations.lmcache.server_handlers",
        "lmcache.v1.platform.devices.cpu.shm",
        "penstock.cli.main",
    ]
)


def tokens_of(seed: int, chunks: int = 1) -> list[int]:
    return [seed * 100_000 + number for number in range(chunks * CHUNK)]


def wait_until(what: str, is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN
    while not is_so():
        assert time.monotonic() < end, f"not in time: {what}"


def overlap(offset: int, others: Iterable[int] | None) -> bool:
    """Whether the slot at `offset` overlaps one of the others."""
    return any(abs(offset - other) < SLOT for other in others or ())


class Peer:
    """A process that calls methods of its own object on command."""

    def __init__(self, make: Any, *arguments: Any) -> None:
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=_serve_calls, args=(theirs, make, arguments), daemon=True
        )
        self._process.start()
        theirs.close()
        self.answer()

    def ask(self, method: str, *arguments: Any, **options: Any) -> None:
        self._pipe.send((method, arguments, options))

    def answer(self) -> Any:
        assert self._pipe.poll(WITHIN), "no answer in time"
        kind, value = self._pipe.recv()
        assert kind == "returned", value
        return value

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        self.ask(method, *arguments, **options)
        return self.answer()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()
        self._process.join(WITHIN)

    def join(self) -> int | None:
        self._process.join(WITHIN)
        return self._process.exitcode

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _serve_calls(pipe: Any, make: Any, arguments: tuple[Any, ...]) -> None:
    target = make(*arguments)
    pipe.send(("returned", None))
    while True:
        try:
            method, positional, named = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(("returned", getattr(target, method)(*positional, **named)))
        except BaseException as error:
            pipe.send(("raised", repr(error)))


class LMCacheWorker:
    """LMCache's worker classes, used as by vLLM's connector."""

    def __init__(self, address: str, instance_id: int | None = None, heads: int = 2) -> None:
        from lmcache.v1.multiprocess.transport.factory import RequestClientFactory

        torch.manual_seed(os.getpid())
        self.instance_id = instance_id or int.from_bytes(os.urandom(7), "little")
        self.client = RequestClientFactory.create(address)
        shape = (2, 16 * BLOCKS, BLOCK, heads, 8)
        self.caches = {f"layer_{number}": torch.randn(shape) for number in range(LAYERS)}
        self.prepared: list[Any] = []
        self.context: Any = None

    def register(self, world_size: int = 1) -> str:
        """Register; return its way of copying."""
        self.make_context("engine_driven", world_size)
        return type(self.context.engine_driven_context).__name__

    def make_context(self, mode: str, world_size: int) -> None:
        from lmcache.v1.multiprocess.transfer_context import create_transfer_context

        self.context = create_transfer_context(
            self.caches, instance_id=self.instance_id, req_client=self.client, mode=mode
        )
        self.context.register(
            self.caches, MODEL, world_size, BLOCKS, WITHIN, layout_hints={"kv_layout": "NHD"}
        )

    def instance(self) -> int:
        return self.instance_id

    def unregister(self) -> None:
        self.context.unregister().result(timeout=WITHIN)

    def key(self, tokens: list[int], request: str, rank: int | None = 0, **other: Any) -> Any:
        from lmcache.v1.multiprocess.custom_types import IPCCacheServerKey

        options = {"world_size": 1, "start": 0, "end": len(tokens) // CHUNK * CHUNK, **other}
        return IPCCacheServerKey.from_token_ids(
            MODEL, worker_id=rank, token_ids=tokens, request_id=request, **options
        )

    def store(self, tokens: list[int], first: int, request: str = "s", **other: Any) -> bool:
        """Store chunks that lie in the cache from `first` on."""
        return self.store_blocks(tokens, _blocks(first, len(tokens) // CHUNK), request, **other)

    def store_blocks(
        self, tokens: list[int], blocks: list[int], request: str = "s", **other: Any
    ) -> bool:
        key = self.key(tokens, request, **other)
        event = self.context.create_recorded_event()
        future = self.context.submit_store(request, key, self.caches, [blocks], event, BLOCKS)
        return bool(future.result(timeout=WITHIN))

    def retrieve(
        self, tokens: list[int], first: int, request: str = "r", skip: int = 0, **other: Any
    ) -> bool:
        key = self.key(tokens, request, **other)
        blocks = _blocks(first, len(tokens) // CHUNK)
        event = self.context.create_recorded_event()
        future = self.context.submit_retrieve(
            request, key, self.caches, [blocks], event, BLOCKS, skip
        )
        return bool(future.result(timeout=WITHIN))

    def prepare_store(self, tokens: list[int], request: str = "p", **other: Any) -> Any:
        """Reserve slots and return their offsets; ``fill()`` writes them."""
        key = self.key(tokens, request, **other)
        response = self.client.prepare_store(key, self.instance_id).result(timeout=WITHIN)
        slots = response.context.get("slots")
        if slots:
            views = self.context.engine_driven_context._build_slot_tensors(slots)
            self.prepared.append((key, views))
        return None if slots is None else [slot["offset"] for slot in slots]

    def fill(self, value: float, number: int = -1) -> None:
        for view in self.prepared[number][1]:
            view.fill_(value)

    def commit_store(self, number: int = -1) -> bool:
        key = self.prepared[number][0]
        return bool(self.client.commit_store(key, self.instance_id, b"").result(timeout=WITHIN))

    def commit_bytes(self, tokens: list[int], data: bytes) -> bool:
        """Send chunks as bytes, as a worker does that can't open the pool."""
        key = self.key(tokens, "bytes")
        return bool(self.client.commit_store(key, self.instance_id, data).result(timeout=20))

    def prepare_retrieve(self, tokens: list[int], request: str = "r", **other: Any) -> Any:
        """The values at the beginnings of the slots, or None."""
        key = self.key(tokens, request, **other)
        response = self.client.prepare_retrieve(key, self.instance_id).result(timeout=WITHIN)
        if not response.success:
            return None
        views = self.context.engine_driven_context._build_slot_tensors(response.context["slots"])
        self.prepared.append((key, views))
        return [float(view.flatten()[0]) for view in views]

    def values(self, number: int = -1) -> list[float]:
        return [float(view.flatten()[0]) for view in self.prepared[number][1]]

    def commit_retrieve(self, number: int = -1) -> bool:
        key = self.prepared[number][0]
        return bool(self.client.commit_retrieve(key, self.instance_id).result(timeout=WITHIN))

    def lookup(self, tokens: list[int], request: str = "l", **other: Any) -> int:
        key = self.key(tokens, request, None, **other)
        self.client.lookup(key, 1).result(timeout=WITHIN)
        return int(self.client.query_prefetch_status(request).result(timeout=WITHIN))

    def request(self, method: str, *arguments: Any) -> Any:
        """Make any request with plain arguments."""
        return getattr(self.client, method)(*arguments).result(timeout=WITHIN)

    def free_lookup(self, tokens: list[int], request: str, **other: Any) -> None:
        key = self.key(tokens, request, None, **other)
        self.client.free_lookup_locks(key, 1).result(timeout=WITHIN)

    def chunks(self, first: int, count: int = 1) -> bytes:
        """The bytes of chunks in the cache."""
        blocks = _blocks(first, count)
        parts = [cache[:, blocks].contiguous() for cache in self.caches.values()]
        return b"".join(part.numpy().tobytes() for part in parts)

    def wipe(self) -> None:
        for cache in self.caches.values():
            cache.zero_()


class PickleWorker(LMCacheWorker):
    """A worker without a common /dev/shm with the server."""

    def register(self, world_size: int = 1) -> str:
        from lmcache.v1.multiprocess.transfer_context import shm

        def refuse(*_: object, **__: object) -> None:
            raise FileNotFoundError("there is no such pool in this container")

        shm.EngineDrivenContextShm = refuse
        return super().register(world_size)


class ServedWorker(LMCacheWorker):
    """A worker that lets the server copy."""

    def register(self, world_size: int = 1) -> str:
        self.make_context("lmcache_driven", world_size)
        return type(self.context).__name__


def _blocks(first: int, count: int) -> list[int]:
    return list(range(first * BLOCKS, (first + count) * BLOCKS))


class Server:
    """`penstock lmcache serve`."""

    def __init__(self, name: str, *arguments: str) -> None:
        read, write = os.pipe()
        self._process = _CONTEXT.Process(
            target=_run_server,
            args=(name, arguments, multiprocessing.reduction.DupFd(write)),
            daemon=True,
        )
        self._process.start()
        os.close(write)
        text = ""
        with os.fdopen(read) as lines:
            while not text.rstrip().endswith("}"):
                line = lines.readline()
                assert line, f"the server ended: {text}"
                text += line
        self.address = json.loads(text)["address"]

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def end(self, number: int = signal.SIGTERM) -> int | None:
        os.kill(self.pid, number)
        self._process.join(WITHIN)
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()
        self._process.join(WITHIN)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.is_alive():
            self.end()
        self.kill()


def _run_server(name: str, arguments: tuple[str, ...], descriptor: Any) -> None:
    from penstock.cli.main import main

    os.dup2(descriptor.detach(), 1)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    command = ["lmcache", "serve", "--pool", name, "--port", "0", "--json", *arguments]
    sys.exit(main(command))


@contextlib.contextmanager
def worker(server: Any, *arguments: Any) -> Iterator[Peer]:
    """A registered worker."""
    with Peer(LMCacheWorker, server.address, *arguments) as peer:
        assert peer.call("register") == "EngineDrivenContextShm"
        yield peer
