"""The other codec, pickle: for all values, but only where both sides ask for it."""

from __future__ import annotations

import collections
import datetime
import enum
import gc
import mmap
import pickle
import weakref
from typing import Any

import numpy as np
import pytest
from codec_messages import (
    ALIGNMENT,
    HEADER,
    aligned,
    assert_round_trip,
    assert_same,
    assert_same_tensor,
    decode,
    encode,
    message_of,
    structure_of,
)

from penstock.errors import Corrupt, Incompatible, InvalidArgument


class Color(enum.IntEnum):
    RED = 1


Point = collections.namedtuple("Point", "x y")


class Anything:
    def __init__(self, content: Any) -> None:
        self.content = content

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Anything) and self.content == other.content

    __hash__ = None  # type: ignore[assignment]


def is_pickle(message: bytes) -> bool:
    return bool(HEADER.unpack_from(message)[2] & 1)


@pytest.mark.parametrize(
    "value", [{1, 2}, Anything({"a": {1}}), Point(1, 2), Color.RED, datetime.date(2026, 1, 2), len]
)
def test_pickle_admits_everything(value: Any) -> None:
    message = encode({"a": value}, codec="pickle")
    assert is_pickle(message)
    received = decode(message, codec="pickle")
    assert received == {"a": value}
    assert type(received["a"]) is type(value)


def test_pickle_is_read_only_where_asked_for() -> None:
    message = encode(Anything(1), codec="pickle")
    for codec in (None, "typed"):
        with pytest.raises(Incompatible, match='codec="pickle"'):
            decode(message, codec=codec)


def test_a_pickle_that_was_not_asked_for_runs_nothing() -> None:
    message = message_of(pickle.dumps(Trap()), flags=1)
    with pytest.raises(Incompatible):
        decode(message)
    assert not Trap.sprung
    decode(message, codec="pickle")
    assert Trap.sprung


class Trap:
    sprung = False

    def __reduce__(self) -> Any:
        return spring, ()


def spring() -> None:
    Trap.sprung = True


def test_a_pickle_side_prefers_the_typed_codec() -> None:
    message = encode({"a": np.arange(3), "b": [1, "x"]}, codec="pickle")
    assert not is_pickle(message)
    assert_same(decode(message), {"a": np.arange(3), "b": [1, "x"]})
    assert_same(decode(message, codec="pickle"), {"a": np.arange(3), "b": [1, "x"]})


def test_pickled_cycles_and_shared_objects() -> None:
    cycle: list[Any] = [1]
    cycle.append(cycle)
    received = decode(encode(cycle, codec="pickle"), codec="pickle")
    assert received[1] is received


@pytest.mark.parametrize("order", ["C", "F"])
def test_pickled_arrays_travel_out_of_band(order: Any) -> None:
    array_ = np.array(np.arange(60_000.0).reshape(200, 300), order=order)
    message = encode(Anything({"x": array_, "y": np.arange(5)}), codec="pickle")
    assert len(structure_of(message)) < 1000
    received = decode(message, codec="pickle").content
    assert_same(received["x"], array_)
    assert received["x"].flags.writeable
    assert received["x"].ctypes.data % ALIGNMENT == 0
    room = aligned(message)
    viewed_ = decode(room, copy=False, codec="pickle").content
    assert_same(viewed_["x"], array_)
    assert not viewed_["x"].flags.writeable
    assert viewed_["x"].flags.f_contiguous == (order == "F")
    assert np.shares_memory(viewed_["x"], room)


def test_pickled_views_keep_their_owner() -> None:
    room = mmap.mmap(-1, 8192)
    message = encode(Anything(np.arange(100)), codec="pickle")
    room[: len(message)] = message
    watched = weakref.ref(room)
    value = decode(room, copy=False, codec="pickle")
    del room
    gc.collect()
    assert value.content.sum() == 4950
    assert watched() is not None
    del value
    gc.collect()
    assert watched() is None


def test_pickle_buffers_of_any_kind() -> None:
    value = Anything([pickle.PickleBuffer(b"abc"), pickle.PickleBuffer(bytearray(b"defg"))])
    received = decode(encode(value, codec="pickle"), codec="pickle").content
    assert [bytes(b) for b in received] == [b"abc", b"defg"]


def test_pickled_tensors_travel_out_of_band() -> None:
    torch = pytest.importorskip("torch")
    tensors = [
        torch.arange(50_000, dtype=torch.float32).to(torch.bfloat16),
        torch.ones(40_000).to(torch.float8_e5m2),
        torch.arange(10_000).reshape(100, 100).T,
        torch.tensor(True),
        torch.empty(0, 3),
        torch.complex(torch.ones(3), torch.ones(3)).conj(),
    ]
    message = encode(Anything(tensors), codec="pickle")
    assert len(structure_of(message)) < 2000
    for received in (
        decode(message, codec="pickle").content,
        decode(aligned(message), copy=False, codec="pickle").content,
    ):
        for tensor, other in zip(tensors, received, strict=True):
            assert_same_tensor(torch, tensor, other)


def test_pickled_tensors_with_history_keep_their_type() -> None:
    torch = pytest.importorskip("torch")
    value = Anything([torch.ones(3, requires_grad=True), torch.eye(2).to_sparse()])
    leaf, sparse = decode(encode(value, codec="pickle"), codec="pickle").content
    assert leaf.requires_grad
    assert sparse.is_sparse


def test_an_unpicklable_value_is_reported() -> None:
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        encode(lambda: None, codec="pickle")
    assert_round_trip([1, np.arange(2)])


@pytest.mark.parametrize("junk", [b"", b"\x80\x05", b"junk", b"\x80\x05K\x01"])
def test_broken_pickles(junk: bytes) -> None:
    with pytest.raises(Corrupt):
        decode(message_of(junk, flags=1), codec="pickle")


@pytest.mark.parametrize("name", ["json", "", "Typed"])
def test_codec_names(name: str) -> None:
    with pytest.raises(InvalidArgument, match="codec must be"):
        encode(1, codec=name)
    with pytest.raises(InvalidArgument, match="codec must be"):
        decode(encode(1), codec=name)
