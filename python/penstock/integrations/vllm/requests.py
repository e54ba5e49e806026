"""The scheduler's half: which requests find their prefix in the pool, and what each step loads and
stores. It uses attributes of vLLM's requests and outputs, and imports nothing of vLLM."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..lmcache import PoolClient, RetrieveTicket
from ..lmcache.registry import registered

__all__ = ["Copy", "Scheduler", "salt_of"]


@dataclass(frozen=True)
class Copy:
    """A worker's copy for one request: blocks of vLLM's groups, from token 0 on."""

    request_id: str
    tokens: list[int]
    blocks: tuple[list[int], ...]
    salt: str
    skip_tokens: int  #: tokens that the engine has (load), or that were stored (store)
    attempt: int = 0  #: of the request: raised after a failed load


@dataclass
class _Tracked:
    """A request, from its first look-up until its end."""

    request: Any
    salt: str | None  #: None: its tokens do not determine its KV
    blocks: tuple[list[int], ...] = ()
    stored: int = 0  #: tokens
    found: tuple[int, int] | None = None  #: tokens to load: from, to
    is_loading: bool = False
    attempt: int = 0
    is_stale: bool = False  #: its blocks are of a former model, until it begins anew
    held: list[RetrieveTicket] = field(default_factory=list)

    def release(self) -> None:
        """Releases what was held for the workers: they have it, or it is not wanted."""
        for ticket in self.held:
            ticket.commit()
        self.held.clear()


class Scheduler:
    """For one thread at a time, vLLM's scheduler.

    Chunks that were found are pinned until the workers have loaded them.
    """

    def __init__(self, attach: Any, settings: Any) -> None:
        """``attach()`` returns a client of the pool."""
        self._attach = attach
        self._settings = settings
        self._clients: list[PoolClient] = []  # one for each rank, with that rank's layout
        self._tracked: dict[str, _Tracked] = {}

    def find(self, request: Any, computed: int) -> int:
        """How many tokens behind the first ``computed`` the pool has for all ranks.

        The last token of a request is always left to compute. May be called again.
        """
        tracked = self._track(request)
        tracked.release()
        tracked.found = None
        if not self._settings.loads or tracked.salt is None or not self._all_clients():
            return 0
        chunk = self._clients[0].chunk_tokens
        whole = (request.num_tokens - 1) // chunk * chunk
        if whole <= computed:
            return 0
        tokens = _tokens_of(request, whole)
        for client in self._clients:
            tracked.held.append(
                client.hold(tokens, cache_salt=tracked.salt, skip_first_n_tokens=computed)
            )
        end = min(ticket.tokens for ticket in tracked.held)
        if end <= computed:
            tracked.release()
            return 0
        tracked.found = (computed, end)
        return end - computed

    def allocate(self, request: Any, blocks: tuple[list[int], ...], external: int) -> None:
        """The engine has allocated blocks, and takes that many tokens from the pool, or none."""
        tracked = self._track(request)
        if external > 0 and tracked.found is not None:
            first = tracked.found[0]
            tracked.found = (first, first + external)
            tracked.is_loading = True
        elif not tracked.is_loading:
            tracked.release()
        tracked.blocks = tuple(list(ids) for ids in blocks)

    def plan(self, output: Any) -> tuple[list[Copy], list[Copy]]:
        """Loads before this step's forward pass, and stores after it."""
        loads: list[Copy] = []
        stores: list[Copy] = []
        for request_id, computed in self._scheduled(output):
            tracked = self._tracked.get(request_id)
            if tracked is None or tracked.salt is None:
                continue
            loads += self._load(tracked)
            stores += self._store(tracked, computed)
        return loads, stores

    def loaded(self, request_ids: Iterable[str], failed: Iterable[str]) -> None:
        """All workers have copied the chunks held for these requests; or a copy failed."""
        for request_id in request_ids:
            tracked = self._tracked.get(request_id)
            if tracked is not None:
                tracked.release()
        for request_id in failed:
            tracked = self._tracked.get(request_id)
            if tracked is not None:  # tokens computed after a failed load are invalid
                tracked.attempt += 1
                tracked.stored = 0

    def finish(self, request_id: str) -> None:
        """The request has ended."""
        tracked = self._tracked.pop(request_id, None)
        if tracked is not None:
            tracked.release()

    def reset(self) -> None:
        """The pool drops its chunks because the model has changed: tokens that requests have
        computed are not stored until they are preempted and begin anew."""
        for tracked in self._tracked.values():
            tracked.stored = 0
            tracked.is_stale = True

    def close(self) -> None:
        """Release everything, and leave the pool."""
        for request_id in list(self._tracked):
            self.finish(request_id)
        for client in self._clients:
            client.close()
        self._clients.clear()

    def _track(self, request: Any) -> _Tracked:
        tracked = self._tracked.get(request.request_id)
        if tracked is None or tracked.request is not request:
            tracked = _Tracked(request, salt_of(request))
            self._tracked[request.request_id] = tracked
        return tracked

    def _all_clients(self) -> bool:
        """One client for each registered worker; False: not all are registered yet."""
        if self._clients:
            return True
        settings = self._settings
        with self._attach() as look:
            known = {one.instance_id: one for one in registered(look._store)}
        try:
            contexts = [known[settings.instance_of(rank)] for rank in range(settings.world_size)]
        except KeyError:
            return False
        for rank, context in enumerate(contexts):
            client = self._attach()
            self._clients.append(client)
            client.register(replace(context, instance_id=settings.instance_of(rank, "scheduler")))
        return True

    def _scheduled(self, output: Any) -> Iterable[tuple[str, int]]:
        """The requests of a step, with how many of their tokens will be computed at its end."""
        scheduled = output.num_scheduled_tokens
        for new in output.scheduled_new_reqs:
            self._set_blocks(new.req_id, new.block_ids)
            yield new.req_id, new.num_computed_tokens + scheduled[new.req_id]
        cached = output.scheduled_cached_reqs
        for request_id, blocks, computed in zip(
            cached.req_ids, cached.new_block_ids, cached.num_computed_tokens, strict=True
        ):
            if request_id in cached.resumed_req_ids:
                self._set_blocks(request_id, blocks or ())
            elif blocks is not None:
                self._add_blocks(request_id, blocks)
            yield request_id, computed + scheduled[request_id]

    def _set_blocks(self, request_id: str, blocks: Sequence[Sequence[int]]) -> None:
        """Sets the blocks of a request that begins, or begins anew."""
        tracked = self._tracked.get(request_id)
        if tracked is not None:
            tracked.is_stale = False
            tracked.blocks = tuple(list(ids) for ids in blocks)

    def _add_blocks(self, request_id: str, blocks: Sequence[Sequence[int]]) -> None:
        tracked = self._tracked.get(request_id)
        if tracked is not None:
            for ids, more in zip(tracked.blocks, blocks, strict=True):
                ids.extend(more)

    def _load(self, tracked: _Tracked) -> list[Copy]:
        if not tracked.is_loading or tracked.found is None:
            return []
        skip, end = tracked.found
        tracked.is_loading, tracked.found = False, None
        # The pool may lack tokens that the engine had before: the first store checks that once.
        return [self._copy(tracked, end, skip)]

    def _store(self, tracked: _Tracked, computed: int) -> list[Copy]:
        """Whole chunks of known tokens, without speculative ones."""
        if not self._settings.stores or tracked.is_stale:
            return []
        chunk = int(self._settings.options["chunk_tokens"])
        end = min(computed, tracked.request.num_tokens) // chunk * chunk
        if end <= tracked.stored:
            return []
        skip, tracked.stored = tracked.stored, end
        return [self._copy(tracked, end, skip)]

    def _copy(self, tracked: _Tracked, end: int, skip: int) -> Copy:
        request = tracked.request
        blocks = tuple(list(ids) for ids in tracked.blocks)
        return Copy(
            request.request_id,
            _tokens_of(request, end),
            blocks,
            tracked.salt or "",
            skip,
            tracked.attempt,
        )


def salt_of(request: Any) -> str | None:
    """Everything besides its tokens that determines a request's KV; None: unknown, so the KV is not
    shared."""
    if getattr(request, "prompt_embeds", None) is not None:
        return None
    parts: list[str] = []
    if getattr(request, "cache_salt", None):
        parts.append(f"salt={request.cache_salt}")
    lora = getattr(request, "lora_request", None)
    if lora is not None:
        parts.append(f"lora={lora.lora_name} {getattr(lora, 'lora_path', '')}")
    for feature in getattr(request, "mm_features", None) or ():
        position = feature.mm_position
        parts.append(f"mm={feature.identifier} {position.offset} {position.length}")
    if not parts:
        return ""
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _tokens_of(request: Any, count: int) -> list[int]:
    return list(request.all_token_ids[:count])
