"""Messages for the tests of the codec: built, taken apart, aligned in memory, compared."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import textwrap
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from penstock import _core

HEADER = struct.Struct("<HBBIQ")
MAGIC = 0x5350
ALIGNMENT = 64
OUT_OF_BAND = 65536

# The duration of an example means nothing on a machine that others use too.
settings.register_profile("codec", deadline=None)
settings.load_profile("codec")

encode = _core.codec_encode
decode = _core.codec_decode

NUMPY_DTYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
]
ML_DTYPES = [
    name
    for name in (
        *("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"),
        *("float8_e8m0fnu", "float8_e4m3", "float8_e3m4", "float8_e4m3b11fnuz"),
    )
    if hasattr(ml_dtypes, name)  # the later ones came in its version 0.5
]
QUIET_NAN = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_DEAD_BEEF))[0]
NEGATIVE_NAN = struct.unpack("<d", struct.pack("<Q", 0xFFF8_0000_0000_0001))[0]


def aligned(message: bytes) -> np.ndarray:
    """The message in memory aligned to 64 bytes, as in a segment."""
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
            for name in a.dtype.names:  # not tobytes(): padding is arbitrary
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


def assert_same_tensor(torch: Any, a: Any, b: Any) -> None:
    assert type(b) is torch.Tensor
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert a.device == b.device
    flat, other = (t.detach().resolve_conj().resolve_neg().contiguous().flatten() for t in (a, b))
    assert torch.equal(flat.view(torch.uint8), other.view(torch.uint8))


def run_python(code: str) -> str:
    """Run code in a fresh interpreter with the same packages; return its output."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=100,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p)),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- generated values ----------------------------------------------------------------------------

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
