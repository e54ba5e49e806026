"""Names of LMCache's object keys in a store: the text that its native connectors use, so that both
of Penstock's L2 adapters find each other's chunks."""

from __future__ import annotations

from typing import Any

from lmcache.v1.distributed.api import ObjectKey

__all__ = ["key_text", "parse_key_text"]

_SEPARATOR = "@"  # ObjectKey allows it in no model's name and in no salt


def key_text(key: Any) -> str:
    """The text of an ``ObjectKey``: ``model@rank@group@hash``, and ``@salt`` if there is one."""
    fields = [
        key.model_name,
        f"{key.kv_rank:08x}",
        f"{key.object_group_id:x}",
        key.chunk_hash.hex(),
    ]
    if key.cache_salt:
        fields.append(key.cache_salt)
    return _SEPARATOR.join(fields)


def parse_key_text(text: str | bytes) -> Any:
    """The ``ObjectKey``, or None if the text is none."""
    if isinstance(text, bytes):
        return None
    fields = text.split(_SEPARATOR)
    if len(fields) not in (4, 5):
        return None
    try:
        return ObjectKey(
            chunk_hash=bytes.fromhex(fields[3]),
            model_name=fields[0],
            kv_rank=int(fields[1], 16),
            object_group_id=int(fields[2], 16),
            cache_salt=fields[4] if len(fields) == 5 else "",
        )
    except ValueError:
        return None
