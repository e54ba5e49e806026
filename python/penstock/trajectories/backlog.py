"""The amount of waiting work, as an environment that asks for work has to count it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Final, NamedTuple

from .state import EnvironmentStats, TrajectoryStats

__all__ = ["Backlog", "Formed", "backlog_of", "queue_name"]

_LONGEST_NAME: Final = 64


class Backlog(NamedTuple):
    """Waiting sequences; ``beyond``: others' sequences beyond their minimum shares."""

    own: int
    beyond: int
    largest: int  #: sequences of the largest waiting group, 1 if there is none
    own_largest: int  #: the same for the environment's own groups, 0 if there is none


def backlog_of(environments: Iterable[EnvironmentStats], name: str, batch_size: int) -> Backlog:
    """For the environment of that name in the queue. Others' groups are counted as if they came in
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
    """Sequences of an environment beyond its minimum share, rounded up to ``largest``."""
    if largest <= 1:  # as Atropos counts: without packing, each fills its own part
        return 0
    packed = -(-one.waiting_sequences // largest) * largest
    return max(0, packed - int(batch_size * one.min_share))


class Formed:
    """Batches that count as made and not as waiting, although their groups lie in the queue.

    When Atropos' server is asked for a batch and has none in store, it makes all batches that it
    can, and hands them out one by one. Environments keep producing meanwhile, which decides how
    much each of them makes. Here each batch is chosen when it is asked for; waiting work is counted
    as there. One thread at a time.
    """

    def __init__(self, taken: int) -> None:
        """Starts when that many batches had been taken from the queue."""
        self._end = taken  # number of batches taken when the formed ones are used up
        self._count = 1
        self._groups: dict[str, int] = {}  # of all formed batches, by environment

    def beyond(self, stats: TrajectoryStats, batch_size: int) -> list[EnvironmentStats]:
        """The environments, with waiting groups that are in none of those batches.

        To be called at each batch taken, or often: a batch that is not one of those makes it form
        new ones.
        """
        if stats.batches > self._end:
            self._form(stats, batch_size)
        left = self._end - stats.batches
        return [
            _without(one, -(-self._groups.get(one.name, 0) * left // self._count))
            for one in stats.environments
        ]

    def _form(self, stats: TrajectoryStats, batch_size: int) -> None:
        count = _formable(stats.environments, batch_size)
        self._end = stats.batches + count
        self._count = max(1, count)
        self._groups = _parts(stats.environments, count * batch_size)


def _formable(environments: Iterable[EnvironmentStats], batch_size: int) -> int:
    """How many batches the waiting groups are enough for, with each environment's minimum."""
    if batch_size < 1:
        return 0
    environments = list(environments)
    enough = [sum(one.waiting_sequences for one in environments) // batch_size]
    shares = max(1.0, sum(one.min_share for one in environments))  # they are scaled to a sum of 1
    for one in environments:
        least = int(batch_size * one.min_share / shares)
        if least > 0:
            enough.append(one.waiting_sequences // least)
    return min(enough)


def _parts(environments: Iterable[EnvironmentStats], sequences: int) -> dict[str, int]:
    """Whole groups of each environment that add up to ``sequences``, in the proportion in which
    they wait; the smallest groups fill what larger ones leave."""
    waiting = [one for one in environments if one.waiting_groups > 0]
    waiting.sort(key=_mean_size, reverse=True)
    part = sequences / max(1, sum(one.waiting_sequences for one in waiting))
    groups: dict[str, int] = {}
    left = float(sequences)
    for one in waiting:
        fitting = min(one.waiting_groups, int(left / _mean_size(one)))
        is_last = one is waiting[-1]
        groups[one.name] = fitting if is_last else min(fitting, round(one.waiting_groups * part))
        left -= groups[one.name] * _mean_size(one)
    return groups


def _mean_size(one: EnvironmentStats) -> float:
    return one.waiting_sequences / one.waiting_groups


def _without(one: EnvironmentStats, groups: int) -> EnvironmentStats:
    if groups >= one.waiting_groups:
        return replace(one, waiting_groups=0, waiting_sequences=0, largest_waiting=0)
    return replace(
        one,
        waiting_groups=one.waiting_groups - groups,
        waiting_sequences=one.waiting_sequences - round(groups * _mean_size(one)),
    )


def queue_name(name: str) -> str:
    """The name of an environment in the queue: 64 bytes at most, without unprintable characters."""
    if len(name.encode()) <= _LONGEST_NAME and name.isprintable():
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
    plain = "".join(one for one in name if one.isprintable())
    return f"{plain.encode()[: _LONGEST_NAME - 17].decode(errors='ignore')}~{digest}"
