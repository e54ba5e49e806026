"""Segments and their participants, as text and as JSON, for `ls`, `info`, `gc` and `doctor`.
Formats what penstock.inspect returns; changes nothing and attaches nowhere."""

from __future__ import annotations

import os
import pwd
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from penstock.cli import output, units
from penstock.state import Participant, SegmentSummary


def condition(segment: SegmentSummary) -> str:
    """One word.

    "live": a living process is attached. "abandoned": none is, and no data is lost with it. "kept":
    none is, and it holds data. "foreign": another user's. "damaged": it can't be read.
    """
    if segment.problem:
        # Large control blocks of other users are not copied (TooLarge).
        is_foreign = segment.problem_code in ("PermissionDenied", "TooLarge")
        return "foreign" if is_foreign else "damaged"
    if not segment.is_abandoned():
        return "live"
    return "kept" if segment.kept else "abandoned"


def state(segment: SegmentSummary) -> str:
    """The state with its colour, and the data kept: "kept: 1000 messages"."""
    word = tint(condition(segment))
    return f"{word}: {segment.kept.describe()}" if segment.kept else word


def life(participant: Participant) -> str:
    """One word: "alive", "stopped" (by SIGSTOP or a debugger) or "dead"."""
    if not participant.alive:
        return "dead"
    return "stopped" if participant.stopped else "alive"


def tint(word: str) -> str:
    """The word in the colour of its meaning."""
    meaning = {
        "dead": "fail",
        "damaged": "fail",
        "stopped": "warn",
        "abandoned": "warn",
        "kept": "warn",
        "foreign": "dim",
    }
    return output.colour(word, meaning.get(word, "ok"))


def owner(segment: SegmentSummary) -> str:
    """For example "of uid 1000 (alice)" for another user's segment, otherwise empty."""
    if segment.owner in (None, os.geteuid()):
        return ""
    try:
        name = f" ({pwd.getpwuid(segment.owner).pw_name})"
    except KeyError:
        name = ""
    return f"of uid {segment.owner}{name}"


def memory(segment: SegmentSummary) -> str:
    """For example "4.1 MiB of 2.0 GiB": memory in use, and the address range if that is larger."""
    reserved = units.size(segment.reserved_bytes)
    if segment.range_bytes <= segment.reserved_bytes:
        return reserved
    return f"{reserved} (may grow to {units.size(segment.range_bytes)})"


def participant_rows(participants: list[Participant]) -> list[tuple[str, str, str, str, str]]:
    """Role, process, pid, start, and how it died; the word for its life is separate, for its
    colour."""
    return [
        (
            one.role,
            one.process,
            f"pid {one.pid}" if one.pid else "",
            since(one.attached_at),
            one.how_it_died,
        )
        for one in participants
    ]


def since(nanoseconds: int) -> str:
    """For example "since 14:03:21", with the date if it was not today."""
    if nanoseconds <= 0:
        return ""
    moment = datetime.fromtimestamp(nanoseconds / 1e9)  # local time, for people
    same_day = moment.date() == datetime.now().date()
    return f"since {moment:%H:%M:%S}" if same_day else f"since {moment:%Y-%m-%d %H:%M}"


def segment_json(segment: SegmentSummary) -> dict[str, Any]:
    return {
        "name": segment.name,
        "kind": str(segment.kind),
        "condition": condition(segment),
        "reserved_bytes": segment.reserved_bytes,
        "range_bytes": segment.range_bytes,
        "owner": segment.owner,
        "kept": kept_json(segment),
        "problem": segment.problem,
        "participants": [_participant_json(one) for one in segment.participants],
        "reaped": [_participant_json(one) for one in segment.reaped],
    }


def kept_json(segment: SegmentSummary) -> dict[str, Any] | None:
    """The data lost with an abandoned segment; None if there is none."""
    kept = segment.kept
    return asdict(kept) if kept else None


def _participant_json(one: Participant) -> dict[str, Any]:
    attached = datetime.fromtimestamp(one.attached_at / 1e9, tz=timezone.utc)
    return {
        "slot": one.slot,
        "role": one.role,
        "life": life(one),
        "pid": one.pid,
        "process": one.process,
        "attached_at": attached.isoformat() if one.attached_at else None,
        "exit_code": one.exit_code,
        "signal": one.signal,
        "how_it_died": one.how_it_died,
    }
