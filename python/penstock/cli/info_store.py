"""`penstock info NAME` for a store: objects, their readers, hit rates."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from penstock.cli import describe, ls, output, units
from penstock.state import StoreInfo, StoreStats


def lines(info: StoreInfo, before: StoreInfo | None, seconds: float) -> list[str]:
    """Text for people. `before`: an inspection `seconds` earlier, for the rates."""
    segment, stats = info.segment, info.stats
    facts = [
        ("memory", describe.memory(segment)),
        (
            "objects",
            f"{units.count(stats.objects)}, {units.size(stats.object_bytes)}; about "
            f"{units.count(stats.most_objects)} at most",
        ),
        ("room", f"{units.size(stats.used_bytes)} of {units.size(stats.capacity)} used"),
        (
            "free",
            f"{units.size(stats.free_bytes)}, the longest piece {units.size(stats.largest_free)}",
        ),
    ]
    if before:
        rates = _rates(info, before, seconds)
        facts.append(
            (
                "now",
                f"{units.count(rates['looks_per_s'])} looks/s, "
                f"{units.count(rates['committed_per_s'])} committed/s, "
                f"{units.count(rates['evicted_per_s'])} evicted/s",
            )
        )
    facts += [
        (
            "in use",
            f"{units.count(stats.in_use)} being read, {units.count(stats.retained)} retained",
        ),
        ("being written", f"{units.count(stats.staged)}, {units.size(stats.staged_bytes)}"),
        ("deleted, read", f"{units.count(stats.doomed)}, {units.size(stats.doomed_bytes)}"),
        ("found", _found(stats)),
        ("evicted", f"{units.count(stats.evicted)} by {stats.eviction}"),
        (
            "refused",
            f"{units.count(stats.refused)} for want of room, {units.count(stats.expired)} expired",
        ),
        ("deaths", units.count(stats.deaths)),
    ]
    return [
        f"{output.colour(segment.name, 'bold')}  {segment.kind}  {describe.state(segment)}",
        *output.columns([(f"  {label}", value) for label, value in facts]),
        "",
        "attached",
        *ls.participant_lines(segment),
    ]


def to_json(info: StoreInfo, before: StoreInfo | None, seconds: float) -> dict[str, Any]:
    """JSON for programs."""
    return {
        **describe.segment_json(info.segment),
        "rates": _rates(info, before, seconds) if before else None,
        "stats": asdict(info.stats),
    }


def _found(stats: StoreStats) -> str:
    looks = stats.hits + stats.misses
    share = f", {stats.hits / looks:.1%}" if looks else ""
    return f"{units.count(stats.hits)} of {units.count(looks)} times{share}"


def _rates(info: StoreInfo, before: StoreInfo, seconds: float) -> dict[str, float]:
    now, then = info.stats, before.stats
    return {
        "looks_per_s": (now.hits + now.misses - then.hits - then.misses) / seconds,
        "committed_per_s": (now.committed - then.committed) / seconds,
        "evicted_per_s": (now.evicted - then.evicted) / seconds,
    }
