"""One result as one line of JSON on stdout, gathered by bench/run.py."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any


def print_record(bench: str, who: str, **fields: Any) -> None:
    print(json.dumps({"bench": bench, "who": who, **fields}), flush=True)


def latency_fields(turns: Sequence[Sequence[float]], divisor: float) -> dict[str, Any]:
    """Quantiles in nanoseconds over all turns, each sample divided, and each turn's median."""
    everything = sorted(sample / divisor for turn in turns for sample in turn)

    def quantile(q: float) -> float:
        return everything[min(int(q * len(everything)), len(everything) - 1)]

    return {
        "count": len(everything),
        "p50_ns": quantile(0.5),
        "p99_ns": quantile(0.99),
        "p999_ns": quantile(0.999),
        "p9999_ns": quantile(0.9999),
        "max_ns": everything[-1],
        "turn_p50_ns": [statistics.median(turn) / divisor for turn in turns],
    }


def moment_fields(turns: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The bare ping-pong of the same turns, one way, from its round trips: where the processors
    were. Nothing if it did not take part."""
    medians = [statistics.median(turn) / 2 for turn in turns if turn]
    return {"moment_ns": statistics.median(medians), "turn_moment_ns": medians} if medians else {}
