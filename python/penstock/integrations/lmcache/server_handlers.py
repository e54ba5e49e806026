"""The worker protocol of LMCache as the installed lmcache speaks it: its own types, its own wire.

Imported only where a server is started, for it imports lmcache.
"""
# mypy: ignore-errors

import io
import logging
import pickle
from collections import OrderedDict
from typing import Any

import torch
from lmcache.utils import EngineType
from lmcache.v1.gpu_connector.kv_format.types import LayoutHints
from lmcache.v1.multiprocess.config import MPServerConfig
from lmcache.v1.multiprocess.custom_types import (
    BlockAllocationRecord,
    DeviceIPCWrapper,
    IPCCacheServerKey,
    PrepareRetrieveResponse,
    PrepareStoreResponse,
    RegisterEngineDrivenContextPayload,
    RegisterEngineDrivenContextResponse,
)
from lmcache.v1.multiprocess.group_view import EngineGroupInfo
from lmcache.v1.multiprocess.request_handler import HandlerType, request_handler
from lmcache.v1.multiprocess.transport.server_factory import create_request_server

from .server_copies import ServedCache
from .server_core import ChunkServer
from .server_workers import Layout, Unknown

__all__ = ["LMCacheModule", "build_request_server"]

_THREADS = 4  # for the requests that may carry chunks

_LOG = logging.getLogger("penstock.lmcache")


class LMCacheModule:
    """A module for LMCache's request server, with a handler for each request of workers and
    schedulers. Handlers that only read memory answer in the server's own loop."""

    def __init__(self, chunks: ChunkServer) -> None:
        self._chunks = chunks

    def report_status(self) -> dict:
        """As LMCache's modules have it."""
        return self._chunks.status()

    def close(self) -> None:
        """The state is closed by its owner."""

    @request_handler()
    def register_kv_cache_engine_driven_context(
        self, payload: RegisterEngineDrivenContextPayload
    ) -> RegisterEngineDrivenContextResponse:
        name, size = self._chunks.register(
            payload.instance_id,
            payload.model_name,
            payload.world_size,
            _layout_of(payload, self._chunks.chunk_tokens),
        )
        return RegisterEngineDrivenContextResponse(shm_name=name, pool_size=size)

    @request_handler()
    def register_kv_cache(
        self,
        instance_id: int,
        kv_cache: list[DeviceIPCWrapper],
        model_name: str,
        world_size: int,
        engine_type: EngineType,
        layout_hints: LayoutHints,
        engine_group_infos: list[EngineGroupInfo],
    ) -> None:
        """Registers a worker whose KV cache the server is to copy. The protocol has no answer for a
        refusal: the worker's time-out ends its wait, and the reason is logged here."""
        try:
            cache = ServedCache(
                kv_cache, self._chunks.chunk_tokens, engine_type, layout_hints, engine_group_infos
            )
        except (ValueError, NotImplementedError) as error:
            raise RuntimeError(
                f"worker {instance_id} of {model_name} asks that the server copies its KV cache: "
                f"{error}; set lmcache.mp.mp_transfer_mode to engine_driven"
            ) from error
        self._chunks.register_served(instance_id, model_name, world_size, cache)

    @request_handler()
    def unregister_kv_cache(self, instance_id: int) -> None:
        self._chunks.unregister(instance_id)

    @request_handler(HandlerType.BLOCKING, requires_client_affinity=True)
    def store(
        self,
        key: IPCCacheServerKey,
        instance_id: int,
        block_ids: list[list[int]],
        event_ipc_handle: bytes,
    ) -> tuple[bytes, bool]:
        """Needs no event: the copy has ended when this answers."""
        try:
            return b"", self._chunks.store_served(key, instance_id, block_ids)
        except (Unknown, ValueError) as error:
            _LOG.warning("a store is refused: %s", error)
        except Exception:  # an exception would leave the worker without an answer
            _LOG.exception("a store failed")
        return b"", False

    @request_handler(HandlerType.BLOCKING, requires_client_affinity=True)
    def retrieve(
        self,
        key: IPCCacheServerKey,
        instance_id: int,
        block_ids: list[list[int]],
        event_ipc_handle: bytes,
        skip_first_n_tokens: int,
    ) -> tuple[bytes, bool]:
        try:
            return b"", self._chunks.retrieve_served(
                key, instance_id, block_ids, skip_first_n_tokens
            )
        except (Unknown, ValueError) as error:
            _LOG.warning("a retrieve is refused: %s", error)
        except Exception:  # an exception would leave the worker without an answer
            _LOG.exception("a retrieve failed")
        return b"", False

    @request_handler()
    def unregister_kv_cache_engine_driven_context(self, instance_id: int) -> None:
        self._chunks.unregister(instance_id)

    @request_handler()
    def prepare_store(self, key: IPCCacheServerKey, instance_id: int) -> PrepareStoreResponse:
        try:
            return PrepareStoreResponse(context=self._chunks.prepare_store(key, instance_id))
        except (Unknown, ValueError) as error:
            _LOG.warning("a store is refused: %s", error)
            return PrepareStoreResponse(context={})  # its commit will be False

    @request_handler(HandlerType.BLOCKING, requires_client_affinity=True)
    def commit_store(self, key: IPCCacheServerKey, instance_id: int, cpu_data: bytes) -> bool:
        try:
            chunks = [_bytes_of(one) for one in _unpickled(cpu_data)] if cpu_data else None
            return self._chunks.commit_store(key, instance_id, chunks)
        except (Unknown, ValueError) as error:
            _LOG.warning("a store is refused: %s", error)
            return False

    @request_handler()
    def prepare_retrieve(self, key: IPCCacheServerKey, instance_id: int) -> PrepareRetrieveResponse:
        try:
            context = self._chunks.prepare_retrieve(key, instance_id)
            chunks = None if context is None else self._chunks.bytes_for(key, instance_id)
        except (LookupError, ValueError) as error:  # or it was unregistered in between
            _LOG.warning("a retrieve is refused: %s", error)
            context = None
        if context is None:
            return PrepareRetrieveResponse(success=False)
        data = b"" if chunks is None else _pickled(chunks, context["slots"])
        return PrepareRetrieveResponse(success=True, data=data, context=context)

    @request_handler()
    def commit_retrieve(self, key: IPCCacheServerKey, instance_id: int) -> bool:
        try:
            return self._chunks.commit_retrieve(key, instance_id)
        except Unknown:
            return False

    @request_handler()
    def lookup(self, key: IPCCacheServerKey, tp_size: int) -> None:
        self._chunks.lookup(key)

    @request_handler()
    def query_prefetch_status(self, request_id: str) -> int | None:
        return self._chunks.found(request_id)

    @request_handler()
    def wait_prefetch_status(self, request_id: str, timeout: float) -> int | None:
        return self._chunks.found(request_id)

    @request_handler()
    def free_lookup_locks(self, key: IPCCacheServerKey, tp_size: int) -> None:
        self._chunks.free_lookup(key)

    @request_handler()
    def end_session(self, request_id: str) -> None:
        self._chunks.end_session(request_id)

    @request_handler()
    def ping(self, instance_id: int | None) -> bool:
        return self._chunks.ping(instance_id)

    @request_handler()
    def get_chunk_size(self) -> int:
        return self._chunks.chunk_tokens

    @request_handler()
    def get_experimental(self) -> list[str]:
        return []

    @request_handler(HandlerType.BLOCKING)
    def clear(self, force: bool = False) -> None:
        self._chunks.clear()

    @request_handler()
    def noop(self) -> str:
        return "OK"

    @request_handler()
    def report_block_allocation(
        self, instance_id: int, model_name: str, records: list[BlockAllocationRecord]
    ) -> None:
        """For observers, which this server does not have."""


def build_request_server(chunks: ChunkServer, host: str, port: int, transport: str) -> Any:
    """LMCache's own request server over that state; not started yet."""
    config = MPServerConfig(
        transport=transport,
        host=host,
        port=port,
        chunk_size=chunks.chunk_tokens,
        supported_transfer_mode="engine_driven",
        max_gpu_workers=_THREADS,
        max_cpu_workers=_THREADS,
    )
    return create_request_server([LMCacheModule(chunks)], config)


def _layout_of(payload: RegisterEngineDrivenContextPayload, chunk_tokens: int) -> Layout:
    dtype = getattr(torch, payload.dtype_str, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{payload.dtype_str!r} is no dtype of torch")
    slots = chunk_tokens if payload.num_physical_slots is None else payload.num_physical_slots
    shape = (payload.num_layers, slots, payload.hidden_dim_size)
    if min(shape) <= 0:
        raise ValueError(f"a chunk of {shape} has no bytes")
    if not payload.use_mla:
        shape = (2, *shape)
    nbytes = torch.Size(shape).numel() * dtype.itemsize
    return Layout(shape, payload.dtype_str, nbytes)


_ALLOWED = {
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("collections", "OrderedDict"): OrderedDict,
}


class _Tensors(pickle.Unpickler):
    """Unpickles tensors on the CPU, and nothing else: other pickles run no code here."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _storage_of
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is no tensor") from None


def _storage_of(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _unpickled(data: bytes) -> list[torch.Tensor]:
    """Raises ValueError unless it is a list of tensors; a handler that raises anything else never
    answers."""
    try:
        chunks = _Tensors(io.BytesIO(data)).load()
    except Exception as error:  # broken pickles may raise anything
        raise ValueError(f"the chunks are no tensors: {error!r}") from error
    if not isinstance(chunks, list) or not all(isinstance(one, torch.Tensor) for one in chunks):
        raise ValueError("the chunks are no list of tensors")
    return chunks


def _bytes_of(chunk: torch.Tensor) -> memoryview:
    if chunk.untyped_storage().nbytes() < chunk.nbytes:  # its copy would read beyond what was sent
        raise ValueError(f"a chunk of {chunk.nbytes} bytes came as fewer")
    return memoryview(chunk.contiguous().reshape(-1).view(torch.uint8).numpy())


def _pickled(chunks: list[bytes], slots: list[dict]) -> bytes:
    return pickle.dumps(
        [
            torch.frombuffer(bytearray(data), dtype=getattr(torch, slot["dtype"])).view(
                slot["shape"]
            )
            for data, slot in zip(chunks, slots, strict=True)
        ]
    )
