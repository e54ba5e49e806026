"""`penstock info` and `penstock ls` of a queue."""

from __future__ import annotations

import json

import pytest

from penstock import Queue
from penstock.cli.main import main


@pytest.fixture
def queue(name):
    with Queue.create(name, slots=16, max_deliveries=1) as made:
        yield made
        made.discard()


def fail_on(queue: Queue) -> None:
    with queue.get_view(timeout=0):
        raise ZeroDivisionError


def test_info_shows_the_queues_state(queue, capsys):
    queue.put("poison")
    with pytest.raises(ZeroDivisionError):
        fail_on(queue)
    queue.put_many(range(3))
    batch = queue.get_many(max_items=1)
    with batch:
        assert main(["info", queue.name, "--json", "--interval", "0"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert main(["info", queue.name, "--interval", "0.01"]) == 0
        text = capsys.readouterr().out
    assert told["kind"] == "queue"
    assert told["stats"]["queued"] == 2
    assert told["stats"]["in_flight"] == 1
    assert told["dead_letters"] == [0]
    assert told["rates"] is None
    assert "2 messages" in text
    assert "1: 0" in text
    assert "messages/s in" in text


def test_ls_names_its_kind(queue, capsys):
    assert main(["ls", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert listed[queue.name]["kind"] == "queue"
    assert listed[queue.name]["participants"][0]["role"] == "participant 0"
