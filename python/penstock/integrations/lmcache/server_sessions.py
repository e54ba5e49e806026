"""Requests of LMCache's protocol: the hashes and keys of their chunks, and the chunks that their
look-ups keep. A request is known from its first message on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from ... import _core
from .keys import KEY_PREFIX, Namespace, chunk_hashes
from .server_workers import Layout, RequestKey

__all__ = ["CHUNK_PREFIX", "Session", "Sessions"]

CHUNK_PREFIX: Final = b"lm1:"


class Session:
    """One request: its hashes, and the chunks kept for it."""

    def __init__(self) -> None:
        self.tokens: tuple[int, ...] = ()
        self.hashes: list[bytes] = []
        self.chunks: int | None = None  # number of chunks that its look-up found
        self.held: dict[tuple[int, int], _core.StoreView] = {}  # by chunk and rank
        self.seen = time.monotonic()

    def let_go(self) -> bool:
        """Releases its chunks to eviction. False: it kept none."""
        had, self.held = self.held, {}
        for view in had.values():
            view.release()
        return bool(had)


class Sessions:
    """All requests of a server. Used under its lock."""

    def __init__(self, chunk_tokens: int) -> None:
        self._chunk_tokens = chunk_tokens
        self._sessions: dict[str, Session] = {}  # ordered by last use
        self._ranks: dict[tuple[str, int, int], Layout] = {}  # of model, world size and rank

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._sessions

    def find(self, request_id: str) -> Session | None:
        return self._sessions.get(request_id)

    def use(self, request_id: str) -> Session:
        """The session of that request, created if it is unknown."""
        session = self._sessions.pop(request_id, None) or Session()
        self._sessions[request_id] = session
        session.seen = time.monotonic()
        return session

    def end(self, request_id: str) -> None:
        session = self._sessions.pop(request_id, None)
        if session is not None:
            session.let_go()

    def let_oldest_go(self) -> bool:
        """Releases the chunks of the request that was quiet for longest; its retrieve will be a
        miss. False: no request keeps any."""
        return any(session.let_go() for session in self._sessions.values())

    def let_all_go(self) -> None:
        for session in self._sessions.values():
            session.let_go()

    def end_all(self) -> None:
        self.let_all_go()
        self._sessions.clear()

    def end_late(self, limit: float) -> None:
        """Ends sessions that were last used before that time."""
        for request_id, session in list(self._sessions.items()):
            if session.seen > limit:
                break
            self.end(request_id)

    def forgive(self, seconds: float) -> None:
        """Ignores a time during which the server was stopped."""
        for session in self._sessions.values():
            session.seen += seconds

    def keys(self, key: RequestKey, layout: Layout) -> list[bytes]:
        """Keys of the range, for a worker of that layout."""
        if key.worker_id is None:
            raise ValueError("a worker's key has a worker_id")
        size = self._chunk_tokens
        if key.start % size or key.end % size or not 0 <= key.start <= key.end:
            raise ValueError(f"the range {key.start} to {key.end} is not of whole chunks of {size}")
        if key.end > len(key.token_ids):
            raise ValueError(f"the range ends at {key.end}, of {len(key.token_ids)} tokens")
        self._ranks[key.model_name, key.world_size, key.worker_id] = layout
        hashes = self._hashes(key, self.use(key.request_id))
        wanted = hashes[key.start // size : key.end // size]
        return _keys_of(key, key.worker_id, layout, wanted)

    def candidates(
        self, key: RequestKey, rank: int, session: Session, layouts: set[Layout]
    ) -> list[list[bytes]]:
        """Keys that the request's chunks may have for a rank: for each layout of the model's
        workers, or for the rank's own if that is known."""
        known = self._ranks.get((key.model_name, key.world_size, rank))
        if known in layouts:
            layouts = {known}
        hashes = self._hashes(key, session)
        return [_keys_of(key, rank, layout, hashes) for layout in layouts]

    def _hashes(self, key: RequestKey, session: Session) -> list[bytes]:
        """Hashes of the whole chunks up to the range's end; computed once for a request."""
        chunks = min(key.end, len(key.token_ids)) // self._chunk_tokens
        tokens = tuple(key.token_ids[: chunks * self._chunk_tokens])
        if session.tokens[: len(tokens)] != tokens:
            session.tokens, session.hashes = tokens, chunk_hashes(tokens, self._chunk_tokens)
        return session.hashes[:chunks]


def _keys_of(key: RequestKey, rank: int, layout: Layout, hashes: Sequence[bytes]) -> list[bytes]:
    """One group: the protocol's workers write one object for each chunk."""
    arranged = f"lmcache {layout.shape} {layout.dtype}"
    names = Namespace(key.model_name, key.world_size, rank, 0, key.cache_salt, arranged)
    return [CHUNK_PREFIX + name.removeprefix(KEY_PREFIX) for name in names.keys(hashes)]
