"""What `penstock info NAME` says of a broadcast: the ring, its readers, and which of them block."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from penstock.cli import stats, units
from penstock.state import BroadcastInfo, ReaderState


def facts(info: BroadcastInfo, growth: stats.Rates | None) -> list[tuple[str, str]]:
    """Labels with a sentence each: rates, the ring, and what the writer waits for."""
    used, capacity = info.stats.used_bytes, info.stats.capacity
    told = [
        ("ring", f"{_bar(used / max(capacity, 1))} {units.size(used)} of {units.size(capacity)}"),
        ("writer", _writer_state(info)),
    ]
    if growth:
        messages = units.count(growth["messages_per_s"])
        gigabytes = units.gigabytes(growth["bytes_per_s"])
        told.insert(0, ("now", f"{messages} messages/s, {gigabytes} GB/s"))
    return told


def sections(info: BroadcastInfo) -> list[str]:
    """A line for each reader."""
    return ["", "readers", *(f"    {reader.describe()}" for reader in info.readers)]


def to_json(info: BroadcastInfo, _growth: stats.Rates | None) -> dict[str, Any]:
    """The members of the JSON object that only a broadcast has."""
    readers = [asdict(reader) for reader in info.readers]
    for reader in readers:
        del reader["description"]
    return {
        "closed": info.closed,
        "writer_blocked_for": info.writer_blocked_for,
        "blocked_by": [reader.rank for reader in blockers(info)],
        "readers": readers,
    }


def _bar(share: float, width: int = 20) -> str:
    full = round(min(max(share, 0.0), 1.0) * width)
    return "█" * full + "░" * (width - full)


def blockers(info: BroadcastInfo) -> list[ReaderState]:
    """The readers that block the writer."""
    return [reader for reader in info.readers if reader.blocking_for > 0]


def _writer_state(info: BroadcastInfo) -> str:
    if info.closed:
        return "closed; readers may still drain"
    if info.writer_blocked_for > 0:
        ranks = ", ".join(f"reader {reader.rank}" for reader in blockers(info)) or "memory"
        return f"waiting for {ranks}, for {units.duration(info.writer_blocked_for)}"
    return "not waiting"
