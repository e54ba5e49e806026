"""`penstock info NAME` for a queue: fill level, rates, messages in progress, dead letters."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from penstock.cli import output, stats, units
from penstock.state import QueueInfo
from penstock.trajectories import TrajectoryInfo, TrajectoryStats


def facts(info: QueueInfo, growth: stats.Rates | None) -> list[tuple[str, str]]:
    """Labels with a sentence each: what is queued, rates, slots, dead letters, the stream."""
    now = info.stats
    waiting = f"{units.plural(now.queued, 'message')}, {units.size(now.queued_bytes)}"
    if now.queued:
        waiting += f", the oldest for {units.duration(now.oldest)}"
    used = now.queued + now.in_flight + now.dead_letters
    slots = f"{units.count(used)} of {units.count(now.slots)} in use"
    if now.dead_letters:
        slots += f", {units.count(now.dead_letters)} by dead letters"
    told = [("queued", waiting)]
    if growth:
        accepted, done = growth["accepted_per_s"], growth["acknowledged_per_s"]
        told.append(("now", f"{units.count(accepted)} messages/s in, {units.count(done)} out"))
    return [
        *told,
        *([("waiting", _requests(info))] if info.requests else ()),
        ("slots", slots),
        ("dead letters", _dead_letters(info)),
        ("stream", _stream(info)),
        *(_trajectory_facts(info.trajectories) if isinstance(info, TrajectoryInfo) else ()),
    ]


def sections(info: QueueInfo) -> list[str]:
    """A line for each environment, and the statistics of the trajectories."""
    if not isinstance(info, TrajectoryInfo):
        return []
    accounts = stats.lines(info.trajectories, None)
    return [*_environments(info.trajectories), "", "trajectories", *accounts]


def to_json(info: QueueInfo, _growth: stats.Rates | None) -> dict[str, Any]:
    """The members of the JSON object that only a queue has."""
    return {
        "requests": [asdict(request) for request in info.requests],
        "dead_letters": info.dead_letters,
        "ends_with": info.ends_with,
        "trajectories": info.trajectories.asdict() if isinstance(info, TrajectoryInfo) else None,
    }


def _trajectory_facts(now: TrajectoryStats) -> list[tuple[str, str]]:
    staleness = "any age" if now.max_staleness is None else f"at most {now.max_staleness} old"
    batch = units.count(now.batch_sequences) if now.batch_sequences else "no trainer yet, ?"
    told = [
        ("policy", f"version {units.count(now.version)}, groups of {staleness}"),
        ("batch", f"{batch} sequences"),
    ]
    if now.dead_lettered:
        groups = units.plural(now.dead_lettered, "group")
        told.append(("misfits", f"{groups} that no batch could be made of: dead letters"))
    return told


def _environments(now: TrajectoryStats) -> list[str]:
    rows = [("  environment", "writers", "weight", "share", "running", "waiting, sequences")]
    rows += [
        (
            f"  {one.name or '(gone)'}",
            units.count(one.writers),
            f"{one.weight:g}",
            f"{one.min_share:.0%}",
            units.count(one.running_sequences),
            units.count(one.waiting_sequences),
        )
        for one in now.environments
    ]
    return ["", "environments", *output.columns(rows, right=range(1, 6))]


def _requests(info: QueueInfo) -> str:
    """The waiting requests and their sizes, in the order of service."""
    what = "sequence" if isinstance(info, TrajectoryInfo) else "message"
    pids = {one.slot: one.pid for one in info.segment.participants}
    return "; ".join(
        f"pid {pids.get(one.slot, '?')} for {units.plural(one.requested, what)}"
        + (", passed: it gives no sign of life" if one.passed else "")
        for one in info.requests
    )


def _dead_letters(info: QueueInfo) -> str:
    if not info.stats.dead_letters:
        return "0"
    numbers = ", ".join(map(str, info.dead_letters[:10]))
    more = ", ..." if info.stats.dead_letters > 10 else ""
    return (
        f"{units.count(info.stats.dead_letters)}: {numbers}{more} "
        f"(`penstock dead {info.segment.name}` shows, requeues or drops them)"
    )


def _stream(info: QueueInfo) -> str:
    if info.stats.closed:
        return "ended; what is queued can still be had"
    whose = {"creator": "its creator", "last_producer": "its last producer"}[info.ends_with]
    return f"open; ends when {whose} closes, or by end()"
