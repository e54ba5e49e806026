"""Names given by Atropos' users, and the segments that they stand for."""

from __future__ import annotations

import hashlib
import os
import re
from typing import Any, Final

__all__ = ["SCHEME", "segment_name"]

#: Scheme of a queue's address, where a server's address is expected: ``shm://rollouts``.
SCHEME: Final = "shm://"

_PLAIN: Final = re.compile(r"[A-Za-z0-9._-]{1,200}\Z")
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9._-]")
_PREFIX: Final = "atropos-name."
_READABLE: Final = 120  # letters of the name that stay readable


def segment_name(name: Any) -> Any:
    """The segment that a name stands for, the same in every process.

    Names of ``[A-Za-z0-9._-]{1,200}``, ``file:`` names and path objects stand for themselves.
    Others, such as ``atropos_shm_My run/3``, become ``atropos-name.``, their readable part, and 128
    bits of a hash: no two names share a segment.
    """
    if not isinstance(name, str) or isinstance(name, os.PathLike):
        return name
    if name == "" or name.startswith("file:"):
        return name
    if _PLAIN.match(name) and not name.startswith(_PREFIX):
        return str(name)
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{_PREFIX}{_FOREIGN.sub('_', name)[:_READABLE]}.{digest}"
