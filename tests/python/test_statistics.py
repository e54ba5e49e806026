"""Statistics: what follows from the tables in C++, in Python and in `penstock info`."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from inspect import getdoc
from typing import Any

import pytest

import penstock
from penstock import inspect
from penstock.cli.main import main
from penstock.trajectories import TrajectoryReader, TrajectoryWriter

COMMON = {
    "reserved_bytes",
    "huge_page_bytes",
    "joins",
    "deaths",
    "waiting",
    "spin_seconds",
    "spins_won",
    "waits_slept",
}


@pytest.fixture
def queue(name):
    with penstock.Queue.create(name, capacity="1MiB", slots=16) as made:
        made.put_many(["a", "b"])
        assert made.get() == "a"
        yield made
        made.discard()


def test_each_field_is_documented_and_typed(queue):
    stats = queue.stats()
    for cls in (penstock.BroadcastStats, penstock.QueueStats, penstock.StoreStats):
        names = [row[0] for row in cls._table]
        assert set(names) >= COMMON
        assert [field.name for field in dataclasses.fields(cls)] == names
        assert all((getdoc(getattr(cls, name)) or "").endswith(".") for name in names)
    for name, kind, unit, type_name, words in stats._table:
        if kind == "word":
            assert f'"{getattr(stats, name)}"' in type_name
        else:
            assert type(getattr(stats, name)).__name__ == type_name
        assert kind in ("counter", "gauge", "word")
        assert unit in ("", "bytes", "seconds")
        assert getdoc(getattr(type(stats), name)) == words


def test_it_is_a_frozen_value(queue):
    stats = queue.stats()
    assert stats.accepted == 2
    assert stats == dataclasses.replace(stats)
    assert hash(stats) == hash(dataclasses.replace(stats))
    other = dataclasses.replace(stats, accepted=7)
    assert other.accepted == 7
    assert other.queued == 1
    assert other != stats
    assert stats != stats.asdict()
    assert repr(stats).startswith("QueueStats(accepted=2, accepted_bytes=")
    assert "joins=1, deaths=0, waiting='balanced'" in repr(stats)
    with pytest.raises(AttributeError):
        stats.accepted = 3  # type: ignore[misc]


def test_it_travels(queue):
    stats = queue.stats()
    assert pickle.loads(pickle.dumps(stats)) == stats
    assert copy.deepcopy(stats) == stats
    plain = json.loads(json.dumps(stats.asdict()))
    assert plain == stats.asdict() == dataclasses.asdict(stats)
    assert list(plain) == [row[0] for row in stats._table]


def test_a_choice_has_a_name(name):
    with penstock.Store.create(name, capacity="1MiB", eviction="lru") as store:
        stats = store.stats()
        assert stats.eviction == "lru"
        assert pickle.loads(pickle.dumps(stats)) == stats


def test_statistics_are_part_of_others(name):
    with (
        TrajectoryReader.create(name, sequences=4, capacity="1MiB") as reader,
        TrajectoryWriter.attach(name, environment="math", weight=2.0),
    ):
        stats = reader.stats()
        assert stats.queue.joins == 2
        (environment,) = stats.environments
        assert (environment.name, environment.weight) == ("math", 2.0)
        assert stats.max_tokens is None
        plain = json.loads(json.dumps(stats.asdict()))
        assert plain == dataclasses.asdict(stats)
        assert plain["queue"]["joins"] == 2
        assert plain["environments"][0]["name"] == "math"
        assert pickle.loads(pickle.dumps(stats)) == stats


def test_joins_count_participants_that_have_left(name):
    with penstock.Store.create(name, capacity="1MiB") as store:
        assert store.stats().joins == 1
        for number in range(3):
            with penstock.Store.attach(name) as other:
                assert other.stats().joins == number + 2
        assert store.stats().joins == 4
        assert inspect.inspect(name).stats.joins == 4
    with penstock.Broadcast.create(name, readers=2) as writer:
        penstock.Broadcast.attach(name, rank=1).close()
        with penstock.Broadcast.attach(name, rank=1) as reader:
            assert reader.stats().joins == writer.stats().joins == 3


def info(capsys: Any, *arguments: str) -> str:
    assert main(["info", *arguments]) == 0
    return str(capsys.readouterr().out)


@pytest.mark.parametrize("concept", ["broadcast", "queue", "store"])
def test_info_shows_all_of_them(name, capsys, concept):
    makers = {
        "broadcast": lambda: penstock.Broadcast.create(name, readers=1),
        "queue": lambda: penstock.Queue.create(name, capacity="1MiB"),
        "store": lambda: penstock.Store.create(name, capacity="1MiB"),
    }
    with makers[concept]() as handle:
        told = json.loads(info(capsys, name, "--json", "--interval", "0.001"))
        text = info(capsys, name, "--interval", "0.001")
        table = type(handle.stats())._table
    assert list(told["stats"]) == [row[0] for row in table]
    counters = {f"{row[0]}_per_s" for row in table if row[1] == "counter"}
    assert counters <= set(told["rates"])
    assert told["stats"]["joins"] == 1
    for row in table:
        assert row[4] in text or row[1] == "part"
