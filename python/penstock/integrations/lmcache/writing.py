"""Who is being written, by somebody alive: the store itself asks the kernel only when it needs the
key, and until then it shows what the dead have reserved, too."""

from __future__ import annotations

from collections.abc import Iterable

from ... import _core
from ...store import Store

__all__ = ["being_written"]


def being_written(store: Store, keys: Iterable[bytes]) -> set[bytes]:
    """Those of the keys that somebody alive has reserved now."""
    looks = {key: store.look(key) for key in keys}
    staged = {key: look.staged_by for key, look in looks.items() if look.state == "staged"}
    if not staged:
        return set()
    participants = _core.inspect_segment(store.name)["participants"]
    alive = {one["slot"] for one in participants if one["alive"]}
    return {key for key, place in staged.items() if place in alive}
