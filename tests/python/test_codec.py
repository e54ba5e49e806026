"""The codec: what comes out for what goes in, who owns it, and what bad bytes get.

`msgpack` is the oracle for the structure; hypothesis makes up values, arrays and corruption.
"""

from __future__ import annotations

import array
import collections
import ctypes
import dataclasses
import datetime
import enum
import gc
import math
import mmap
import os
import pickle
import random
import struct
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from typing import Any, ClassVar

import ml_dtypes
import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from penstock import _core
from penstock.codec import register_dataclass
from penstock.errors import Corrupt, Error, Incompatible, InvalidArgument, UnsupportedType

HEADER = struct.Struct("<HBBIQ")
MAGIC = 0x5350
ALIGNMENT = 64
OUT_OF_BAND = 65536

encode = _core.codec_encode
decode = _core.codec_decode


# --- helpers -------------------------------------------------------------------------------------


def aligned(message: bytes) -> np.ndarray:
    """The message in memory that begins at a multiple of 64, as it does in a segment."""
    room = np.zeros(len(message) + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    place = room[start : start + len(message)]
    place[:] = np.frombuffer(message, np.uint8)
    return place


def copied(value: Any) -> Any:
    return decode(encode(value))


def viewed(value: Any) -> Any:
    return decode(aligned(encode(value)), copy=False)


def structure_of(message: bytes) -> bytes:
    magic, version, _flags, _tensors, size = HEADER.unpack_from(message)
    assert (magic, version) == (MAGIC, 1)
    return message[HEADER.size : HEADER.size + size]


def message_of(structure: bytes, flags: int = 0) -> bytes:
    return HEADER.pack(MAGIC, 1, flags, 0, len(structure)) + structure


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


def assert_same(a: Any, b: Any) -> None:
    """Equal in type, content, order of keys, and every bit of every number."""
    assert type(a) is type(b), (a, b)
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        assert a.dtype.str == b.dtype.str
        assert a.shape == b.shape
        if a.dtype.names is not None:
            for name in a.dtype.names:  # not tobytes(), which leaves padding to chance
                assert_same(a[name], b[name])
        else:
            assert a.tobytes() == b.tobytes()
    elif isinstance(a, np.generic):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()
    elif isinstance(a, float):
        assert bits(a) == bits(b)
    elif isinstance(a, complex):
        assert bits(a.real) + bits(a.imag) == bits(b.real) + bits(b.imag)
    elif isinstance(a, dict):
        assert len(a) == len(b)
        for (key, item), (other_key, other_item) in zip(a.items(), b.items(), strict=True):
            assert_same(key, other_key)
            assert_same(item, other_item)
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for item, other in zip(a, b, strict=True):
            assert_same(item, other)
    else:
        assert a == b


def assert_round_trip(value: Any) -> None:
    assert_same(value, copied(value))
    assert_same(value, viewed(value))


def run_python(code: str) -> str:
    """Run code in a fresh interpreter that sees the same packages; its output."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=100,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p)),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- plain values --------------------------------------------------------------------------------

QUIET_NAN = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_DEAD_BEEF))[0]
NEGATIVE_NAN = struct.unpack("<d", struct.pack("<Q", 0xFFF8_0000_0000_0001))[0]

INTEGERS = sorted(
    {sign * (2**power) + off for sign in (1, -1) for power in range(70) for off in (-1, 0, 1)}
    | {0, 31, 32, -31, -32, -33, 10**40, -(10**40), 1 << 1000, -(1 << 1000)}
)

PLAIN = [
    None,
    True,
    False,
    *INTEGERS,
    *(0.0, -0.0, 1.5, math.inf, -math.inf, QUIET_NAN, NEGATIVE_NAN, 5e-324, 1.7976931348623157e308),
    *("", "a", "ü", "日本", "🌊", "x" * 31, "x" * 32, "x" * 255, "x" * 256, "é" * 70_000, "a\0b"),
    *(b"", b"a", b"\0\xff", b"x" * 255, b"x" * 256, b"x" * 65_535),
    *([], [1], [None, [True, [2.5]]], list(range(15)), list(range(16)), [0] * 70_000),
    *({}, {"a": 1}, {str(i): i for i in range(15)}, {str(i): i for i in range(70_000)}),
]

EXTENDED = [
    1j,
    complex(-0.0, NEGATIVE_NAN),
    "\ud800",
    "a\udcffé🌊",
    bytearray(),
    bytearray(b"abc"),
    (),
    (1,),
    (1, (2, (3, ()))),
    tuple(range(300)),
    [(1, 2), {"a": (3, [4])}],
    {"z": 1, "a": 2, "m": 3},
]

KEYS = [None, True, 2, 2**70, 1.5, 1j, "k", "\udc80", b"b", (1, "a", (None,)), np.int64(11)]


@pytest.mark.parametrize("value", PLAIN + EXTENDED, ids=lambda v: repr(v)[:30])
def test_values_come_out_as_they_went_in(value: Any) -> None:
    assert_round_trip(value)


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_keys_keep_their_type(key: Any) -> None:
    assert_round_trip({"first": 0, key: "item", "last": 1})


def test_keys_that_compare_equal_elsewhere_stay_apart() -> None:
    value = {1: "int", "1": "str", b"1": "bytes", (1,): "tuple"}
    assert_round_trip(value)


def test_order_of_keys_is_kept() -> None:
    keys = [str(i) for i in range(1000)]
    random.Random(7).shuffle(keys)
    assert list(copied(dict.fromkeys(keys))) == keys


def test_repeated_keys_are_one_object() -> None:
    first, second = copied({"step": 1}), copied({"step": 2})
    assert next(iter(first)) is next(iter(second))


def test_keys_of_one_hash_slot_do_not_meet() -> None:
    # Far more keys than the decoder remembers, twice, so that each evicts another.
    for _ in range(2):
        for i in range(3000):
            assert copied({f"key{i}": i}) == {f"key{i}": i}


def test_memoryviews_become_bytes() -> None:
    base = bytes(range(24))
    assert copied(memoryview(base)) == base
    assert copied(memoryview(base)[::2]) == base[::2]
    assert copied(memoryview(base)[::-1]) == base[::-1]
    assert copied(memoryview(base).cast("B", (4, 6))) == base
    assert copied(memoryview(array.array("i", [1, 2]))) == array.array("i", [1, 2]).tobytes()
    assert copied(memoryview(b"")) == b""


@pytest.mark.parametrize("size", [OUT_OF_BAND - 1, OUT_OF_BAND, OUT_OF_BAND + 1, 3_000_000])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_large_bytes(kind: Any, size: int) -> None:
    content = random.Random(size).randbytes(size)
    message = encode({"a": kind(content), "b": 1})
    expected = bytearray(content) if kind is bytearray else content
    assert_same(decode(message), {"a": expected, "b": 1})
    assert_same(decode(aligned(message), copy=False), {"a": expected, "b": 1})
    is_out_of_band = size >= OUT_OF_BAND
    assert (len(structure_of(message)) < 100) == is_out_of_band
    assert len(message) < size + 200


def test_received_bytes_are_the_receivers_own() -> None:
    message = aligned(encode([b"x" * OUT_OF_BAND, bytearray(b"y" * OUT_OF_BAND)]))
    first, second = decode(message, copy=False)
    message[:] = 0
    assert first == b"x" * OUT_OF_BAND
    assert second == b"y" * OUT_OF_BAND
    second[0] = 1


def nested(depth: int, wrap: Any) -> Any:
    value = None
    for _ in range(depth):
        value = wrap(value)
    return value


WRAPPERS = [lambda v: [v], lambda v: (v,), lambda v: {"k": v}]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_depth_limit(wrap: Any) -> None:
    assert_round_trip(nested(256, wrap))
    with pytest.raises(UnsupportedType, match="nested more than 256 deep"):
        encode(nested(257, wrap))


def test_containers_that_contain_themselves() -> None:
    a: list[Any] = [1]
    a.append(a)
    with pytest.raises(UnsupportedType, match="^value contains itself"):
        encode(a)
    d: dict[str, Any] = {"x": {"y": [0, {}]}}
    d["x"]["y"][1]["back"] = d["x"]
    with pytest.raises(UnsupportedType, match=r"^value\['x'\](\['y'\]\[1\])? contains itself"):
        encode(d)


def test_shared_containers_arrive_as_two() -> None:
    shared = [1]
    first, second = copied([shared, shared])
    assert first == second == [1]
    assert first is not second


# --- refusals ------------------------------------------------------------------------------------


class Color(enum.IntEnum):
    RED = 1


class Shout(str):
    __slots__ = ()


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Unregistered:
    a: int = 1


REFUSED = [
    ({1}, "set"),
    (frozenset(), "frozenset"),
    (datetime.datetime(2026, 1, 1), "datetime.datetime"),
    (object(), "object"),
    (range(3), "range"),
    (array.array("i"), "array.array"),
    (len, "builtin_function_or_method"),
    (int, "type"),
    (Color.RED, "subclass of int"),
    (Shout("x"), "subclass of str"),
    (Point(1, 2), "subclass of tuple"),
    (collections.OrderedDict(), "subclass of dict"),
    (collections.defaultdict(int), "subclass of dict"),
    (Unregistered(), "register_dataclass"),
    (np.array([None]), "object"),
    (np.zeros(2, [("a", "O")]), "object"),
    (np.array(["a"], np.dtypes.StringDType()) if hasattr(np.dtypes, "StringDType") else {1}, ""),
    (np.zeros(2, np.longdouble), "longdouble|float128"),
    (np.zeros(2, np.clongdouble), "complex256|clongdouble"),
    (np.zeros(2, ml_dtypes.int4), "int4"),
    (np.zeros(2, [(("title", "a"), "i4")]), "titles"),
    (np.zeros(2, "V0"), "no size"),
    (np.longdouble(1), "longdouble|float128"),
    (np.matrix([[1]]), "subclass of numpy.ndarray"),
    (np.ma.MaskedArray([1]), "subclass of numpy.ndarray"),
    (np.rec.array([(1,)], dtype=[("a", "i4")]), "subclass of numpy.ndarray"),
]


@pytest.mark.parametrize(("value", "what"), REFUSED, ids=lambda v: type(v).__name__)
def test_unknown_values_are_named(value: Any, what: str) -> None:
    with pytest.raises(UnsupportedType, match=what) as caught:
        encode({"a": [0, 1, 2, value]})
    text = str(caught.value)
    assert text.startswith("value['a'][3] is a")
    assert 'codec="pickle"' in text
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, Error)


def test_the_path_goes_through_every_kind_of_container() -> None:
    value = {"a": [({b"k": {(1, 2): {1}}},)]}
    with pytest.raises(
        UnsupportedType, match=r"^value\['a'\]\[0\]\[0\]\[b'k'\]\[\(1, 2\)\] is a set"
    ):
        encode(value)


def test_long_paths_and_keys_are_cut() -> None:
    with pytest.raises(UnsupportedType) as caught:
        encode({"k" * 1000: nested(100, lambda v: [v or {1}])})
    assert len(str(caught.value)) < 300


def test_a_key_whose_repr_fails_does_not_hide_the_refusal() -> None:
    class Odd(int):
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    with pytest.raises(UnsupportedType, match="Odd"):
        encode({Odd(1): 1})


@pytest.mark.parametrize("key", [frozenset(), Color.RED, Point(1, 2), memoryview(b""), object()])
def test_unknown_keys_are_refused(key: Any) -> None:
    with pytest.raises(UnsupportedType, match=r"value\['d'\] has a key of type"):
        encode({"d": {key: 1}})
    with pytest.raises(UnsupportedType, match=r"value\['d'\] has a key of type"):
        encode({"d": {(1, key): 1}})


def test_a_refusal_leaves_the_next_message_whole() -> None:
    with pytest.raises(UnsupportedType):
        encode([np.arange(1000), b"x" * 100_000, {1}])
    assert_round_trip({"a": np.arange(5), "b": [1, 2]})


# --- the oracle ----------------------------------------------------------------------------------

plain_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.binary()
)
plain_values = st.recursive(
    plain_scalars,
    lambda children: (
        st.lists(children, max_size=20) | st.dictionaries(st.text(), children, max_size=20)
    ),
    max_leaves=40,
)


def from_msgpack(data: bytes) -> Any:
    return msgpack.unpackb(
        data,
        ext_hook=from_extension,
        strict_map_key=False,
        max_ext_len=2**31,
        max_bin_len=2**31,
        max_str_len=2**31,
        max_array_len=2**31,
        max_map_len=2**31,
    )


def from_extension(code: int, body: bytes) -> Any:
    if code == 1:
        return tuple(from_msgpack(body))
    if code == 2:
        return int.from_bytes(body, "big", signed=True)
    if code == 3:
        return complex(*struct.unpack(">dd", body))
    if code == 4:
        return body.decode("utf-8", "surrogatepass")
    if code == 5:
        return bytearray(body)
    raise AssertionError(code)


@given(plain_values)
def test_what_we_write_msgpack_reads(value: Any) -> None:
    structure = structure_of(encode(value))
    assert_same(from_msgpack(structure), value)
    assert len(structure) <= len(msgpack.packb(value))


@given(plain_values)
def test_what_msgpack_writes_we_read(value: Any) -> None:
    assert_same(decode(message_of(msgpack.packb(value))), value)
    single = msgpack.packb(value, use_single_float=True) if not has_large_float(value) else None
    if single is not None:
        assert_same(decode(message_of(single)), msgpack.unpackb(single, strict_map_key=False))


def has_large_float(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value) and abs(value) > 3e38
    if isinstance(value, list):
        return any(map(has_large_float, value))
    return isinstance(value, dict) and any(map(has_large_float, value.values()))


@pytest.mark.parametrize("value", PLAIN + EXTENDED, ids=lambda v: repr(v)[:30])
def test_examples_against_msgpack(value: Any) -> None:
    structure = structure_of(encode(value))
    assert_same(from_msgpack(structure), value)


# --- made-up values ------------------------------------------------------------------------------

numpy_dtypes = (
    hnp.boolean_dtypes()
    | hnp.integer_dtypes(endianness="?")
    | hnp.unsigned_integer_dtypes(endianness="?")
    | hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64))
    | hnp.complex_number_dtypes(endianness="?", sizes=(64, 128))
    | hnp.datetime64_dtypes(endianness="?")
    | hnp.timedelta64_dtypes(endianness="?")
    | hnp.byte_string_dtypes(min_len=1, max_len=9)
    | hnp.unicode_string_dtypes(endianness="?", min_len=1, max_len=9)
)


def has_titles(dtype: np.dtype) -> bool:
    base = dtype.base
    fields = base.fields.values() if base.fields is not None else ()
    return any(len(field) == 3 or has_titles(field[0]) for field in fields)


structured_dtypes = hnp.nested_dtypes(numpy_dtypes, max_leaves=6, max_itemsize=400).filter(
    lambda dtype: dtype.subdtype is None and dtype.itemsize > 0 and not has_titles(dtype)
)


@st.composite
def arrays(draw: Any, dtypes: Any = structured_dtypes) -> np.ndarray:
    """Arrays of any dtype, shape, order and strides; the content is random bits."""
    dtype = draw(dtypes)
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    content = draw(st.randoms(use_true_random=False)).randbytes(size)
    if dtype.kind == "U" or dtype.fields is not None:
        content = bytes(size)
    value = np.frombuffer(content, dtype, int(np.prod(shape, dtype=np.int64))).reshape(shape)
    value = np.array(value, order=draw(st.sampled_from("CF")))
    if draw(st.booleans()):
        value = value.transpose(draw(st.permutations(range(value.ndim))))
    if value.ndim > 0 and draw(st.booleans()):
        value = value[tuple(slice(None, None, draw(st.sampled_from([1, -1, 2]))) for _ in shape)]
    if draw(st.booleans()):
        value.flags.writeable = False
    return value


all_scalars = (
    plain_scalars
    | st.integers()
    | st.complex_numbers()
    | st.text(st.characters(codec=None, categories=None))
    | st.binary().map(bytearray)
)
all_keys = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.binary()
    | st.floats(allow_nan=False),
    lambda children: st.lists(children, max_size=3).map(tuple),
    max_leaves=4,
)
all_values = st.recursive(
    all_scalars | arrays(),
    lambda children: (
        st.lists(children, max_size=6)
        | st.lists(children, max_size=6).map(tuple)
        | st.dictionaries(all_keys, children, max_size=6)
    ),
    max_leaves=25,
)


@given(all_values)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_made_up_values(value: Any) -> None:
    assert_round_trip(value)


@given(arrays())
def test_made_up_arrays(value: np.ndarray) -> None:
    assert_round_trip(value)
    copy, view = copied(value), viewed(value)
    assert copy.flags.writeable
    assert not view.flags.writeable
    assert copy.ctypes.data % ALIGNMENT == 0
    assert view.size == 0 or view.ctypes.data % ALIGNMENT == 0
    if value.flags.c_contiguous or value.flags.f_contiguous:
        assert copy.flags.c_contiguous == value.flags.c_contiguous
        assert copy.flags.f_contiguous == value.flags.f_contiguous
        assert view.flags.f_contiguous == value.flags.f_contiguous


# --- NumPy ---------------------------------------------------------------------------------------

NUMPY_DTYPES = """bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64
    complex64 complex128""".split()
ML_DTYPES = """bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu
    float8_e4m3 float8_e3m4 float8_e4m3b11fnuz""".split()
DESCRIBED = [
    ">i4",
    ">f8",
    "<M8",
    "<M8[ns]",
    "<M8[25us]",
    ">M8[D]",
    "<m8[h]",
    "S1",
    "S7",
    "<U3",
    ">U3",
    "V5",
    [("a", "<i4"), ("b", ">f8"), ("c", "S3")],
    [("a", "<i4", (2, 3)), ("b", [("x", "u1"), ("y", "<M8[s]", (2,))])],
    {"names": ["x", "y"], "formats": ["<i2", "<f4"], "offsets": [3, 12], "itemsize": 32},
    np.dtype([("a", "u1"), ("b", "<f8")], align=True),
    np.dtype([("w", ml_dtypes.bfloat16), ("é", "?")]),
]


def dtype_named(name: Any) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name) if name in ML_DTYPES else name)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    "shape", [(), (0,), (1,), (7,), (3, 4), (3, 0, 2), (2, 3, 4, 5), (1,) * 32]
)
@pytest.mark.parametrize("name", NUMPY_DTYPES + ML_DTYPES)
def test_every_dtype_shape_and_order(name: str, shape: tuple[int, ...], order: Any) -> None:
    size = math.prod(shape)
    value = np.asarray(np.arange(size).reshape(shape) % 5, dtype=dtype_named(name), order=order)
    assert_round_trip(value)
    assert copied(value).flags.f_contiguous == value.flags.f_contiguous
    assert viewed(value).flags.f_contiguous == value.flags.f_contiguous


@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 2)])
@pytest.mark.parametrize("dtype", DESCRIBED, ids=str)
def test_described_dtypes(dtype: Any, shape: tuple[int, ...]) -> None:
    size = math.prod(shape) * np.dtype(dtype).itemsize
    content = bytes(size) if np.dtype(dtype).kind == "U" else b"\1" * size
    value = np.array(np.frombuffer(content, dtype, math.prod(shape)).reshape(shape))
    assert_round_trip(value)
    assert copied(value).dtype.isalignedstruct == value.dtype.isalignedstruct
    assert_round_trip(value[::-1] if value.ndim else value)


@pytest.mark.parametrize("code", "bBhHiIlLqQ")
def test_every_c_integer(code: str) -> None:
    assert copied(np.array([1, 2], code)).dtype == np.dtype(code)


def test_strided_arrays_arrive_contiguous() -> None:
    base = np.arange(4 * 5 * 6, dtype=np.int32).reshape(4, 5, 6)
    for value in (
        base[::2],
        base[:, ::-1],
        base[..., 3],
        base[1, 2, 3:4],
        base.transpose(1, 0, 2),
        base.swapaxes(0, 2)[::-2],
        np.broadcast_to(base[0, 0], (3, 2, 6)),
        np.broadcast_to(np.float64(2), (50, 3)),
        base[::-1, ::-1, ::-1],
        base[:, :1, :],
        base[:0, ::2],
        np.arange(600).astype("S7").reshape(20, 30)[::3, ::-4],
        np.arange(600, dtype=np.complex128).reshape(20, 30)[::3, ::-4],
        np.arange(600, dtype=np.uint8).reshape(20, 30)[:, ::7],
    ):
        assert_round_trip(value)
        assert copied(value).flags.c_contiguous


def test_copies_are_the_receivers_own() -> None:
    message = aligned(encode({"a": np.arange(10), "b": np.zeros((2, 3), order="F")}))
    value = decode(message)
    message[:] = 255
    value["a"] += 1
    value["b"][:] = 2
    assert value["a"].tolist() == list(range(1, 11))
    assert value["b"].flags.f_contiguous


@pytest.mark.parametrize("size", [1, 100, 5000, 300_000])
def test_copies_are_aligned_writable_and_large_enough(size: int) -> None:
    kept = [copied(np.arange(size, dtype=np.uint8)) for _ in range(20)]
    for value in kept:
        assert value.ctypes.data % ALIGNMENT == 0
        assert value.flags.writeable
        assert value.flags.aligned
        np.testing.assert_array_equal(value, np.arange(size, dtype=np.uint8))


def test_views_lie_in_the_message_and_are_read_only() -> None:
    message = aligned(encode([np.arange(100, dtype=np.int16), np.ones((3, 4), order="F")]))
    first, second = decode(message, copy=False)
    for value in (first, second):
        assert message.ctypes.data <= value.ctypes.data < message.ctypes.data + message.size
        assert value.ctypes.data % ALIGNMENT == 0
        assert not value.flags.writeable
        assert not value.flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            value[0] = 1
    assert second.flags.f_contiguous


def test_views_of_a_read_only_owner_cannot_be_made_writable() -> None:
    message = aligned(encode(np.arange(10)))
    message.flags.writeable = False
    value = decode(message, copy=False)
    with pytest.raises(ValueError, match="WRITEABLE"):
        value.flags.writeable = True


class Owner:
    """A buffer whose end can be watched."""

    def __init__(self, message: bytes) -> None:
        self.memory = mmap.mmap(-1, len(message))
        self.memory[:] = message


def test_each_view_keeps_its_owner() -> None:
    room = mmap.mmap(-1, 4096)
    message = encode([np.arange(4), np.arange(6)])
    room[: len(message)] = message
    watched = weakref.ref(room)
    first, second = decode(room, copy=False)
    with pytest.raises(BufferError):
        room.close()
    del room
    gc.collect()
    assert watched() is not None
    part = first[1:]
    del first, second
    gc.collect()
    assert watched() is not None
    assert part.tolist() == [1, 2, 3]
    del part
    gc.collect()
    assert watched() is None


def test_copies_let_go_of_the_owner() -> None:
    room = mmap.mmap(-1, 4096)
    message = encode([np.arange(4), b"x" * 70_000][:1])
    room[: len(message)] = message
    value = decode(room)
    room.close()
    assert value[0].tolist() == [0, 1, 2, 3]


def test_references_are_given_back() -> None:
    shared = np.arange(1000)
    big = b"x" * 100_000
    before = sys.getrefcount(shared), sys.getrefcount(big), sys.getrefcount(shared.dtype)
    for _ in range(50):
        decode(aligned(encode({"a": [shared, big]})), copy=False)
        decode(encode({"a": [shared, big]}))
        with pytest.raises(UnsupportedType):
            encode([shared, big, {1}])
    gc.collect()
    after = sys.getrefcount(shared), sys.getrefcount(big), sys.getrefcount(shared.dtype)
    assert after == before


def test_views_need_alignment() -> None:
    message = aligned(encode(np.arange(3)) + b"\0")
    shifted = np.empty(message.size + 1, np.uint8)[1:]
    if shifted.ctypes.data % ALIGNMENT == 0:
        shifted = shifted[1:]
    shifted[: message.size] = message[: shifted.size]
    with pytest.raises(InvalidArgument, match="64-byte aligned"):
        decode(shifted, copy=False)
    assert_same(decode(shifted), np.arange(3))


def test_read_only_arrays_and_memmaps(tmp_path: Any) -> None:
    np.save(tmp_path / "a.npy", np.arange(12).reshape(3, 4))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert type(mapped) is np.memmap
    assert_same(copied(mapped), np.arange(12).reshape(3, 4))
    assert_same(copied(mapped[::2]), np.arange(12).reshape(3, 4)[::2])


NUMPY_SCALARS = [
    *(np.dtype(name).type(1) for name in NUMPY_DTYPES),
    *(getattr(ml_dtypes, name)(1) for name in ML_DTYPES),
    np.float64(QUIET_NAN),
    np.float32(-0.0),
    np.int8(-128),
    np.uint64(2**64 - 1),
    np.complex64(1 - 2j),
    np.datetime64("2026-09-01T12:00:00.123456789"),
    np.datetime64("NaT"),
    np.datetime64("2026", "Y"),
    np.timedelta64(-7, "h"),
    np.str_("日本"),
    np.bytes_(b"abc"),
    np.void(b"12345"),
    np.array([(1, 2.5)], [("a", "<i4"), ("b", "<f8")])[0],
    np.array([(1,)], [("a", "<i8", (100,))])[0],
]


@pytest.mark.parametrize("value", NUMPY_SCALARS, ids=lambda v: f"{type(v).__name__}-{v!r}"[:40])
def test_numpy_scalars_keep_their_type(value: Any) -> None:
    assert_round_trip(value)
    assert_round_trip({"a": [value, value]})


def test_structured_scalars_own_their_bytes() -> None:
    message = aligned(encode(np.array([(1, 2.5)], [("a", "<i4"), ("b", "<f8")])[0]))
    value = decode(message, copy=False)
    message[:] = 0
    assert value["a"] == 1
    assert value["b"] == 2.5


def test_a_receiver_without_ml_dtypes_is_told() -> None:
    for value in (np.zeros(3, ml_dtypes.bfloat16), ml_dtypes.bfloat16(1)):
        out = run_python(f"""
            import sys
            sys.modules["ml_dtypes"] = None
            from penstock import _core, errors
            try:
                _core.codec_decode({encode(value)!r})
            except errors.Incompatible as error:
                print(error)
        """)
        assert "bfloat16" in out
        assert "package ml_dtypes" in out


def test_numpy_is_imported_only_when_needed() -> None:
    out = run_python(f"""
        import sys
        from penstock import _core
        assert "numpy" not in sys.modules
        assert _core.codec_decode(_core.codec_encode({{"a": [1, 2.5, "x", (b"y",)]}}))
        try:
            _core.codec_encode({{1}})
        except TypeError:
            pass
        assert "numpy" not in sys.modules, "imported for a plain value"
        print(_core.codec_decode({encode(np.arange(3))!r}).sum())
    """)
    assert out == "3"


# --- DLPack --------------------------------------------------------------------------------------


class Producer:
    """A tensor of some other library."""

    device: ClassVar[tuple[int, int]] = (1, 0)

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **arguments: Any) -> Any:
        return self.array.__dlpack__(**arguments)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


class OldProducer(Producer):
    def __dlpack__(self, stream: Any = None) -> Any:  # before DLPack 1.0 there was no max_version
        return self.array.__dlpack__()


class DeviceProducer(Producer):
    device = (2, 0)


class BrokenProducer(Producer):
    def __dlpack__(self, **arguments: Any) -> Any:
        raise RuntimeError("the device is lost")


@pytest.mark.parametrize("kind", [Producer, OldProducer])
def test_other_dlpack_libraries_arrive_as_numpy(kind: Any) -> None:
    for array_ in (np.arange(6.0).reshape(2, 3), np.arange(6).reshape(2, 3).T, np.arange(9)[::3]):
        for value in (copied({"a": kind(array_)}), viewed({"a": kind(array_)})):
            assert_same(value["a"], array_)


def test_dlpack_producers_are_let_go_of() -> None:
    held = np.arange(10)
    before = sys.getrefcount(held)
    for _ in range(10):
        encode(Producer(held))
    gc.collect()
    assert sys.getrefcount(held) == before


def test_dlpack_of_a_device_is_refused() -> None:
    with pytest.raises(
        UnsupportedType, match=r"value\[0\] is a .*DeviceProducer.*move it to the CPU"
    ):
        encode([DeviceProducer(np.arange(3))])


def test_errors_of_producers_come_through() -> None:
    with pytest.raises(RuntimeError, match="the device is lost"):
        encode([BrokenProducer(np.arange(3))])
    assert_round_trip([1])


def test_producers_may_use_the_codec_themselves() -> None:
    class Reentrant(Producer):
        def __dlpack__(self, **arguments: Any) -> Any:
            assert copied([np.arange(3), "inner"])[1] == "inner"
            return super().__dlpack__(**arguments)

    first, second, third = copied(["outer", Reentrant(np.arange(4)), np.arange(5)])
    assert (first, second.tolist(), third.tolist()) == ("outer", [0, 1, 2, 3], [0, 1, 2, 3, 4])


def test_containers_that_change_meanwhile_are_refused() -> None:
    class Mutating(Producer):
        def __dlpack__(self, **arguments: Any) -> Any:
            mutate()
            return super().__dlpack__(**arguments)

    items: list[Any] = [Mutating(np.arange(3)), "a", "b"]
    mutate = items.clear
    with pytest.raises(UnsupportedType, match="changed while"):
        encode(items)
    table: dict[Any, Any] = {"a": Mutating(np.arange(3)), "b": [1]}
    mutate = table.clear
    with pytest.raises(UnsupportedType, match="changed while"):
        encode(table)
    table = {"a": Mutating(np.arange(3)), "b": [1]}

    def mutate() -> None:
        table.update({str(i): i for i in range(100)})

    with pytest.raises(UnsupportedType, match="changed while"):
        encode(table)


# --- PyTorch -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


TORCH_DTYPES = [name for name in NUMPY_DTYPES + ML_DTYPES if name not in ML_DTYPES[6:]]


def assert_same_tensor(torch: Any, a: Any, b: Any) -> None:
    assert type(b) is torch.Tensor
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert a.device == b.device
    flat, other = (t.detach().resolve_conj().resolve_neg().contiguous().flatten() for t in (a, b))
    assert torch.equal(flat.view(torch.uint8), other.view(torch.uint8))


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (2, 0, 3), (2, 1, 3, 4)])
@pytest.mark.parametrize("name", TORCH_DTYPES)
def test_torch_dtypes_and_shapes(torch: Any, name: str, shape: tuple[int, ...]) -> None:
    value = (torch.arange(math.prod(shape)).reshape(shape) % 5).to(torch.float32)
    value = value.to(getattr(torch, name))
    for received in (copied(value), viewed({"a": [value]})["a"][0]):
        assert_same_tensor(torch, value, received)
        assert received.stride() == value.stride() or received.numel() <= 1
        assert received.numel() == 0 or received.data_ptr() % ALIGNMENT == 0


def test_torch_layouts(torch: Any) -> None:
    base = torch.arange(120, dtype=torch.int32).reshape(2, 3, 4, 5)
    for value in (
        base.permute(3, 2, 1, 0),
        base[:, ::2],
        base[..., 1],
        base.permute(1, 0, 3, 2),
        base.expand(3, 2, 3, 4, 5),
        base.flip(0),
        base.to(memory_format=torch.channels_last),
    ):
        assert_same_tensor(torch, value, copied(value))
    fortran = base.permute(3, 2, 1, 0)
    assert copied(fortran).stride() == fortran.stride()
    assert viewed(fortran).stride() == fortran.stride()


def test_torch_tensors_with_history_and_lazy_bits(torch: Any) -> None:
    grad = torch.ones(3, requires_grad=True)
    for value in (grad, grad * 2, torch.nn.Parameter(torch.ones(2)), grad.detach()):
        received = copied(value)
        assert_same_tensor(torch, value, received)
        assert not received.requires_grad
    z = torch.complex(torch.tensor([1.0, 2.0]), torch.tensor([3.0, -4.0]))
    for value in (z.conj(), z.conj().imag, z.mH if z.ndim == 2 else z, torch._neg_view(z.real)):
        assert_same_tensor(torch, value, copied(value))
        assert not copied(value).is_conj()
        assert not copied(value).is_neg()


def test_torch_copies_are_the_receivers_own(torch: Any) -> None:
    message = aligned(encode(torch.arange(10)))
    value = decode(message)
    message[:] = 255
    value += 1
    assert value.tolist() == list(range(1, 11))


def test_torch_views_keep_their_owner(torch: Any) -> None:
    room = mmap.mmap(-1, 4096)
    message = encode({"a": torch.arange(8)})
    room[: len(message)] = message
    watched = weakref.ref(room)
    value = decode(room, copy=False)["a"]
    start = ctypes.addressof(ctypes.c_char.from_buffer(room))
    assert start < value.data_ptr() < start + 4096
    del room
    part = value[2:4]
    del value
    gc.collect()
    assert watched() is not None
    assert part.tolist() == [2, 3]
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    del part
    gc.collect()
    assert watched() is None


def test_torch_tensors_that_are_not_sent(torch: Any) -> None:
    class Special(torch.Tensor):
        pass

    for value, what in (
        (torch.eye(3).to_sparse(), "to_dense"),
        (torch.eye(3).to_sparse_csr(), "to_dense"),
        (torch.empty(3, device="meta"), "device 'meta': move it to the CPU"),
        (torch.ones(3).as_subclass(Special), "subclass of torch.Tensor"),
        (torch.ones(2, dtype=torch.complex32), "dtype"),
    ):
        with pytest.raises(UnsupportedType, match=what):
            encode({"t": value})
    assert_same_tensor(torch, torch.ones(2), copied(torch.ones(2)))


def test_torch_tensors_inside_messages(torch: Any) -> None:
    value = {"x": torch.ones(2, 3), "y": [np.arange(3), torch.zeros(4, dtype=torch.bfloat16)]}
    received = copied(value)
    assert_same_tensor(torch, value["x"], received["x"])
    assert_same(value["y"][0], received["y"][0])
    assert_same_tensor(torch, value["y"][1], received["y"][1])


def test_a_tensor_is_refused_as_key(torch: Any) -> None:
    with pytest.raises(UnsupportedType, match="has a key of type torch.Tensor"):
        encode({torch.ones(1): 1})


def test_older_pytorch(torch: Any) -> None:
    """Without the exchange table, which came late: attributes in, a capsule out."""
    out = run_python("""
        import sys
        import torch
        if hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
            del torch.Tensor.__dlpack_c_exchange_api__
        from penstock import _core
        import numpy as np
        import gc, sys
        z = torch.complex(torch.tensor([1.0, 2.0]), torch.tensor([3.0, -4.0]))
        base = torch.arange(24).reshape(2, 3, 4)
        for value in (
            base, base.permute(2, 1, 0), base[:, ::2], base[:0], torch.tensor(3.5), z.conj(),
            z.conj().imag, torch.ones(3, requires_grad=True), torch.ones(2, 2, dtype=torch.bfloat16),
            torch.ones(5).to(torch.float8_e4m3fn), torch.tensor([True, False]), z,
        ):
            message = _core.codec_encode({"t": value})
            room = np.zeros(len(message) + 64, np.uint8)
            start = -room.ctypes.data % 64
            place = room[start : start + len(message)]
            place[:] = np.frombuffer(message, np.uint8)
            before = sys.getrefcount(place)
            for copy in (True, False):
                got = _core.codec_decode(place, copy=copy)["t"]
                assert type(got) is torch.Tensor and got.dtype == value.dtype, got
                assert got.shape == value.shape, (got.shape, value.shape)
                assert torch.equal(got.float().real, value.detach().resolve_conj().float().real)
                assert not got.is_complex() or torch.equal(got, value.resolve_conj())
                del got
            gc.collect()
            assert sys.getrefcount(place) == before
        for value in (torch.eye(3).to_sparse(), torch.empty(3, device="meta"),
                      torch.ones(2, dtype=torch.complex32)):
            try:
                _core.codec_encode(value)
                raise AssertionError(value)
            except TypeError as error:
                print(error)
    """)
    assert "to_dense" in out
    assert "move it to the CPU" in out
    assert "torch.complex32" in out


def test_a_receiver_without_pytorch_gets_numpy(torch: Any) -> None:
    out = run_python(f"""
        import sys
        sys.modules["torch"] = None
        from penstock import _core
        for _ in range(2):
            value = _core.codec_decode({encode([torch.ones(3), 7])!r})
            print(type(value[0]).__name__, value[0].dtype, value[0].tolist())
    """)
    assert out.splitlines() == ["ndarray float32 [1.0, 1.0, 1.0]"] * 2


def test_pytorch_is_imported_by_the_first_tensor_only(torch: Any) -> None:
    out = run_python(f"""
        import sys
        from penstock import _core
        import numpy as np
        _core.codec_decode(_core.codec_encode({{"a": np.arange(3), "b": np.float32(1)}}))
        assert "torch" not in sys.modules
        print(type(_core.codec_decode({encode(torch.ones(3))!r})).__name__)
    """)
    assert out == "Tensor"


def test_tensors_may_die_with_the_interpreter(torch: Any) -> None:
    assert (
        run_python(f"""
        from penstock import _core
        import atexit, threading
        kept = _core.codec_decode({encode([torch.ones(3), np.arange(3)])!r})
        _core.kept = kept
        print("ok")
    """)
        == "ok"
    )


# --- dataclasses ---------------------------------------------------------------------------------


@register_dataclass
@dataclasses.dataclass
class Step:
    number: int
    tokens: np.ndarray
    extra: Any = None
    COUNT: ClassVar[int] = 0


@register_dataclass
@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: int
    y: tuple[int, ...] = ()


@dataclasses.dataclass
class Counting:
    a: int
    made: int = dataclasses.field(default=0, init=False)

    def __post_init__(self) -> None:
        self.made += 1


def test_dataclasses() -> None:
    value = Step(3, np.arange(4), {"inner": Frozen(1, (2, 3))})
    for received in (copied(value), viewed([value])[0]):
        assert type(received) is Step
        assert received.number == 3
        assert_same(received.tokens, np.arange(4))
        assert received.extra == {"inner": Frozen(1, (2, 3))}


def test_frozen_dataclasses_as_keys() -> None:
    assert copied({Frozen(1, (2,)): "a", Frozen(2): "b"}) == {Frozen(1, (2,)): "a", Frozen(2): "b"}


def test_received_dataclasses_are_not_made_anew() -> None:
    register_dataclass(Counting, name="counting")
    value = Counting(5)
    assert value.made == 1
    received = copied(value)
    assert (received.a, received.made) == (5, 1)
    assert b"counting" in encode(value)


def test_the_path_to_a_field() -> None:
    with pytest.raises(UnsupportedType, match=r"^value\[0\]\.extra\['k'\] is a set"):
        encode([Step(1, np.arange(2), {"k": {1}})])


def test_subclasses_of_registered_dataclasses_are_refused() -> None:
    @dataclasses.dataclass
    class More(Step):
        more: int = 0

    with pytest.raises(UnsupportedType, match="register this dataclass"):
        encode(More(1, np.arange(2)))


def test_a_receiver_must_know_the_dataclass() -> None:
    out = run_python(f"""
        import dataclasses
        from penstock import _core, codec, errors
        message = {encode(Frozen(1))!r}
        name = {Frozen.__module__ + ".Frozen"!r}

        def attempt():
            try:
                print(_core.codec_decode(message))
            except errors.Incompatible as error:
                print(error)

        attempt()

        @dataclasses.dataclass
        class Other:
            x: int
            z: int = 0

        codec.register_dataclass(Other, name=name)
        attempt()

        @dataclasses.dataclass
        class Same:
            y: tuple
            x: int

        codec.register_dataclass(Same, name=name)
        attempt()
    """).splitlines()
    assert "register it here too" in out[0]
    assert "other fields" in out[1]
    assert out[2] == "Same(y=(), x=1)"


@pytest.mark.parametrize("what", [int, Frozen(1), "Step", None, enum.IntEnum])
def test_only_dataclasses_are_registered(what: Any) -> None:
    with pytest.raises(InvalidArgument, match="@dataclass"):
        register_dataclass(what)


def test_dataclasses_on_top_of_builtins_are_not_registered() -> None:
    @dataclasses.dataclass
    class Table(dict):  # type: ignore[type-arg]
        a: int = 1

    with pytest.raises(TypeError, match="not safe"):
        register_dataclass(Table)
    with pytest.raises(UnsupportedType):
        encode(Table())


# --- pickle --------------------------------------------------------------------------------------


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


def test_a_pickle_side_sends_typed_what_it_can() -> None:
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


def test_pickled_tensors_travel_out_of_band(torch: Any) -> None:
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


def test_pickled_tensors_with_history_stay_what_they_are(torch: Any) -> None:
    value = Anything([torch.ones(3, requires_grad=True), torch.eye(2).to_sparse()])
    leaf, sparse = decode(encode(value, codec="pickle"), codec="pickle").content
    assert leaf.requires_grad
    assert sparse.is_sparse


def test_what_cannot_be_pickled_says_so() -> None:
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


# --- bad bytes -----------------------------------------------------------------------------------


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


# Everything but the payload of `big`, of which nothing depends on the content.
RICH = encode(rich_value())


def attempt(message: bytes | np.ndarray, codec: str | None = None) -> Any:
    """Decode; only the two errors that bad bytes may raise are let pass, as None."""
    for copy in (True, False):
        room = aligned(bytes(message))
        try:
            value = decode(room, copy=copy, codec=codec)
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
@settings(deadline=None, max_examples=300)
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
    """Products that overflow, sizes that do not fit, empty arrays that claim the universe."""
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


@pytest.mark.parametrize("descr", HOSTILE_DESCRS, ids=lambda v: str(v)[:30])
def test_hostile_dtypes(descr: Any) -> None:
    error = Incompatible if descr == 24 else Corrupt  # 24 may be a dtype of a newer version
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


@pytest.mark.parametrize("structure", BAD_STRUCTURES, ids=lambda s: s[:8].hex() or "empty")
def test_bad_structures(structure: bytes) -> None:
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


def test_memory_that_changes_while_it_is_read() -> None:
    """Another process scribbles over the message; every outcome is a value or one of two errors."""
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
                try:
                    repr(decode(room, copy=copy))
                    outcomes["value"] += 1
                except (Corrupt, Incompatible):
                    outcomes["error"] += 1
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert outcomes["value"] > 0


# --- threads -------------------------------------------------------------------------------------


def test_threads_do_not_share_their_scratch() -> None:
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for i in range(300):
                big = np.full(200_000, seed, np.int32) if i % 50 == 0 else np.arange(seed)
                value = {"seed": seed, "i": i, "a": big, f"key{seed}": [b"x" * seed * 10]}
                assert_same(copied(value), value)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_large_structure_gives_its_memory_back_and_the_next_is_right() -> None:
    assert_round_trip(["x" * 1000 for _ in range(5000)])
    assert_round_trip({"a": 1})
