"""codec="pickle": all values, where both sides ask for it, and only there."""

from __future__ import annotations

import numpy as np
import pytest

import penstock
from penstock import Broadcast


def test_both_sides_ask(name):
    with (
        Broadcast.create(name, readers=1, codec="pickle") as writer,
        Broadcast.attach(name, rank=0, codec="pickle") as reader,
    ):
        value = {"set": {1, 2}, "range": range(3), "array": np.arange(1000.0)}
        writer.send(value)
        received = reader.recv(timeout=0)
        assert received["set"] == {1, 2}
        assert received["range"] == range(3)
        np.testing.assert_array_equal(received["array"], value["array"])


def test_out_of_band_buffers_are_viewed_in_place(name):
    with (
        Broadcast.create(name, readers=1, codec="pickle") as writer,
        Broadcast.attach(name, rank=0, codec="pickle") as reader,
    ):
        writer.send({"set": {1}, "array": np.arange(1000.0)})
        with reader.recv_view(timeout=0) as view:
            assert not view["array"].flags.writeable
            np.testing.assert_array_equal(view["array"], np.arange(1000.0))


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("code was run",))


def test_a_reader_that_did_not_ask_runs_nothing_and_loses_nothing(name):
    with (
        Broadcast.create(name, readers=1, codec="pickle") as writer,
        Broadcast.attach(name, rank=0) as reader,
    ):
        writer.send(Trap())
        for take in (reader.recv, lambda timeout: reader.recv_view(timeout).__enter__()):
            with pytest.raises(penstock.Incompatible, match=r"attach with codec='pickle'"):
                take(timeout=0)
        with pytest.raises(penstock.Incompatible):
            reader.recv_bytes(timeout=0)
        assert reader.stats().messages == 0


def test_a_writer_that_did_not_ask_sends_no_pickle(name):
    with (
        Broadcast.create(name, readers=1) as writer,
        pytest.raises(penstock.UnsupportedType, match="pickle"),
    ):
        writer.send({1, 2})


def test_typed_values_reach_readers_without_pickle(name):
    with (
        Broadcast.create(name, readers=1, codec="pickle") as writer,
        Broadcast.attach(name, rank=0) as reader,
    ):
        writer.send({"a": [1, 2.5, "three"]})
        assert reader.recv(timeout=0) == {"a": [1, 2.5, "three"]}
