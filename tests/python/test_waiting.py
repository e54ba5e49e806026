"""What waiting may cost, chosen at creation for all participants, and what it has cost."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, get_args

import pytest

import penstock
from penstock import inspect
from penstock.cli.main import main
from penstock.handle import Waiting
from penstock.metrics import exposition
from penstock.trajectories import TrajectoryReader, TrajectoryWriter

POLICIES = get_args(Waiting)
#: Seconds: a wait that is descheduled while it spins must still have time to sleep.
LONG_ENOUGH = 0.3
CREATED: dict[str, Callable[..., AbstractContextManager[Any]]] = {
    "broadcast": lambda name, **more: penstock.Broadcast.create(name, readers=1, **more),
    "queue": lambda name, **more: penstock.Queue.create(name, capacity="1MiB", **more),
    "store": lambda name, **more: penstock.Store.create(name, capacity="1MiB", **more),
    "trainer": lambda name, **more: TrajectoryReader.create(name, capacity="1MiB", **more),
    "environment": lambda name, **more: TrajectoryWriter.create(
        name, capacity="1MiB", max_staleness=0, group_size=4, **more
    ),
}


def receive(writer: penstock.BroadcastWriter) -> None:
    with penstock.Broadcast.attach(writer.name, rank=0) as reader:
        reader.recv(timeout=LONG_ENOUGH)


def begin_beyond_the_credit(writer: TrajectoryWriter) -> None:
    with TrajectoryReader.attach(writer.name, sequences=4):
        rollouts = [writer.begin(timeout=0)]
        rollouts.append(writer.begin(timeout=LONG_ENOUGH))


WAITED: dict[str, Callable[[Any], object]] = {
    "broadcast": receive,
    "queue": lambda queue: queue.get(timeout=LONG_ENOUGH),
    "store": lambda store: store.wait("key", timeout=LONG_ENOUGH),
    "trainer": lambda reader: reader.next_batch(timeout=LONG_ENOUGH),
    "environment": begin_beyond_the_credit,
}


def told_by_handle(handle: Any) -> Any:
    stats = handle.stats()
    return getattr(stats, "queue", stats)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("concept", CREATED)
def test_all_participants_follow_the_policy(name: str, concept: str, policy: str) -> None:
    with CREATED[concept](name, waiting=policy) as handle:
        assert told_by_handle(handle).waiting == policy
        assert inspect.inspect(name).stats.waits_slept == 0
        with pytest.raises(penstock.Timeout):
            WAITED[concept](handle)
        seen = inspect.inspect(name).stats
        assert seen.waiting == policy
        assert seen.waits_slept >= 1
        assert seen.spins_won == 0
        spins = policy != "frugal" and (os.cpu_count() or 1) > 1
        assert (seen.spin_seconds > 0) == spins
        assert seen.spin_seconds < 0.1


@pytest.mark.parametrize("concept", CREATED)
def test_it_is_balanced_if_nothing_is_said(name: str, concept: str) -> None:
    with CREATED[concept](name) as handle:
        assert told_by_handle(handle).waiting == "balanced"


@pytest.mark.parametrize("concept", CREATED)
def test_an_unknown_policy_is_refused_with_the_known_ones(name: str, concept: str) -> None:
    with pytest.raises(penstock.InvalidArgument) as refused:
        CREATED[concept](name, waiting="fast")
    assert "waiting is 'fast'" in str(refused.value)
    assert all(f"'{policy}'" in str(refused.value) for policy in POLICIES)


def test_info_and_metrics_show_it(name: str, capsys: Any) -> None:
    with penstock.Queue.create(name, capacity="1MiB", waiting="latency") as queue:
        with pytest.raises(penstock.Timeout):
            queue.get(timeout=LONG_ENOUGH)
        assert main(["info", name, "--json", "--interval", "0"]) == 0
        told = json.loads(capsys.readouterr().out)["stats"]
        assert (told["waiting"], told["waits_slept"]) == ("latency", 1)
        assert main(["info", name, "--interval", "0"]) == 0
        assert "latency" in capsys.readouterr().out
        text = exposition([inspect.inspect(name)])
    assert f'penstock_queue_waiting_info{{name="{name}",waiting="latency"}} 1\n' in text
    assert f'penstock_queue_waits_slept_total{{name="{name}"}} 1\n' in text
    assert "# TYPE penstock_queue_spin_seconds_total counter\n" in text


def test_a_readers_statistics_are_its_own(name: str) -> None:
    with penstock.Broadcast.create(name, readers=1, waiting="frugal") as writer:
        with penstock.Broadcast.attach(name, rank=0) as reader:
            with pytest.raises(penstock.Timeout):
                reader.recv(timeout=LONG_ENOUGH)
            assert reader.stats().waits_slept == 1
        with penstock.Broadcast.attach(name, rank=0) as successor:
            assert successor.stats().waits_slept == 0
        assert writer.stats().waits_slept == 0
        assert inspect.inspect(name).stats.waits_slept == 1
