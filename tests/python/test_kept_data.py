"""A segment without participants that holds data: `penstock gc` keeps it and says so, `ls` shows
it, `gc --data NAME` removes it, and the next participant has all of it."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from peers import WITHIN

import penstock
from penstock import inspect
from penstock.integrations.lmcache import PoolServer
from penstock.trajectories import TrajectoryGroup, TrajectoryReader, TrajectoryWriter


def penstock_command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "penstock.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )


def collect(*arguments: str) -> dict:
    result = penstock_command("gc", *arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def is_there(name: str) -> bool:
    return Path(f"/dev/shm/penstock.{name}").exists()


def run_to_death(script: str, name: str) -> None:
    """A process that runs the script, and is killed by SIGKILL in the middle of it."""
    head = "import os, signal, sys, penstock\nname = sys.argv[1]\n"
    end = "\nos.kill(os.getpid(), signal.SIGKILL)"
    command = [sys.executable, "-c", head + script + end, name]
    outcome = subprocess.run(command, capture_output=True, timeout=WITHIN, check=False)
    assert outcome.returncode == -9, outcome.stderr


PUT_1000 = """
queue = penstock.Queue.create(name)
queue.put_many(range(1000))
"""
HOLD_SOME = """
queue = penstock.Queue.create(name, max_deliveries=1)
queue.put_many(range(10))
batch = queue.get_many(max_items=3)
batch.__enter__()
"""


def test_gc_leaves_undelivered_messages_and_says_so(name: str) -> None:
    run_to_death(PUT_1000, name)
    result = penstock_command("gc")
    assert result.returncode == 0, result.stderr
    assert is_there(name)
    [line] = [line for line in result.stdout.splitlines() if name in line]
    assert "kept: 1000 messages" in line
    assert f"penstock gc --data {name}" in line

    dry = collect(name, "--dry-run")
    assert dry["removed"] == []
    [kept] = dry["kept"]
    assert (kept["name"], kept["data"]["messages"]) == (name, 1000)

    shown = penstock_command("ls").stdout
    assert any(name in line and "kept: 1000 messages" in line for line in shown.splitlines())
    listed = {one["name"]: one for one in json.loads(penstock_command("ls", "--json").stdout)}
    assert listed[name]["condition"] == "kept"
    assert listed[name]["kept"]["messages"] == 1000
    assert name not in penstock_command("ls", "--abandoned").stdout
    assert "kept: 1000 messages" in penstock_command("info", name).stdout

    with penstock.Queue.attach(name) as queue:
        assert [queue.get(timeout=0) for _ in range(1000)] == list(range(1000))
    assert not is_there(name)


def test_gc_removes_data_on_request(name: str) -> None:
    run_to_death(PUT_1000, name)
    assert penstock_command("gc", "--data").returncode == 2, "of what, it must be told"
    assert is_there(name)
    assert collect("--data", name)["removed"][0]["name"] == name
    assert not is_there(name)


def test_gc_removes_nothing_of_the_living(name: str) -> None:
    with penstock.Queue.create(name) as queue:
        queue.put("message")
        result = penstock_command("gc", "--data", name)
        assert result.returncode == 1
        assert f"could not remove {name}: in use by pid" in result.stdout
        assert inspect.remove_if_abandoned(name, data=True) is False
        assert queue.get(timeout=0) == "message"


def test_messages_in_flight_with_the_dead_are_kept(name: str) -> None:
    run_to_death(HOLD_SOME, name)
    assert inspect.summarize(name).kept.messages == 10
    assert inspect.remove_if_abandoned(name) is False
    assert inspect.remove_if_abandoned(name, data=True) is True


def test_data_left_by_orderly_close_is_kept_too(name: str) -> None:
    with penstock.Queue.create(name) as queue:
        queue.put("message")
        assert not inspect.summarize(name).kept, "somebody is attached"
    assert collect(name)["kept"][0]["data"]["description"] == "1 message"
    with penstock.Queue.attach(name) as queue:
        assert queue.get(timeout=0) == "message"


def test_an_empty_queue_of_the_dead_goes(name: str) -> None:
    run_to_death("queue = penstock.Queue.create(name); queue.put(1); queue.get()", name)
    assert collect(name)["removed"][0]["name"] == name


def test_a_persistent_store_is_kept(name: str) -> None:
    with penstock.Store.create(name, capacity="1MiB", persistent=True) as store:
        for key in "abc":
            store.put(key, np.zeros(1000))
    [kept] = collect(name)["kept"]
    assert (kept["kind"], kept["data"]["objects"]) == ("store", 3)
    text = penstock_command("gc", name).stdout
    assert "kept: 3 objects, " in text
    assert ", persistent" in text
    with pytest.raises(penstock.AlreadyExists, match=r"keeps 3 objects.*attach.*gc --data"):
        penstock.Store.create(name, capacity="1MiB")
    with penstock.Store.attach(name) as store:
        assert (store.get_copy("b") == 0).all()
    assert collect("--data", name)["removed"][0]["name"] == name


def test_a_store_of_the_dead_that_was_not_to_stay_goes(name: str) -> None:
    run_to_death("store = penstock.Store.create(name, capacity='1MiB'); store.put('a', 1)", name)
    assert collect(name)["removed"][0]["name"] == name


def test_groups_of_trajectories_are_kept(name: str) -> None:
    with (
        TrajectoryReader.create(name, sequences=4) as _trainer,
        TrajectoryWriter.attach(name, group_size=4) as math,
    ):
        tokens = [np.arange(5, dtype=np.int32)] * 4
        math.put(TrajectoryGroup(tokens, masks=tokens, scores=[0.0] * 4))
    assert collect(name)["kept"][0]["data"]["messages"] == 1
    with TrajectoryReader.attach(name, sequences=4) as trainer:
        trainer.next_batch(timeout=0).ack(step=1)


def test_a_broadcast_keeps_nothing(name: str) -> None:
    run_to_death("w = penstock.Broadcast.create(name, readers=1); w.send(1)", name)
    assert collect(name)["removed"][0]["name"] == name


def test_a_file_segment_is_collected_by_its_name(tmp_path: Path) -> None:
    name = f"file:{tmp_path}/queue"
    run_to_death(PUT_1000, name)
    assert collect(name)["kept"][0]["data"]["messages"] == 1000
    assert collect("--data", name)["removed"][0]["name"] == name
    assert not (tmp_path / "queue").exists()


def test_a_queue_that_replaces_another_reports_the_loss(name: str) -> None:
    run_to_death(PUT_1000, name)
    with (
        pytest.warns(RuntimeWarning, match=f"{name}.*1000 messages.*lost") as told,
        penstock.Queue.create(name) as queue,
    ):
        assert len(queue) == 0
    assert told[0].filename == __file__


def test_a_warning_that_is_an_error_leaves_nothing(name: str) -> None:
    run_to_death(PUT_1000, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="1000 messages"):
            penstock.Queue.create(name)
    assert not is_there(name)


@pytest.mark.parametrize("create", [TrajectoryReader.create, TrajectoryWriter.create])
def test_a_queue_of_trajectories_reports_the_loss_too(name: str, create) -> None:
    run_to_death(PUT_1000, name)
    with pytest.warns(RuntimeWarning, match="1000 messages"), create(name):
        pass


def test_data_of_another_kind_is_not_replaced(name: str) -> None:
    run_to_death(PUT_1000, name)
    for create in (
        lambda: penstock.Broadcast.create(name, readers=1),
        lambda: penstock.Store.create(name),
    ):
        with pytest.raises(penstock.AlreadyExists, match="is a queue that keeps 1000 messages"):
            create()
    assert inspect.remove_if_abandoned(name, data=True) is True


def test_a_persistent_pool_comes_back_with_its_chunks(name: str) -> None:
    """The server of a KV cache restarts while no other participant is attached."""
    with PoolServer.open(name, capacity="4MiB", persistent=True) as server:
        server._store.put("chunk", b"kv")
    with PoolServer.open(name, capacity="4MiB", persistent=True) as server:
        assert server._store.get_copy("chunk") == b"kv"
    assert inspect.remove_if_abandoned(name, data=True) is True
