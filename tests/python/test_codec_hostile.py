"""Bytes that are not a message, or no longer one: they raise Corrupt or Incompatible, and nothing
else."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import mmap
import os
import random
import struct
import time
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
import pytest
from codec_messages import (
    HEADER,
    MAGIC,
    OUT_OF_BAND,
    aligned,
    decode,
    encode,
    message_of,
    structure_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.codec import register_dataclass
from penstock.errors import Corrupt, Incompatible


@register_dataclass
@dataclasses.dataclass
class Step:
    number: int
    tokens: np.ndarray


def rich_value() -> Any:
    return {
        "step": 7,
        "tokens": np.arange(20, dtype=np.int32),
        "list": [None, True, -5, 2**40, 2**70, 1.5, 1j, "text", "\udc80", b"raw", bytearray(b"x")],
        "tuple": (1, (2, np.zeros((2, 3), order="F"))),
        "big": b"z" * OUT_OF_BAND,
        "described": np.zeros(3, [("a", "<i4"), ("b", "<M8[s]", (2,))]),
        "scalars": [np.float32(2), np.datetime64("2026-01-01"), np.str_("s")],
        "class": Step(1, np.arange(2)),
        "bf16": np.ones(3, ml_dtypes.bfloat16),
        (1, "key"): {},
    }


# All but the payload of `big`, whose content does not matter.
RICH = encode(rich_value())


def attempt(message: bytes | np.ndarray, codec: str | None = None) -> Any:
    """Decode; return None on the two errors that bad bytes may raise."""
    for copy in (True, False):
        room = aligned(bytes(message))
        try:
            value = decode(room, copy=copy, codec=codec)
            with contextlib.suppress(SystemError):  # a text array with invalid characters
                repr(value)
        except (Corrupt, Incompatible):
            value = None
    return value


def test_truncation_at_every_byte() -> None:
    structure_end = HEADER.size + len(structure_of(RICH))
    ends = [*range(structure_end + 600), *range(len(RICH) - 300, len(RICH))]
    for end in ends:
        with pytest.raises(Corrupt):
            decode(aligned(RICH[:end]), copy=bool(end % 2))
    small = encode([1, "two", (3.0, b"four"), {"five": np.arange(6)}])
    for end in range(len(small)):
        with pytest.raises(Corrupt):
            decode(small[:end])


def test_every_byte_changed() -> None:
    small = encode([1, "two", (3.0, b"four"), {"five": np.arange(2)}, np.zeros(1, "<M8[s]")])
    for at in range(len(small)):
        for value in (0, 1, 0x7F, 0x80, 0xC1, 0xDD, 0xFF):
            changed = bytearray(small)
            changed[at] = value
            attempt(bytes(changed))


@given(st.lists(st.tuples(st.integers(0, len(RICH) - 1), st.integers(0, 255)), max_size=8))
@settings(max_examples=300)
def test_random_corruption(changes: list[tuple[int, int]]) -> None:
    structure_end = HEADER.size + len(structure_of(RICH)) + 500
    changed = bytearray(RICH)
    for at, value in changes:
        changed[at % structure_end] = value
    attempt(bytes(changed))


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_random_structures(structure: bytes) -> None:
    attempt(message_of(structure))
    attempt(structure)


@given(st.integers(0, 255), st.binary(max_size=40))
@settings(max_examples=500)
def test_random_extensions(code: int, body: bytes) -> None:
    head = struct.pack(">BBB", 0xC7, len(body), code)
    attempt(message_of(head + body))
    table = struct.pack("<QQIBBBB", 0, 0, 0, 6, 1, 0, 1)
    attempt(HEADER.pack(MAGIC, 1, 0, 1, len(head + body)) + head + body + table)


@pytest.mark.full
@given(
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1) | st.just(0),
    st.integers(0, 255),
    st.integers(0, 255) | st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 4),
    st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 4), max_size=4),
)
@settings(max_examples=500)
def test_random_tensor_entries(
    offset: int,
    nbytes: int,
    first: int,
    dtype: int,
    ndim: int,
    order: int,
    source: int,
    dims: list[int],
) -> None:
    structure = b"\xd4\x07\x00"
    head = HEADER.pack(MAGIC, 1, 0, 1, len(structure)) + structure + bytes(5)
    for offset_, nbytes_ in ((offset, nbytes), (64, nbytes % 64), (64, 8), (0, 0)):
        table = struct.pack("<QQIBBBB", offset_, nbytes_, first, dtype, ndim, order, source)
        message = head + table + struct.pack(f"<{len(dims)}Q", *dims)
        attempt(message + bytes(128))


def test_hostile_shapes() -> None:
    """Products that overflow, sizes that do not fit, empty arrays that claim huge ones."""
    for dims, nbytes in (
        ((2**32, 2**32), 0),
        ((2**63,), 0),
        ((2**64 - 1,), 2**64 - 4),
        ((0, 2**62, 2**62), 0),
        ((2**62, 0), 0),
        ((2**61, 2), 0),
        ((3,), 8),
        ((1,) * 65, 4),
    ):
        table = struct.pack("<QQIBBBB", 1024, nbytes, 0, 4, len(dims), 0, 1)
        message = HEADER.pack(MAGIC, 1, 0, 1, 3) + b"\xd4\x07\x00" + bytes(5) + table
        message += struct.pack(f"<{len(dims)}Q", *dims)
        with pytest.raises(Corrupt):
            decode(aligned(message + bytes(2048)), copy=False)


HOSTILE_DESCRS = [
    "O",
    "|O8",
    "<i4,<f8",
    "(2,3)<i4",
    "<i4[ns]",
    "<T16",
    "<f16",
    "<g16",
    "datetime64",
    "<M8[ns",
    "<M8[ns][s]",
    "<M8[" + "9" * 100 + "s]",
    "<M8[bogus]",
    "|S",
    "|S0",
    "|S-1",
    "|S" + "9" * 30,
    "|V99999999999",
    "<i3",
    "",
    0,
    255,
    256,
    -1,
    24,
    None,
    [],
    ["<i4"],
    ["<i4", [2]],
    ["<i4", [-1]],
    ["<i4", [2**62]],
    ["<i4", 2],
    [[], [], [], 0, False],
    [["a"], ["<i4"], [0], 4, 1],
    [["a"], ["|O8"], [0], 8, False],
    [["a", "a"], ["<i4", "<i4"], [0, 4], 8, False],
    [["a"], ["<i4"], [100], 8, False],
    [["a"], ["<i4"], [-4], 8, False],
    [["a"], ["<i4"], [2**62], 8, False],
    [["a"], ["<i4"], [0], 0, False],
    [["a"], ["<i4"], [0], 2**62, False],
    [["a"], ["<i4", "<i4"], [0], 8, False],
    [["a"], ["<i4"], [1], 8, True],
    [[1], ["<i4"], [0], 4, False],
]


def test_hostile_dtypes() -> None:
    for descr in HOSTILE_DESCRS:
        # 24 may be a dtype of a newer version.
        error = Incompatible if descr == 24 else Corrupt
        reference = msgpack.packb(msgpack.ExtType(7, msgpack.packb([0, descr])))
        gap = bytes(-(HEADER.size + len(reference)) % 8)
        for item in (0, 4, 8, 16):
            table = struct.pack("<QQIBBBB", 512, item, 0, 255, 1, 0, 1) + struct.pack("<Q", 1)
            message = HEADER.pack(MAGIC, 1, 0, 1, len(reference)) + reference + gap + table
            with pytest.raises(error):
                decode(aligned(message.ljust(1024, b"\0")), copy=False)
            scalar = msgpack.packb(msgpack.ExtType(9, msgpack.packb([descr, bytes(item)])))
            with pytest.raises(error):
                decode(message_of(scalar))


def test_deeply_nested_descrs() -> None:
    descr: Any = "<i4"
    for _ in range(200):
        descr = [["a"], [descr], [0], 4, False]
    body = msgpack.packb([descr, bytes(4)])
    with pytest.raises(Corrupt):
        decode(message_of(msgpack.packb(msgpack.ExtType(9, body))))


BAD_STRUCTURES = [
    b"",
    b"\xc1",
    b"\x01\x02",
    b"\xa5abc",
    b"\xa2\xff\xfe",
    b"\xa3\xed\xa0\x80",
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
    b"\x81\x90\x01",
    b"\x82\xa1a\x01\xa1a\x02",
    b"\x81\xc0",
    b"\xd4\x01\x01",
    b"\xd4\x03\x01",
    b"\xd4\x07\x00",
    b"\xd4\x08\x01",
    b"\xd4\x0a\x01",
    b"\x91" * 257 + b"\xc0",
    b"\x81\xc0" * 257 + b"\xc0",
]


def test_bad_structures() -> None:
    for structure in BAD_STRUCTURES:
        with pytest.raises(Corrupt):
            decode(message_of(structure))


def test_nested_tuples_of_a_stranger() -> None:
    body = b"\x90"
    for _ in range(400):
        body = b"\x91" + msgpack.packb(msgpack.ExtType(1, body))
    with pytest.raises(Corrupt):
        decode(message_of(msgpack.packb(msgpack.ExtType(1, body))))


def test_headers_of_others() -> None:
    for message in (b"", b"PS", b"\0" * 16, b"\x93NUMPY" + bytes(20)):
        with pytest.raises(Corrupt):
            decode(message)
    with pytest.raises(Incompatible, match="another version"):
        decode(HEADER.pack(MAGIC, 2, 0, 0, 1) + b"\xc0")
    with pytest.raises(Incompatible):
        decode(HEADER.pack(MAGIC, 1, 2, 0, 1) + b"\xc0")
    with pytest.raises(Incompatible, match="does not know"):
        decode(message_of(b"\xd4\x7f\x00"))
    for structure, tensors in ((2, 0), (2**64 - 1, 0), (2**63, 0), (1, 1), (1, 2**32 - 1)):
        with pytest.raises(Corrupt):
            decode(HEADER.pack(MAGIC, 1, 0, tensors, structure) + b"\xc0")


def test_bytes_behind_the_message_are_ignored() -> None:
    assert decode(encode({"a": 1}) + b"junk") == {"a": 1}


def what_comes_of(room: mmap.mmap, copy: bool) -> str:
    try:
        repr(decode(room, copy=copy))
    except (Corrupt, Incompatible):
        return "error"
    return "value"


def test_memory_that_changes_while_it_is_read() -> None:
    """Another process overwrites the message; every outcome is a value or one of two errors."""
    room = mmap.mmap(-1, 65536)
    value = {"a": [1, 2.5, "text" * 20, (b"raw" * 9, {"k": np.arange(9)})], "b": np.ones((3, 3))}
    message = encode(value)
    room[: len(message)] = message
    child = os.fork()
    if child == 0:
        chance = random.Random(5)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            at = chance.randrange(len(message))
            room[at] = chance.randrange(256)
            room[at] = message[at]
        os._exit(0)
    outcomes = collections.Counter()
    try:
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            for copy in (True, False):
                outcomes[what_comes_of(room, copy)] += 1
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert outcomes["value"] > 0
