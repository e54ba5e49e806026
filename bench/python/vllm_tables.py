"""The tables of bench_vllm.py, in Markdown: vLLM's figure, and how many times better each of
Penstock's is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["tables"]

OWN, BALANCED, LATENCY = "vLLM", "Penstock", "Penstock, latency"
Record = dict[str, Any]


def tables(records: list[Record]) -> Iterator[str]:
    """Line by line; of those parts that were run."""
    parts = {record["part"] for record in records}
    for part, write in WRITERS.items():
        if part in parts:
            yield ""
            yield from write([one for one in records if one["part"] == part])


def messages(records: list[Record]) -> Iterator[str]:
    yield from _head(
        "readers", "size", "one way, us: vLLM", "Penstock", "latency", "messages/s: vLLM",
        "Penstock", "latency", "processors: vLLM", "Penstock", "latency", "ping-pong, ns",
    )  # fmt: skip
    for (readers, size), by_who in _cases(records, "readers", "size"):
        yield _row(
            readers,
            size,
            *_times(by_who, "p50_ns"),
            *_rates(by_who),
            *(f"{by_who[who]['processors']:.2f}" for who in (OWN, BALANCED, LATENCY)),
            f"{by_who[OWN].get('moment_ns', 0):.0f}",
        )


def calls(records: list[Record]) -> Iterator[str]:
    yield from _head(
        "gap, ms", "call, us: vLLM", "Penstock", "latency", "p99: vLLM", "Penstock", "latency",
        "processors of the workers: vLLM", "Penstock", "latency",
    )  # fmt: skip
    for (gap,), by_who in _cases(records, "gap_ms"):
        yield _row(
            f"{gap:g}",
            *_times(by_who, "p50_ns"),
            *_times(by_who, "p99_ns"),
            *(f"{by_who[who]['workers_processors']:.3f}" for who in (OWN, BALANCED, LATENCY)),
        )


def wakes(records: list[Record]) -> Iterator[str]:
    yield from _head("parked readers", "wake, us: vLLM", "Penstock", "latency")
    for (readers,), by_who in _cases(records, "readers"):
        yield _row(readers, *_times(by_who, "p50_ns"))


def idle(records: list[Record]) -> Iterator[str]:
    yield from _head("four idle readers", "first second, processor s", "next three seconds")
    for one in records:
        yield _row(one["who"], f"{one['first_second']:.4f}", f"{one['next_three_seconds']:.4f}")


def memory(records: list[Record]) -> Iterator[str]:
    names = ("files_bytes", "new_bytes", "after_calls_bytes", "after_1_mib_bytes")
    yield from _head("queues of two workers, MiB", *(one.removesuffix("_bytes") for one in names))
    for one in records:
        yield _row(one["who"], *(f"{one[name] / (1 << 20):.1f}" for name in names))


def deaths(records: list[Record]) -> Iterator[str]:
    yield from _head("", "dead", "noticed", "longest, ms")
    for one in records:
        longest = "" if one["longest_ms"] is None else f"{one['longest_ms']:.1f}"
        yield _row(one["who"], one["dead"], f"{one['noticed']} of {one['of']}", longest)


WRITERS = {
    "messages": messages,
    "calls": calls,
    "wakes": wakes,
    "idle": idle,
    "memory": memory,
    "deaths": deaths,
}


def _cases(
    records: list[Record], *keys: str
) -> Iterable[tuple[tuple[Any, ...], dict[str, Record]]]:
    found: dict[tuple[Any, ...], dict[str, Record]] = {}
    for record in records:
        case = tuple(record[key] for key in keys)
        found.setdefault(case, {})[record["who"]] = record
    return found.items()


def _times(by_who: dict[str, Record], field: str) -> Iterator[str]:
    own = by_who[OWN][field]
    yield f"{own / 1e3:.0f}"
    for who in (BALANCED, LATENCY):
        ours = by_who[who][field]
        yield f"{ours / 1e3:.0f} ({own / ours:.1f} x)"


def _rates(by_who: dict[str, Record]) -> Iterator[str]:
    own = by_who[OWN]["messages_per_second"]
    yield f"{own:.0f}"
    for who in (BALANCED, LATENCY):
        ours = by_who[who]["messages_per_second"]
        yield f"{ours:.0f} ({ours / own:.1f} x)"


def _head(*names: str) -> Iterator[str]:
    yield _row(*names)
    yield _row(*("---" for _ in names))


def _row(*cells: Any) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"
