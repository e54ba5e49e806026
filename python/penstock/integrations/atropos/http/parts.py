"""Groups smaller than their environment announced: how many sequences wait for a whole group.

Atropos's server keeps them back until some of one environment add up to its group size, and reports
how many. Here they lie in the queue, where any batch may take them; the same number is reported.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

__all__ = ["Parts"]

_MOST_KEPT: Final = 256  # for each environment; older ones are forgotten
_LARGEST_WHOLE: Final = 65_536  # no batch is larger


class Parts:
    """Sizes of small groups, by environment. One thread at a time."""

    def __init__(self) -> None:
        self._sizes: defaultdict[int, list[int]] = defaultdict(list)

    def add(self, env_id: int, size: int, whole: int) -> int:
        """Adds a group of ``size`` sequences, where whole groups have ``whole``; returns how many
        wait then."""
        sizes = self._sizes[env_id]
        sizes.append(size)
        del sizes[:-_MOST_KEPT]
        for at in reversed(_oldest_sum(sizes, whole)):
            del sizes[at]
        return sum(sizes)

    def take(self, env_id: int, size: int) -> None:
        """A batch has taken the group."""
        sizes = self._sizes.get(env_id)
        if sizes and size in sizes:
            sizes.remove(size)

    def clear(self) -> None:
        """Forgets all groups."""
        self._sizes.clear()


def _oldest_sum(sizes: list[int], whole: int) -> list[int]:
    """Indices, in order, whose sizes add up to ``whole``: the oldest ones if they do, otherwise
    any; or none."""
    chosen: list[int] = []
    left = whole
    for at, size in enumerate(sizes):
        if size <= left:
            chosen.append(at)
            left -= size
    if left == 0:
        return chosen
    return _any_sum(sizes, whole) if whole <= _LARGEST_WHOLE else []


def _any_sum(sizes: list[int], whole: int) -> list[int]:
    """Bit n of the sums says that n can be made of the sizes before it."""
    sums = [1]
    for size in sizes:
        sums.append((sums[-1] | sums[-1] << size) & ((2 << whole) - 1))
    if not sums[-1] >> whole & 1:
        return []
    chosen = []
    left = whole
    for at in range(len(sizes) - 1, -1, -1):
        if sizes[at] <= left and sums[at] >> (left - sizes[at]) & 1:
            chosen.append(at)
            left -= sizes[at]
    return chosen[::-1]
