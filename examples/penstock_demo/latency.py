"""Latencies, counted in buckets that grow by 4.4 % each, from 1 µs to 100 s. Counts of different
workers and moments can be added and subtracted, unlike percentiles."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

_PER_OCTAVE = 16
_OCTAVES = 27  # 1 µs * 2**27 = 134 s
BUCKETS = _PER_OCTAVE * _OCTAVES
_SMALLEST = 1e-6


def no_counts() -> Counts:
    return np.zeros(BUCKETS, dtype=np.int64)


def count(counts: Counts, nanoseconds: list[int]) -> None:
    """Add measured times to the counts."""
    spans = np.maximum(np.asarray(nanoseconds, dtype=np.float64) * 1e-9, _SMALLEST)
    places = (np.log2(spans / _SMALLEST) * _PER_OCTAVE).astype(np.int64)
    np.add.at(counts, np.minimum(places, BUCKETS - 1), 1)


def percentile(counts: Counts, share: float) -> float | None:
    """The time in seconds that `share` (0.5, 0.99) of the samples did not exceed, or None."""
    total = int(counts.sum())
    if total == 0:
        return None
    place = int(np.searchsorted(np.cumsum(counts), share * total))
    return float(_SMALLEST * 2 ** ((min(place, BUCKETS - 1) + 0.5) / _PER_OCTAVE))
