"""Arrays and NumPy scalars through the codec: dtypes, orders, owners; and DLPack."""

from __future__ import annotations

import gc
import itertools
import math
import mmap
import sys
import weakref
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
import pytest
from codec_messages import (
    ALIGNMENT,
    ML_DTYPES,
    NUMPY_DTYPES,
    QUIET_NAN,
    aligned,
    arrays,
    assert_round_trip,
    assert_same,
    copied,
    decode,
    encode,
    run_python,
    viewed,
)
from hypothesis import given

from penstock.errors import InvalidArgument, UnsupportedType


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


# --- NumPy ----
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


SHAPES = [(), (0,), (1,), (7,), (3, 4), (3, 0, 2), (2, 3, 4, 5), (1,) * 32]


@pytest.mark.parametrize("name", NUMPY_DTYPES + ML_DTYPES)
def test_every_dtype_shape_and_order(name: str) -> None:
    for shape, order in itertools.product(SHAPES, "CF"):
        items = np.arange(math.prod(shape)).reshape(shape) % 5
        value = np.asarray(items, dtype=dtype_named(name), order=order)
        assert_round_trip(value)
        assert copied(value).flags.f_contiguous == value.flags.f_contiguous
        assert viewed(value).flags.f_contiguous == value.flags.f_contiguous


@pytest.mark.parametrize("dtype", DESCRIBED, ids=str)
def test_described_dtypes(dtype: Any) -> None:
    for shape in ((), (0,), (5,), (3, 2)):
        size = math.prod(shape) * np.dtype(dtype).itemsize
        content = bytes(size) if np.dtype(dtype).kind == "U" else b"\1" * size
        value = np.array(np.frombuffer(content, dtype, math.prod(shape)).reshape(shape))
        assert_round_trip(value)
        assert copied(value).dtype.isalignedstruct == value.dtype.isalignedstruct
        assert_round_trip(value[::-1] if value.ndim else value)


def test_every_c_integer() -> None:
    for code in "bBhHiIlLqQ":
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


@pytest.mark.parametrize("size", [1, 100, 5000, 300_000, 5 << 20])
def test_copies_are_aligned_writable_and_large_enough(size: int) -> None:
    sent = np.arange(size).astype(np.uint8)
    for value in [copied(sent) for _ in range(10)]:
        assert value.ctypes.data % ALIGNMENT == 0
        assert value.flags.writeable
        assert value.flags.aligned
        np.testing.assert_array_equal(value, sent)
        value[:] = 0


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


def test_numpy_scalars_keep_their_type() -> None:
    for value in NUMPY_SCALARS:
        assert_round_trip(value)
        assert_round_trip({"a": [value, value]})


def test_structured_scalars_own_their_bytes() -> None:
    message = aligned(encode(np.array([(1, 2.5)], [("a", "<i4"), ("b", "<f8")])[0]))
    value = decode(message, copy=False)
    message[:] = 0
    assert value["a"] == 1
    assert value["b"] == 2.5


def test_a_receiver_without_ml_dtypes_gets_an_error() -> None:
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


# --- DLPack ----
class Producer:
    """A tensor of another library."""

    device: ClassVar[tuple[int, int]] = (1, 0)

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **arguments: Any) -> Any:
        return self.array.__dlpack__(**arguments)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


class OldProducer(Producer):
    def __dlpack__(self, stream: Any = None) -> Any:  # before DLPack 1.0 without max_version
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


class Nonsense(Producer):
    """A producer that violates the protocol."""

    def __init__(self, capsule: Any = None, device: Any = (1, 0)) -> None:
        self.capsule, self.device = capsule, device

    def __dlpack__(self, **arguments: Any) -> Any:
        return self.capsule


class Deviceless(Producer):
    def __dlpack_device__(self) -> tuple[int, int]:
        raise BufferError("no such device")


def used_capsule() -> Any:
    capsule = np.arange(3).__dlpack__()
    np.from_dlpack(OnceMore(capsule))
    return capsule


class OnceMore(Nonsense):
    """The result for NumPy's request of a capsule."""


@pytest.mark.parametrize(
    ("make", "sentence", "cause"),
    [
        (
            lambda: BrokenProducer(np.arange(3)),
            r"__dlpack__\(\) raised RuntimeError: the device",
            1,
        ),
        (lambda: Deviceless(np.arange(3)), r"__dlpack_device__\(\) raised BufferError: no such", 1),
        (lambda: Nonsense(None), r"__dlpack__\(\) gave None, and not a capsule", 0),
        (lambda: Nonsense("x" * 5000), r"__dlpack__\(\) gave 'xxx.*…, and not a capsule", 0),
        (
            lambda: Nonsense(used_capsule()),
            r"__dlpack__\(\) gave a capsule of another version of DLPack, or a used one",
            0,
        ),
        (lambda: Nonsense(device=None), r"__dlpack_device__\(\) gave None, and not \(device", 0),
        (lambda: Nonsense(device=("cpu", 0)), r"__dlpack_device__\(\) gave \('cpu', 0\)", 0),
        (lambda: Nonsense(device=(2**70, 0)), r"__dlpack_device__\(\) gave", 0),
    ],
)
def test_faults_of_producers_are_told(make: Any, sentence: str, cause: int) -> None:
    with pytest.raises(UnsupportedType, match=r"value\[0\] is a .* whose " + sentence) as caught:
        encode([make()])
    assert (caught.value.__cause__ is not None) == bool(cause)
    assert_round_trip([1])


def test_ctrl_c_in_a_producer_is_ctrl_c() -> None:
    class Interrupted(Producer):
        def __dlpack__(self, **arguments: Any) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode([Interrupted(np.arange(3))])


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

    mutate = lambda: table.update({str(i): i for i in range(100)})  # noqa: E731
    with pytest.raises(UnsupportedType, match="changed while"):
        encode(table)
