"""Finds keys that a living process is writing: the store itself checks the writer only when it
needs the key, and until then also shows reservations of dead processes."""

from __future__ import annotations

from collections.abc import Iterable

from ... import _core
from ...store import Store

__all__ = ["being_written"]


def being_written(store: Store, keys: Iterable[bytes]) -> set[bytes]:
    """The keys that a living process has reserved now."""
    looks = {key: store.look(key) for key in keys}
    staged = {key: look.staged_by for key, look in looks.items() if look.state == "staged"}
    if not staged:
        return set()
    participants = _core.inspect_segment(store.name)["participants"]
    alive = {one["slot"] for one in participants if one["alive"]}
    return {key for key, place in staged.items() if place in alive}
