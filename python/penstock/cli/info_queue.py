"""`penstock info NAME` for a queue: fill level, rates, messages in progress, dead letters."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from penstock.cli import describe, ls, output, units
from penstock.state import QueueInfo
from penstock.trajectories import TrajectoryInfo, TrajectoryStats


def lines(info: QueueInfo, before: QueueInfo | None, seconds: float) -> list[str]:
    """Text for people. `before`: an inspection `seconds` earlier, for the rates."""
    segment, stats = info.segment, info.stats
    waiting = f"{units.plural(stats.queued, 'message')}, {units.size(stats.queued_bytes)}"
    if stats.queued:
        waiting += f", the oldest for {units.duration(stats.oldest)}"
    used = stats.queued + stats.in_flight + stats.dead_letters
    slots = f"{units.count(used)} of {units.count(stats.slots)} in use"
    if stats.dead_letters:
        slots += f", {units.count(stats.dead_letters)} by dead letters"
    facts = [
        ("memory", describe.memory(segment)),
        (
            "accepted",
            f"{units.plural(stats.accepted, 'message')}, {units.size(stats.accepted_bytes)}",
        ),
    ]
    if before:
        rates = _rates(info, before, seconds)
        facts.append(
            (
                "now",
                f"{units.count(rates['accepted_per_s'])} messages/s in, "
                f"{units.count(rates['acknowledged_per_s'])} out",
            )
        )
    facts += [
        ("queued", waiting),
        ("in flight", units.plural(stats.in_flight, "message")),
        *([("waiting", _requests(info))] if info.requests else ()),
        ("slots", slots),
        ("blocks", f"{units.size(stats.held_bytes)} of {units.size(stats.capacity)} in use"),
        (
            "came back",
            f"{units.count(stats.nacked)} nacked, {units.count(stats.deaths)} deaths",
        ),
        ("dead letters", _dead_letters(info)),
        ("dropped", units.count(stats.dropped)),
        ("stream", _stream(info)),
        *(_trajectory_facts(info.trajectories) if isinstance(info, TrajectoryInfo) else ()),
    ]
    return [
        f"{output.colour(segment.name, 'bold')}  {segment.kind}  {describe.state(segment)}",
        *output.columns([(f"  {label}", value) for label, value in facts]),
        *(_environments(info.trajectories) if isinstance(info, TrajectoryInfo) else ()),
        "",
        "attached",
        *ls.participant_lines(segment),
    ]


def to_json(info: QueueInfo, before: QueueInfo | None, seconds: float) -> dict[str, Any]:
    """JSON for programs."""
    trajectories = asdict(info.trajectories) if isinstance(info, TrajectoryInfo) else None
    return {
        **describe.segment_json(info.segment),
        "rates": _rates(info, before, seconds) if before else None,
        "stats": asdict(info.stats),
        "requests": [asdict(request) for request in info.requests],
        "dead_letters": info.dead_letters,
        "ends_with": info.ends_with,
        "trajectories": trajectories,
    }


def _trajectory_facts(stats: TrajectoryStats) -> list[tuple[str, str]]:
    staleness = "any age" if stats.max_staleness is None else f"at most {stats.max_staleness} old"
    batch = units.count(stats.batch_sequences) if stats.batch_sequences else "no trainer yet, ?"
    return [
        ("policy", f"version {units.count(stats.version)}, groups of {staleness}"),
        ("batch", f"{batch} sequences"),
        (
            "trained on",
            f"{units.plural(stats.sequences, 'sequence')} in "
            f"{units.plural(stats.groups, 'group')}, "
            f"{units.count(stats.dropped_stale)} groups dropped for their age",
        ),
        *_dead_letter_facts(stats),
    ]


def _dead_letter_facts(stats: TrajectoryStats) -> list[tuple[str, str]]:
    facts = []
    if stats.max_tokens is not None:
        facts.append(("sequences", f"of at most {units.plural(stats.max_tokens, 'token')}"))
    if stats.dead_lettered:
        groups = units.plural(stats.dead_lettered, "group")
        facts.append(("misfits", f"{groups} that no batch could be made of: dead letters"))
    return facts


def _environments(stats: TrajectoryStats) -> list[str]:
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
        for one in stats.environments
    ]
    return ["", "environments", *output.columns(rows, right=range(1, 6))]


def _rates(info: QueueInfo, before: QueueInfo, seconds: float) -> dict[str, float]:
    return {
        "accepted_per_s": (info.stats.accepted - before.stats.accepted) / seconds,
        "acknowledged_per_s": (info.stats.acknowledged - before.stats.acknowledged) / seconds,
    }


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
