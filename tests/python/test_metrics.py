"""`penstock metrics`: statistics in Prometheus' text format."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import inspect
from penstock.cli.main import main
from penstock.metrics import exposition
from penstock.trajectories import TrajectoryGroup, TrajectoryReader, TrajectoryWriter

SAMPLE = re.compile(
    r'(?P<metric>[a-z_]+)\{(?P<labels>(?:[a-z_]+="(?:[^"\\]|\\.)*",?)+)\} (?P<value>\S+)'
)


@pytest.fixture
def queue(name):
    with penstock.Queue.create(name, capacity="1MiB", slots=16) as made:
        made.put_many(range(3))
        yield made
        made.discard()


def metrics(capsys: Any, *names: str, code: int = 0) -> tuple[str, str]:
    assert main(["metrics", *names]) == code
    told = capsys.readouterr()
    return told.out, told.err


def parsed(text: str) -> dict[str, list[tuple[str, float]]]:
    """The samples of each metric; its HELP and TYPE come first, once, and all samples together."""
    found: dict[str, list[tuple[str, float]]] = {}
    last = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            last = line.split()[2]
            assert last not in found
            found[last] = []
        elif line.startswith("# TYPE "):
            _, _, metric, kind = line.split()
            assert metric == last
            assert (kind == "counter") == metric.endswith("_total")
        else:
            match = SAMPLE.fullmatch(line)
            assert match is not None, line
            assert match["metric"] == last
            found[last].append((match["labels"], float(match["value"])))
    assert all(found.values())
    return found


def test_the_names_follow_from_the_table(queue, capsys):
    text, err = metrics(capsys, queue.name)
    assert err == ""
    told = parsed(text)
    label = f'name="{queue.name}"'
    assert told["penstock_queue_accepted_total"] == [(label, 3)]
    assert told["penstock_queue_queued"] == [(label, 3)]
    assert told["penstock_queue_capacity_bytes"] == [(label, 1 << 20)]
    assert told["penstock_queue_oldest_seconds"][0][1] > 0
    assert told["penstock_queue_closed"] == [(label, 0)]
    assert told["penstock_queue_joins_total"] == [(label, 1)]
    assert len(told) == len(type(queue.stats())._table)
    assert "# HELP penstock_queue_deaths_total Participants found dead.\n" in text


def test_each_concept_has_its_own(name, capsys):
    with (
        penstock.Broadcast.create(name + "-b", readers=1) as writer,
        penstock.Store.create(name + "-s", capacity="1MiB") as store,
        TrajectoryReader.create(name + "-t", sequences=4, capacity="1MiB") as trainer,
        TrajectoryWriter.attach(name + "-t", environment='a "b"') as environment,
    ):
        writer.send_bytes(bytes(10))
        store.put("key", 1)
        environment.put(TrajectoryGroup([[1], [2]]))
        told = parsed(metrics(capsys, writer.name, store.name, trainer.name)[0])
        trainer.drop_waiting()
    assert told["penstock_broadcast_bytes_total"] == [(f'name="{name}-b"', 10)]
    assert told["penstock_store_eviction_info"] == [(f'name="{name}-s",eviction="sieve"', 1)]
    assert told["penstock_store_objects"] == [(f'name="{name}-s"', 1)]
    assert told["penstock_queue_joins_total"] == [(f'name="{name}-t"', 2)]
    assert told["penstock_trajectories_batch_sequences"] == [(f'name="{name}-t"', 4)]
    assert "penstock_trajectories_max_tokens" not in told, "there is no bound"
    (sample,) = told["penstock_environment_waiting_sequences"]
    assert sample == (f'name="{name}-t",environment="a \\"b\\""', 2)


def test_named_twice_is_told_once_and_in_order(queue, name, capsys):
    with penstock.Queue.create(name + "-z", capacity="1MiB"):
        text, _ = metrics(capsys, name + "-z", queue.name, name + "-z", queue.name)
        again, _ = metrics(capsys, name + "-z", queue.name)
    assert [label for label, _ in parsed(text)["penstock_queue_slots"]] == [
        f'name="{name}-z"',
        f'name="{queue.name}"',
    ]
    assert list(parsed(text)) == list(parsed(again))


def test_without_a_name_all_are_told_by_name(queue, name, capsys):
    with penstock.Queue.create(name + "-0", capacity="1MiB"):
        text, _ = metrics(capsys)
        labels = [label for label, _ in parsed(text)["penstock_queue_slots"]]
    assert labels == sorted(labels)
    assert {f'name="{queue.name}"', f'name="{name}-0"'} <= set(labels)


def test_what_is_not_there_is_left_out(queue, name, capsys):
    text, err = metrics(capsys, name + "-none", queue.name, code=1)
    assert "penstock_queue_accepted_total" in parsed(text)
    assert err.startswith("penstock: left out: ")
    assert name + "-none" in err
    assert err.count("\n") == 1


def test_what_goes_away_meanwhile_is_left_out(queue, name, capsys, monkeypatch):
    gone = penstock.Queue.create(name + "-0", capacity="1MiB")
    look = inspect.list_segments

    def list_and_close() -> list[penstock.SegmentSummary]:
        listed = look()
        gone.close()
        return listed

    monkeypatch.setattr(inspect, "list_segments", list_and_close)
    text, err = metrics(capsys)
    told = [label for label, _ in parsed(text)["penstock_queue_slots"]]
    assert f'name="{queue.name}"' in told
    assert f'name="{name}-0"' not in told
    assert name + "-0" in err


def test_a_path_with_all_sorts_of_signs(tmp_path: Path, capsys):
    path = tmp_path / 'a "q" \\ b'
    with penstock.Queue.create(path, capacity="1MiB"):
        text, _ = metrics(capsys, f"file:{path}")
    ((label, _),) = parsed(text)["penstock_queue_slots"]
    assert label == f'name="file:{tmp_path}/a \\"q\\" \\\\ b"'


def test_nothing_is_told_of_nothing():
    assert exposition([]) == ""


def test_for_programs(queue, capsys):
    assert main(["metrics", "--json", queue.name]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["name"], told["kind"]) == (queue.name, "queue")
    assert told["stats"]["accepted"] == 3


def test_counters_only_grow_under_load(queue, capsys):
    """As a monitoring system scrapes: while others work."""
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            queue.put(1, timeout=0)
            queue.get(timeout=0)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        before: dict[str, list[tuple[str, float]]] = {}
        for _ in range(10):
            now = parsed(metrics(capsys, queue.name)[0])
            for metric in before:
                if metric.endswith("_total"):
                    assert now[metric][0][1] >= before[metric][0][1], metric
            before = now
    finally:
        done.set()
        worker.join()
