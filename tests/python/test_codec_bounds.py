"""A message's cost to its receiver is bounded by its bytes: memory, time, and stack."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import penstock
from penstock._core import codec_decode as decode
from penstock._core import codec_encode as encode

MIB = 1 << 20
PRIME = (1 << 61) - 1  # the modulus of CPython's hash of numbers


# --- bytes referenced twice ---------------------------------------------------------------------


def with_structure(message: bytes, structure: bytes) -> bytes:
    """The message with another structure before its table and payloads."""
    (old,) = struct.unpack_from("<Q", message, 8)
    (tensors,) = struct.unpack_from("<I", message, 4)
    table = (16 + old + 7) & ~7
    entries = [
        list(struct.unpack_from("<QQIBBBB", message, table + 24 * n)) for n in range(tensors)
    ]
    dims = message[table + 24 * tensors : min(entry[0] for entry in entries)]
    start = (16 + len(structure) + 7) & ~7
    payloads = (start + 24 * tensors + len(dims) + 63) & ~63
    shift = payloads - min(entry[0] for entry in entries)
    head = bytearray(message[:16])
    struct.pack_into("<Q", head, 8, len(structure))
    out = bytes(head) + structure
    out = out.ljust(start, b"\0")
    for entry in entries:
        out += struct.pack("<QQIBBBB", entry[0] + shift, *entry[1:])
    return (out + dims).ljust(payloads, b"\0") + message[min(entry[0] for entry in entries) :]


REFERENCE = b"\xd4\x07\x00"  # ext Tensor: entry 0
BYTES = b"\xc7\x03\x06\x92\x00\x00"  # ext OutOfBand: bytes of entry 0
REPEATED = {
    "array": (np.zeros(MIB, np.uint8), REFERENCE),
    "bytes": (bytes(MIB), BYTES),
    "tensor": (None, REFERENCE),
    "empty array": (np.zeros(0, np.uint8), REFERENCE),
}


@pytest.mark.parametrize("what", REPEATED)
@pytest.mark.parametrize("copy", [True, False], ids=["recv", "view"])
def test_the_same_bytes_again_are_refused(what: str, copy: bool) -> None:
    value, reference = REPEATED[what]
    if value is None:
        value = pytest.importorskip("torch").zeros(MIB, dtype=pytest.importorskip("torch").uint8)
    message = encode(value)
    again = with_structure(message, b"\xdc" + struct.pack(">H", 3000) + 3000 * reference)
    aligned = np.zeros(len(again) + 64, np.uint8)
    start = -aligned.ctypes.data % 64
    aligned[start : start + len(again)] = np.frombuffer(again, np.uint8)
    before = peak()
    with pytest.raises(penstock.Corrupt):
        penstock._core.codec_decode(aligned[start : start + len(again)], copy=copy)
    assert peak() - before < 64 * MIB
    once = with_structure(message, b"\x91" + reference)
    assert len(decode(once)) == 1


def peak() -> int:
    """The peak memory of this process, in bytes."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))


def test_entries_over_the_same_bytes_are_refused() -> None:
    """Different entries of the table with the same payload."""
    arrays = [np.zeros(MIB, np.uint8) for _ in range(4)]
    message = bytearray(encode(arrays))
    (size,) = struct.unpack_from("<Q", message, 8)
    table = (16 + size + 7) & ~7
    (first,) = struct.unpack_from("<Q", message, table)
    for entry in range(4):
        struct.pack_into("<Q", message, table + 24 * entry, first)
    shorter = bytes(message[: first + MIB])
    with pytest.raises(penstock.Corrupt):
        decode(shorter)


def test_a_pickle_is_held_to_the_same() -> None:
    message = bytearray(
        encode([{1}, *(np.full(MIB, n, np.uint8) for n in range(4))], codec="pickle")
    )
    assert len(decode(bytes(message), codec="pickle")) == 5
    (size,) = struct.unpack_from("<Q", message, 8)
    table = (16 + size + 7) & ~7
    (first,) = struct.unpack_from("<Q", message, table)
    for entry in range(4):
        struct.pack_into("<Q", message, table + 24 * entry, first)
    with pytest.raises(penstock.Corrupt):
        decode(bytes(message[: first + MIB]), codec="pickle")


def test_columns_of_a_group_over_the_same_bytes_are_refused() -> None:
    """For a trainer, which copies every column into its batch."""
    columns = {"tokens": np.arange(100, dtype=np.int32), "masks": np.arange(100, dtype=np.int32)}
    parts = {"group": 1, "environment": "math", "instance_id": "one", "begun": 0}
    message = bytearray(encode({**parts, "lengths": np.array([100]), **columns}))
    penstock._core._check_group(bytes(message))
    size, tensors = struct.unpack_from("<Q", message, 8)[0], 3
    table = (16 + size + 7) & ~7
    (tokens,) = struct.unpack_from("<Q", message, table + 24 * (tensors - 2))
    masks = struct.unpack_from("<Q", message, table + 24 * (tensors - 1))[0]
    struct.pack_into("<Q", message, table + 24 * (tensors - 1), tokens)
    with pytest.raises(penstock.Corrupt):
        penstock._core._check_group(bytes(message[:masks]))


# --- keys of one hash -------------------------------------------------------------------------


def tuples_of_one_hash(count: int) -> list[tuple[int, int]]:
    """Pairs of ints with equal hashes: CPython's xxHash for tuples, solved for the second."""
    one, two, five = 11400714785074694791, 14029467366897019727, 2870177450012600261
    mask = (1 << 64) - 1

    def rotated(number: int, bits: int) -> int:
        return (number << bits | number >> (64 - bits)) & mask

    inverse_one, inverse_two = pow(one, -1, 1 << 64), pow(two, -1, 1 << 64)
    wanted = 0x123456789ABCDEF0  # the accumulator after the second item
    before_last = rotated(wanted * inverse_one & mask, 64 - 31)
    found = []
    first = 1
    while len(found) < count:
        first += 1
        accumulator = rotated((five + first * two) & mask, 31) * one & mask
        second = (before_last - accumulator) * inverse_two & mask
        if second < PRIME:  # an int that hashes to itself
            found.append((first, second))
    return found


COUNT = 20_000
ONE_HASH: dict[str, Callable[[], list[Any]]] = {
    "ints": lambda: [n * PRIME for n in range(1, COUNT)],
    "tuples": lambda: list(tuples_of_one_hash(COUNT)),
    "tuples of ints": lambda: [(1, n * PRIME) for n in range(1, COUNT)],
    "complex": lambda: [complex(1000003 * n % PRIME, -n) for n in range(1, COUNT)],
    "long ints": lambda: [(n << 61 * 100) - n + 5 for n in range(1, 6000)],
}


@pytest.mark.parametrize("kind", ONE_HASH)
def test_keys_of_one_hash_are_refused_before_they_cost(kind: str) -> None:
    keys = ONE_HASH[kind]()
    hashes = {hash(key) for key in keys}
    if len(hashes) > len(keys) // 100:
        pytest.skip(f"this Python hashes otherwise: {len(hashes)} hashes of {len(keys)} keys")
    # Not encoded from a dict, which would take long to build: a map has the form of an array of
    # pairs.
    message = bytearray(encode([part for key in keys for part in (key, 0)]))
    marker, count = 16, 2 * len(keys)
    if message[marker] == 0xDC:
        message[marker : marker + 3] = b"\xde" + struct.pack(">H", count // 2)
    else:
        assert message[marker] == 0xDD
        message[marker : marker + 5] = b"\xdf" + struct.pack(">I", count // 2)
    started = time.thread_time()
    with pytest.raises(penstock.Corrupt) as refusal:
        decode(bytes(message))
    assert "hash" in str(refusal.value)
    taken = time.thread_time() - started
    started = time.thread_time()
    decode(encode(dict.fromkeys(range(200_000), 0)))
    assert taken < 20 * (time.thread_time() - started), f"{taken} s"


HONEST: dict[str, Callable[[], dict[Any, int]]] = {
    "ints": lambda: {n: n for n in range(-50_000, 50_000)},
    "wide ints": lambda: {n << 40: n for n in range(50_000)},
    "big ints": lambda: {n << 100 | n: n for n in range(50_000)},
    "few big ints of one hash": lambda: {n * PRIME: n for n in range(1, 1000)},
    "floats": lambda: {n / 7: n for n in range(50_000)},
    "powers of two": lambda: {2.0**n: n for n in range(-1000, 1000)},
    "grid": lambda: {
        tuple(int(c) - 3 for c in np.base_repr(n, 5).zfill(7)): n for n in range(5**7)
    },
    "pairs": lambda: {(n // 300, n % 300): n for n in range(50_000)},
    "words": lambda: {f"key {n}": n for n in range(50_000)},
    "bytes": lambda: {n.to_bytes(4, "big"): n for n in range(50_000)},
    "numpy": lambda: {np.int64(n): n for n in range(20_000)},
    "numpy floats": lambda: {np.float32(n): n for n in range(20_000)},
    "mixed": lambda: {k: 1 for n in range(9000) for k in (n, f"{n}", n + 0.5, (n,), 1j * n + 1)},
    "many small": lambda: {n: {(n, m): m for m in range(70)} for n in range(1000)},
}


@pytest.mark.parametrize("kind", HONEST)
def test_honest_dicts_come_through(kind: str) -> None:
    value = HONEST[kind]()
    assert decode(encode(value)) == value


# --- nesting in a thread with a small stack -----------------------------------------------------

SHORT = 64 << 10
CODE = """
import sys, threading, warnings
warnings.simplefilter("ignore")
import numpy as np
import penstock
from penstock._core import codec_decode as decode
from penstock._core import codec_encode as encode
from penstock import codec
import dataclasses

@dataclasses.dataclass(frozen=True)
class Node:
    inner: object

penstock.codec.register_dataclass(Node, name="node")

WRAPS = {
    "tuple": lambda v: (v,),
    "list": lambda v: [v],
    "dict": lambda v: {"k": v},
    "dataclass": lambda v: Node(v),
    "key": lambda v: (v,),
    "array": lambda v: [v],
    "descr": lambda v: v,
}

def nested(kind, depth):
    value = np.zeros(300, np.float32) if kind == "array" else 1
    for _ in range(depth):
        value = WRAPS[kind](value)
    if kind == "key":
        value = {value: 1}
    if kind == "descr":
        dtype = np.dtype("i4")
        for _ in range(min(depth, 30)):
            dtype = np.dtype([("f", dtype)])
        value = np.zeros(2, dtype)
    return value

def in_thread(call):
    outcome = []
    def run():
        try:
            outcome.append(call())
        except penstock.Error as error:
            outcome.append(error)
    threading.stack_size(65536)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    threading.stack_size(0)
    return outcome[0]

kind, depth = sys.argv[1], int(sys.argv[2])
value = nested(kind, depth)
message = encode(value)
decode(message)
for what, call in (("encode", lambda: encode(value)), ("decode", lambda: decode(message))):
    outcome = in_thread(call)
    sentence = str(outcome) if isinstance(outcome, Exception) else ""
    print(what, type(outcome).__name__, sentence)
"""


def in_a_short_stack(kind: str, depth: int) -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", CODE, kind, str(depth)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    return [line.split(" ", 2) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("kind", ["tuple", "list", "dict", "dataclass", "key", "array"])
def test_nesting_beyond_a_threads_stack_is_an_error(kind: str) -> None:
    """The value is decoded if it fits after all; the process survives either way."""
    for what, outcome, sentence in in_a_short_stack(kind, 250):
        assert outcome in ("TooLarge", "bytes", "tuple", "list", "dict", "Node"), (what, sentence)
        if outcome == "TooLarge":
            assert "stack" in sentence
            assert "deep" in sentence
        elif what == "decode" and kind == "dict":
            raise AssertionError("250 dicts in 64 KiB: this test does not reach the end of a stack")


@pytest.mark.parametrize("kind", ["tuple", "list", "dict", "dataclass", "key", "array", "descr"])
def test_usual_nesting_fits_any_stack(kind: str) -> None:
    for what, outcome, sentence in in_a_short_stack(kind, 5):
        assert outcome not in ("TooLarge", "Corrupt"), (what, sentence)


def test_a_deep_dtype_is_read_or_told() -> None:
    for _, outcome, sentence in in_a_short_stack("descr", 30):
        assert outcome in ("bytes", "ndarray") or "stack" in sentence


def test_the_deepest_fits_a_usual_thread() -> None:
    value: Any = 1
    for _ in range(256):
        value = (value,)
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(decode(encode(value))))
    thread.start()
    thread.join()
    assert outcome == [value]


def test_a_key_nested_beyond_all_bounds_is_refused() -> None:
    """In its own process: it could overflow any stack."""
    code = (
        "import penstock\n"
        "from penstock._core import codec_encode as encode\n"
        "key = ()\n"
        "for _ in range(20_000): key = (key,)\n"
        "try: encode({key: 1})\n"
        "except penstock.UnsupportedType as error: print('deep' in str(error))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


# --- a second interpreter -----------------------------------------------------------------------


@pytest.mark.parametrize("first", ["", "import penstock; penstock.Queue.create"])
def test_a_second_interpreter_is_refused_in_words(first: str) -> None:
    try:
        import _xxsubinterpreters as interpreters  # noqa: F401
    except ImportError:
        pytest.skip("no module _xxsubinterpreters in this Python")
    code = f"""
{first}
import _xxsubinterpreters as interpreters
one = interpreters.create()
for _ in range(2):
    interpreters.run_string(one, '''
try:
    import penstock
except ImportError as error:
    print("refused:", "interpreter" in str(error), flush=True)
''')
interpreters.destroy(one)
import penstock
from penstock._core import codec_decode as decode
from penstock._core import codec_encode as encode
print(decode(encode([1, "two"])))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == "refused: True\nrefused: True\n[1, 'two']\n"
