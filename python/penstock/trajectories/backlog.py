"""How much waits, as one environment that asks for work has to count it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, NamedTuple

from .state import EnvironmentStats

__all__ = ["Backlog", "backlog_of", "queue_name"]

_LONGEST_NAME: Final = 64


class Backlog(NamedTuple):
    """Sequences that wait; ``beyond`` are others' that their minimum shares don't ask for."""

    own: int
    beyond: int
    largest: int  #: sequences of the largest group that waits, 1 if none does
    own_largest: int  #: the same of the environment's own, 0 if none does


def backlog_of(environments: Iterable[EnvironmentStats], name: str, batch_size: int) -> Backlog:
    """For the environment of that name in the queue. The others' groups count as if they came in
    groups of the largest size, as Atropos packs them."""
    environments = list(environments)
    own = [one for one in environments if one.name == name]
    largest = max((one.largest_waiting for one in environments), default=1) or 1
    return Backlog(
        own=sum(one.waiting_sequences for one in own),
        beyond=sum(
            _beyond_minimum(one, largest, batch_size) for one in environments if one.name != name
        ),
        largest=largest,
        own_largest=max((one.largest_waiting for one in own), default=0),
    )


def _beyond_minimum(one: EnvironmentStats, largest: int, batch_size: int) -> int:
    """Sequences of an environment that others need not make, rounded up to ``largest``."""
    if largest <= 1:  # as Atropos counts: where nothing is packed, each fills its own part
        return 0
    packed = -(-one.waiting_sequences // largest) * largest
    return max(0, packed - int(batch_size * one.min_share))


def queue_name(name: str) -> str:
    """The name of an environment in the queue, which takes 64 bytes and nothing unprintable."""
    if len(name.encode()) <= _LONGEST_NAME and name.isprintable():
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
    plain = "".join(one for one in name if one.isprintable())
    return f"{plain.encode()[: _LONGEST_NAME - 17].decode(errors='ignore')}~{digest}"
