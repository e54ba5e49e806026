"""Groups smaller than their environment said: how many wait for others to make a whole.

Atropos's server keeps them back until some of one environment add up to its group size, and says
how many.
Here they lie in the queue, where any batch may have them; what is told is the same.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

__all__ = ["Parts"]

_MOST_KEPT: Final = 256  # of an environment; older ones are forgotten
_LARGEST_WHOLE: Final = 65_536  # no batch is larger


class Parts:
    """Their sizes, by environment. One thread at a time."""

    def __init__(self) -> None:
        self._sizes: defaultdict[int, list[int]] = defaultdict(list)

    def add(self, env_id: int, size: int, whole: int) -> int:
        """One of ``size`` sequences, where groups have ``whole``: how many are kept back then."""
        sizes = self._sizes[env_id]
        sizes.append(size)
        del sizes[:-_MOST_KEPT]
        for at in reversed(_oldest_sum(sizes, whole)):
            del sizes[at]
        return sum(sizes)

    def take(self, env_id: int, size: int) -> None:
        """A batch had it."""
        sizes = self._sizes.get(env_id)
        if sizes and size in sizes:
            sizes.remove(size)

    def clear(self) -> None:
        """Nothing waits."""
        self._sizes.clear()


def _oldest_sum(sizes: list[int], whole: int) -> list[int]:
    """Places, in order, whose sizes make ``whole``; the oldest if they do, else any; or none."""
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
    """Bit n of the sums says that n can be made of the sizes before."""
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
