"""The chunks of a server's pool by key: found and pinned, copied in by the server, or given to a
worker as a slot to write. If room is short, requests release chunks that they keep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from ... import _core
from ...errors import AlreadyExists, Busy, NoSpace, TooLarge
from ...store import Store
from . import server_slots as slots
from .server_slots import Slot, Staged
from .server_writers import Process, namespace

__all__ = ["ChunkPool"]

T = TypeVar("T")


class ChunkPool:
    """``make_room`` releases something that was kept; False: nothing is left to release."""

    def __init__(self, store: Store, server: str, make_room: Callable[[], bool]) -> None:
        self._store = store
        self._server = server  # names this server in the slots that it reserves
        self._make_room = make_room

    def find(self, key: bytes) -> _core.StoreView | None:
        """The chunk, pinned."""
        return slots.find(self._store, key)

    def find_any(self, keys: Iterable[bytes]) -> _core.StoreView | None:
        """The first of the keys that is resident."""
        return next((view for view in map(self.find, keys) if view is not None), None)

    def pin_all(self, keys: list[bytes]) -> list[_core.StoreView] | None:
        """All chunks, pinned; None: one is missing."""
        views: list[_core.StoreView] = []
        for key in keys:
            view = self.find(key)
            if view is None:
                for one in views:
                    one.release()
                return None
            views.append(view)
        return views

    def has(self, key: bytes) -> bool:
        view = self.find(key)
        if view is not None:
            view.release()
        return view is not None

    def copy_of(self, pinned: _core.StoreView) -> bytes:
        again = self._store._get_ref(*pinned.ref)
        assert again is not None, "it is pinned"
        with again as data:
            return bytes(data)

    def reserve(self, key: bytes, nbytes: int, processes: Sequence[Process]) -> Slot | None:
        """A slot for these writers. None: another worker writes it, or there is no room."""
        writer = {
            "server": self._server,
            "chunk": key,
            "namespace": namespace(),
            "processes": [one.to_record() for one in processes],
        }
        return self._unless_refused(lambda: slots.reserve(self._store, key, nbytes, writer))

    def stage_missing(
        self, chunks: Sequence[int], keys: list[bytes], nbytes: int
    ) -> tuple[dict[int, Staged], bool]:
        """Room for the missing chunks; and whether these are all that is missing."""
        staged: dict[int, Staged] = {}
        is_whole = True
        for chunk in chunks:
            if self.has(keys[chunk]):
                continue
            one = self._stage(keys[chunk], nbytes)
            if one is not None:
                staged[chunk] = one
            else:
                is_whole &= self.has(keys[chunk])
        return staged, is_whole

    def put_all(self, keys: list[bytes], chunks: Sequence[Any], nbytes: int) -> bool:
        """Puts every chunk; each has that many bytes."""
        is_stored = len(chunks) >= len(keys)
        for key, data in zip(keys, chunks, strict=False):
            is_stored &= self.has(key) or self._put(key, data, nbytes)
        return is_stored

    def _put(self, key: bytes, data: Any, nbytes: int) -> bool:
        if len(data) != nbytes:
            return False
        staged = self._stage(key, nbytes)
        if staged is None:
            return self.has(key)
        staged.room[:] = data
        return staged.publish()

    def _stage(self, key: bytes, nbytes: int) -> Staged | None:
        """None: another worker writes it, or there is no room."""
        writer = {"server": self._server, "chunk": key}
        return self._unless_refused(lambda: slots.stage(self._store, key, nbytes, writer))

    def _unless_refused(self, act: Callable[[], T]) -> T | None:
        try:
            return self._with_room(act)
        except (AlreadyExists, Busy, NoSpace, TooLarge):
            return None

    def _with_room(self, act: Callable[[], T]) -> T:
        while True:
            with suppress(NoSpace):
                return act()
            if not self._make_room():
                raise NoSpace(f"all of '{self._store.name}' is being read and written")
