"""Inspection from outside: it sees everything, joins nothing, and removes only segments of the
dead."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
from peers import eventually

import penstock
from penstock import Broadcast, inspect


def listed(name: str) -> penstock.SegmentSummary:
    return next(segment for segment in inspect.list_segments() if segment.name == name)


def test_a_segment_and_its_participants_are_listed(name):
    with Broadcast.create(name, readers=2), Broadcast.attach(name, rank=1):
        segment = listed(name)
        assert segment.kind == "broadcast"
        assert segment.problem == ""
        assert 4 << 20 <= segment.reserved_bytes <= 8 << 20
        assert segment.range_bytes > 2 << 30
        assert not segment.is_abandoned()
        alive = {one.role: one for one in segment.participants if one.alive}
        assert set(alive) == {"writer", "reader 1"}
        assert {one.pid for one in alive.values()} == {os.getpid()}
        assert all(one.attached_at > 0 for one in alive.values())
    assert all(segment.name != name for segment in inspect.list_segments())


def test_a_broadcast_in_full(name):
    with (
        Broadcast.create(name, readers=2, capacity="64KiB") as writer,
        Broadcast.attach(name, rank=0) as reader,
    ):
        writer.send_bytes(bytes(100))
        writer.send_bytes(bytes(100))
        reader.recv()
        info = inspect.inspect(name)
        assert isinstance(info, penstock.BroadcastInfo)
        assert info.segment == listed(name)
        assert info.stats.messages == 2
        assert info.stats.capacity == 65536
        assert [state.life for state in info.readers] == ["active", "expected"]
        assert info.readers[0].lag_messages == 1
        assert not info.closed
        assert json.loads(json.dumps(dataclasses.asdict(info)))["readers"][0]["rank"] == 0
        writer.close()
        assert inspect.inspect(name).closed


def test_looking_joins_nothing(name):
    with Broadcast.create(name, readers=1) as writer:
        for _ in range(3):
            inspect.inspect(name)
            inspect.list_segments()
        assert writer.readers()[0].life == "expected"


def test_a_segment_in_use_is_not_removed(name):
    with Broadcast.create(name, readers=1):
        assert inspect.remove_if_abandoned(name) is False
        assert Path(f"/dev/shm/penstock.{name}").exists()
    with pytest.raises(penstock.NotFound):
        inspect.remove_if_abandoned(name)


def test_an_abandoned_segment_is_removed(name, peer):
    other = peer()
    other.call("create", "w", name, readers=1)
    other.kill()
    segment = eventually(lambda: listed(name))
    assert segment.is_abandoned()
    assert inspect.remove_if_abandoned(name) is True
    assert not Path(f"/dev/shm/penstock.{name}").exists()
