"""PenstockMPConnector: vLLM's interface (KVConnectorBase_V1), in front of its two halves.

Loads end before the forward pass and saves before the end of the step, so that no block of vLLM's
is held for longer than a step.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    KVConnectorWorkerMetadata,
    SupportsHMA,
)

from ..lmcache import PoolClient, PoolServer
from .requests import Copy, Scheduler
from .settings import Settings
from .worker import Outcome, Worker

__all__ = ["PenstockMPConnector"]


@dataclass
class StepMetadata(KVConnectorMetadata):  # type: ignore[misc]
    """The scheduler's instructions to the workers for a step."""

    loads: list[Copy] = field(default_factory=list)
    stores: list[Copy] = field(default_factory=list)


@dataclass
class LoadedMetadata(KVConnectorWorkerMetadata):  # type: ignore[misc]
    """A worker's report to the scheduler."""

    loaded: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)

    def aggregate(self, other: KVConnectorWorkerMetadata) -> LoadedMetadata:
        """Combines the reports of all workers: a request is loaded when every worker has reported
        it, which each does at once."""
        assert isinstance(other, LoadedMetadata)
        return LoadedMetadata(self.loaded | other.loaded, self.failed | other.failed)


class PenstockMPConnector(KVConnectorBase_V1, SupportsHMA):  # type: ignore[misc]
    """Made by vLLM, once in its scheduler and once in each worker."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        self._settings = Settings.of(vllm_config)
        self._pool = _open(self._settings)
        self._outcome = Outcome(set(), set(), set())
        if role is KVConnectorRole.SCHEDULER:
            self._scheduler = Scheduler(self._attach, self._settings)
        else:
            self._worker = Worker(self._attach(), self._settings)

    @property
    def requires_kv_delivery(self) -> bool:
        """False: a chunk that was not stored is a later miss, and no request waits for it."""
        return False

    # Worker.

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        self._worker.register(kv_caches, self._kv_cache_config)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        self._outcome = self._worker.load(self._step().loads)

    def wait_for_layer_load(self, layer_name: str) -> None:
        return

    def save_kv_layer(
        self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any
    ) -> None:
        return

    def wait_for_save(self) -> None:
        self._worker.store(self._step().stores)

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        self._worker.forget(finished_req_ids)
        return None, None

    def get_block_ids_with_load_errors(self) -> set[int]:
        failed, self._outcome.failed_blocks = self._outcome.failed_blocks, set()
        return failed

    def build_connector_worker_meta(self) -> KVConnectorWorkerMetadata | None:
        outcome = self._outcome
        if not outcome.loaded:
            return None
        self._outcome = Outcome(set(), set(), outcome.failed_blocks)
        return LoadedMetadata(outcome.loaded, outcome.failed)

    # Scheduler.

    def get_num_new_matched_tokens(
        self, request: Any, num_computed_tokens: int
    ) -> tuple[int | None, bool]:
        return self._scheduler.find(request, num_computed_tokens), False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        self._scheduler.allocate(request, blocks.get_block_ids(), num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        return StepMetadata(*self._scheduler.plan(scheduler_output))

    def update_connector_output(self, connector_output: Any) -> None:
        told = getattr(connector_output, "kv_connector_worker_meta", None)
        if isinstance(told, LoadedMetadata):
            self._scheduler.loaded(told.loaded, told.failed)

    def request_finished(
        self, request: Any, block_ids: list[int]
    ) -> tuple[bool, dict[str, Any] | None]:
        self._scheduler.finish(request.request_id)
        return False, None

    def request_finished_all_groups(
        self, request: Any, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        return self.request_finished(request, [])

    def reset_cache(self) -> bool:
        """Remove every chunk of the pool, for all engines; for example after a change of the
        model's weights."""
        self._scheduler.reset()
        self._pool.clear()
        return True

    def take_events(self) -> Iterable[Any]:
        return ()

    # Both.

    def shutdown(self) -> None:
        for half in (getattr(self, "_scheduler", None), getattr(self, "_worker", None)):
            if half is not None:
                half.close()
        self._pool.close()

    def _step(self) -> StepMetadata:
        told = self._get_connector_metadata()
        assert isinstance(told, StepMetadata)
        return told

    def _attach(self) -> PoolClient:
        return PoolClient.attach(self._pool.name)


def _open(settings: Settings) -> PoolServer:
    """The pool, created by the first process that opens it."""
    options = settings.options
    return PoolServer.open(
        str(options["pool"]),
        capacity=options["capacity"],
        chunk_tokens=int(options["chunk_tokens"]),
        participants=int(options["participants"]),
        eviction=options["eviction"],
        persistent=bool(options["persistent"]),
        populate=bool(options["populate"]),
        huge_pages=bool(options["huge_pages"]),
    )
