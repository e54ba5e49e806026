"""What `penstock info NAME` says of a store: how full it is, and how often objects are found."""

from __future__ import annotations

from typing import Any

from penstock.cli import stats, units
from penstock.state import StoreInfo


def facts(info: StoreInfo, growth: stats.Rates | None) -> list[tuple[str, str]]:
    """Labels with a sentence each: objects, room, hits, rates."""
    now = info.stats
    told = [
        ("objects", f"{units.count(now.objects)}, {units.size(now.object_bytes)}"),
        ("room", f"{units.size(now.used_bytes)} of {units.size(now.capacity)} used"),
        ("found", _share(now.hits, now.misses)),
    ]
    if growth:
        rates = (
            f"{units.count(_looks(growth))} looks/s",
            f"{units.count(growth['committed_per_s'])} committed/s",
            f"{units.count(growth['evicted_per_s'])} evicted/s",
        )
        told.append(("now", ", ".join(rates)))
    return told


def sections(_info: StoreInfo) -> list[str]:
    """Nothing: the statistics say the rest."""
    return []


def to_json(_info: StoreInfo, growth: stats.Rates | None) -> dict[str, Any]:
    """The member of the JSON object that a store has differently: rates with looks per second."""
    return {"rates": growth and {**growth, "looks_per_s": _looks(growth)}}


def _looks(growth: stats.Rates) -> float:
    return growth["hits_per_s"] + growth["misses_per_s"]


def _share(hits: int, misses: int) -> str:
    looks = hits + misses
    share = f", {hits / looks:.1%}" if looks else ""
    return f"{units.count(hits)} of {units.count(looks)} times{share}"
