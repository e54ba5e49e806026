"""The codec: what comes out for what goes in, and what is refused. `msgpack` is the oracle."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import enum
import math
import random
import struct
import threading
from typing import Any, ClassVar

import ml_dtypes
import msgpack
import numpy as np
import pytest
from codec_messages import (
    NEGATIVE_NAN,
    OUT_OF_BAND,
    QUIET_NAN,
    aligned,
    arrays,
    assert_round_trip,
    assert_same,
    copied,
    decode,
    encode,
    message_of,
    plain_scalars,
    plain_values,
    run_python,
    structure_of,
    viewed,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.codec import register_dataclass
from penstock.errors import Error, InvalidArgument, UnsupportedType

# --- plain values ----
INTEGERS = sorted(
    {sign * (2**power) + off for sign in (1, -1) for power in range(70) for off in (-1, 0, 1)}
    | {0, 31, 32, -31, -32, -33, 10**40, -(10**40), 1 << 1000, -(1 << 1000)}
)

PLAIN = {
    "constants": [None, True, False],
    "integers": INTEGERS,
    "floats": [
        *(0.0, -0.0, 1.5, math.inf, -math.inf, 5e-324, 1.7976931348623157e308),
        *(QUIET_NAN, NEGATIVE_NAN),
    ],
    "texts": [
        *("", "a", "ü", "日本", "🌊", "a\0b", "é" * 70_000),
        *("x" * size for size in (31, 32, 255, 256, 65_535, 65_536)),
    ],
    "bytes": [b"", b"a", b"\0\xff", *(b"x" * size for size in (255, 256, 65_535))],
    "lists": [[], [1], [None, [True, [2.5]]], list(range(15)), list(range(16)), [0] * 70_000],
    "dicts": [{}, {"a": 1}, *({str(i): i for i in range(n)} for n in (15, 16, 70_000))],
}

EXTENDED = {
    "complex": [1j, complex(-0.0, NEGATIVE_NAN)],
    "surrogates": ["\ud800", "a\udcffé🌊"],
    "bytearrays": [bytearray(), bytearray(b"abc")],
    "tuples": [(), (1,), (1, (2, (3, ()))), tuple(range(300)), [(1, 2), {"a": (3, [4])}]],
}

KEYS = [None, True, 2, 2**70, 1.5, 1j, "k", "\udc80", b"b", (1, "a", (None,)), np.int64(11)]


@pytest.mark.parametrize("kind", [*PLAIN, *EXTENDED])
def test_values_come_out_as_they_went_in(kind: str) -> None:
    for value in (PLAIN | EXTENDED)[kind]:
        assert_round_trip(value)


@pytest.mark.parametrize("kind", [*PLAIN, *EXTENDED])
def test_msgpack_reads_the_same(kind: str) -> None:
    for value in (PLAIN | EXTENDED)[kind]:
        assert_same(from_msgpack(structure_of(encode(value))), value)


def test_keys_keep_their_type() -> None:
    for key in KEYS:
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
    # Far more keys than the decoder's cache holds, twice, so that each evicts another.
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
    with pytest.raises(UnsupportedType, match=r"^value contains itself"):
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


# --- refusals ----
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
    (np.zeros(2, np.longdouble), "longdouble|float128"),
    (np.zeros(2, np.clongdouble), "complex256|clongdouble"),
    (np.zeros(2, ml_dtypes.int4), "int4"),
    (np.zeros(2, [(("title", "a"), "i4")]), "titles"),
    (np.zeros(2, "V0"), "no size"),
    (np.longdouble(1), "longdouble|float128"),
    (np.arange(4).reshape(2, 2).view(np.matrix), "subclass of numpy.ndarray"),
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


def test_numpy_strings_of_variable_length_are_refused() -> None:
    if not hasattr(np, "dtypes") or not hasattr(np.dtypes, "StringDType"):
        pytest.skip("this NumPy has none")
    with pytest.raises(UnsupportedType, match="StringDType"):
        encode(np.array(["a"], np.dtypes.StringDType()))


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


# --- the oracle ----
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


@pytest.mark.full
@given(plain_values)
def test_msgpack_reads_what_we_write(value: Any) -> None:
    structure = structure_of(encode(value))
    assert_same(from_msgpack(structure), value)
    assert len(structure) <= len(msgpack.packb(value))


@given(plain_values)
def test_we_read_what_msgpack_writes(value: Any) -> None:
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


# --- generated values ----
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


# --- dataclasses ----
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


# --- threads ----
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
