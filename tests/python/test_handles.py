"""Handles travel: by pickle, to children of every kind, with and without a name."""

from __future__ import annotations

import multiprocessing
import os
import pickle

import numpy as np
import pytest
from peers import WITHIN

import penstock
from penstock import Broadcast

METHODS = ("fork", "forkserver", "spawn")


def receive(handle, outcome) -> None:
    """The child's part."""
    with Broadcast.attach(handle, rank=0, timeout=WITHIN) as reader:
        outcome.put(reader.recv(timeout=WITHIN)["x"].sum())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["named", "anonymous", "file"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_children_of_every_kind_attach_by_handle(method, kind, name, tmp_path):
    segment = {"named": name, "anonymous": None, "file": f"file:{tmp_path}/segment"}[kind]
    context = multiprocessing.get_context(method)
    outcome = context.SimpleQueue()
    with Broadcast.create(segment, readers=1) as writer:
        child = context.Process(target=receive, args=(writer.handle, outcome))
        child.start()
        writer.send({"x": np.arange(1000)})
        child.join(WITHIN)
        assert child.exitcode == 0
        assert outcome.get() == 499500
        assert [reader.life for reader in writer.readers()] == ["vacant"]
    assert list(tmp_path.iterdir()) == []


def test_a_handle_passes_through_a_pipe_too(peer):
    """An anonymous one too, after both processes have started."""
    other = peer()
    with Broadcast.create(None, readers=1) as writer:
        other.call("attach", "r", writer.handle, rank=0)
        writer.send("found")
        assert other.call("r.recv", timeout=WITHIN) == "found"


def test_a_handle_of_an_anonymous_segment_comes_back(peer):
    other = peer()
    handle = other.call("create", "w", None, readers=1)
    assert handle.is_anonymous
    with Broadcast.attach(handle, rank=0) as reader:
        other.call("w.send", "from a child")
        assert reader.recv(timeout=WITHIN) == "from a child"
        other.kill()  # a passed descriptor does not keep the dead alive
        with pytest.raises(penstock.PeerDied):
            reader.recv(timeout=WITHIN)


def test_handles_pickle_small_and_compare(name):
    with Broadcast.create(name, readers=1) as writer, Broadcast.attach(name, rank=0) as reader:
        handle = writer.handle
        data = pickle.dumps(handle)
        assert len(data) < 500
        again = pickle.loads(data)
        assert again == handle == reader.handle
        assert hash(again) == hash(handle)
        assert again.name == name
        assert repr(handle) == f"<penstock.Handle of '{name}'>"
        assert handle != name
    with Broadcast.create(name, readers=1) as writer:
        assert writer.handle != handle


def test_an_anonymous_handle_pickles_only_on_its_way_to_a_process():
    with Broadcast.create(None, readers=1) as writer:
        assert writer.name == ""
        assert "anonymous" in repr(writer)
        assert "anonymous" in repr(writer.handle)
        descriptor = writer.handle.fileno()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)  # closed with the handle


def test_a_handle_does_not_lead_to_another_segment_of_the_same_name(name):
    with Broadcast.create(name, readers=1) as writer:
        stale = writer.handle
    with Broadcast.create(name, readers=1) as writer:
        writer.send("for the right reader")
        with pytest.raises(penstock.NotFound, match=name):
            Broadcast.attach(stale, rank=0)
        assert writer.readers()[0].life == "expected"  # untouched
        with Broadcast.attach(writer.handle, rank=0) as reader:
            assert reader.recv(timeout=0) == "for the right reader"


def test_a_reader_has_a_handle_for_others(peer):
    with (
        Broadcast.create(None, readers=2) as writer,
        Broadcast.attach(writer.handle, rank=0) as one,
    ):
        other = peer()
        other.call("attach", "r", one.handle, rank=1)
        writer.send("both")
        assert one.recv(timeout=0) == other.call("r.recv", timeout=WITHIN) == "both"


def test_writers_and_readers_themselves_do_not_travel(pair):
    writer, reader = pair
    with pytest.raises(TypeError, match=r"writer\.handle"):
        pickle.dumps(writer)
    with pytest.raises(TypeError, match=r"reader\.handle"):
        pickle.dumps(reader)
