"""Reservations: the commit does not depend on remaining references to the room, and writes through
them do not reach the object. On every CPython, under a debugger, and beside other threads."""

# ruff: noqa: PT012, PT031 (what warns or raises is the end of a block)

from __future__ import annotations

import contextlib
import faulthandler
import gc
import itertools
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import penstock
from penstock import _reservation

LONG = 30.0
KIB = 1 << 10
# Copied in from private memory; moved as pages, among pages of others or alone.
SIZES = [64, 100 * KIB, 300 * KIB, (5 << 20) + 12345]


@pytest.fixture
def store(name: str) -> Iterator[penstock.Store]:
    with penstock.Store.create(name, capacity="32MiB") as store:
        store.put_bytes("neighbour before", bytes(1000))
        yield store


@pytest.fixture
def other(store: penstock.Store) -> Iterator[penstock.Store]:
    with penstock.Store.attach(store.name) as other:
        yield other


def kept_view(room: Any) -> Any:
    return room[1:-1]


def kept_in_a_list(room: Any) -> Any:
    return [room, room][0]


def kept_tensor(room: Any) -> Any:
    return pytest.importorskip("torch").from_numpy(room)


def kept_memoryview(room: Any) -> Any:
    return memoryview(room)


WAYS = [kept_view, kept_in_a_list, kept_tensor, kept_memoryview]


def write(kept: Any, value: int) -> None:
    """Through its address: the array's read-only flag is not what is tested."""
    if hasattr(kept, "fill_"):
        kept.fill_(value)
    elif isinstance(kept, np.ndarray) and not kept.flags.writeable:
        import ctypes

        ctypes.memset(kept.ctypes.data, value, kept.nbytes)
    else:
        kept[:] = np.full(len(kept), value, np.uint8)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("keep", WAYS)
def test_a_leftover_view_can_not_change_the_object(
    store: penstock.Store, other: penstock.Store, keep: Callable[[Any], Any], size: int
) -> None:
    with store.reserve("x", shape=size, dtype=np.uint8) as room:
        room[:] = 7
        kept = keep(room)
    expected = np.full(size, 7, np.uint8)
    assert (other.get_copy("x") == expected).all()
    write(kept, 99)
    assert (other.get_copy("x") == expected).all()
    assert bytes(memoryview(kept)[:3]) == bytes([99]) * 3 if keep is not kept_tensor else True
    store.put_bytes("neighbour behind", bytes([5]) * 1000)
    write(kept, 98)
    assert (other.get_copy("x") == expected).all()
    assert other.get_copy("neighbour before") == bytes(1000)
    assert other.get_copy("neighbour behind") == bytes([5]) * 1000


@pytest.mark.parametrize("size", SIZES)
def test_the_room_itself_is_read_only_afterwards_and_reads_the_object(
    store: penstock.Store, size: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a leftover name of the block is allowed
        with store.reserve("x", shape=(size,), dtype=np.uint8) as room:
            room[:] = 7
    assert (room == 7).all()
    with pytest.raises(ValueError, match="read-only"):
        room[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        room.flags.writeable = True


@pytest.mark.parametrize("size", SIZES)
def test_tensors(store: penstock.Store, other: penstock.Store, size: int) -> None:
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with store.reserve("x", shape=(size,), dtype=torch.uint8) as room:
            room.fill_(7)
    assert room.shape == (size,)
    assert (room == 7).all()
    room.fill_(9)
    assert (other.get_copy("x") == 7).all()
    with (
        pytest.warns(ResourceWarning, match="outlives its commit"),
        store.reserve("y", shape=(size,), dtype=torch.uint8) as room,
    ):
        room.fill_(3)
        kept = room[1:]
    kept.fill_(4)
    assert (other.get_copy("y") == 3).all()


def test_a_tensor_that_wants_gradients(store: penstock.Store) -> None:
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with store.reserve("x", shape=(8,), dtype=torch.float32) as room:
            room.fill_(7)
            room.requires_grad_()
    assert (store.get_copy("x") == 7).all()


@pytest.mark.parametrize("size", SIZES)
def test_buffers(store: penstock.Store, other: penstock.Store, size: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with store.reserve("x", size) as buffer:
            buffer[:] = bytes([7]) * size
    with pytest.raises(ValueError, match="released"):
        buffer[0]
    assert other.get_copy("x") == bytes([7]) * size
    with pytest.warns(ResourceWarning, match="outlives"), store.reserve("y", size) as buffer:
        kept = np.frombuffer(buffer, np.uint8)
        kept[:] = 8
    kept[:] = 9
    assert other.get_copy("y") == bytes([8]) * size
    # NumPy releases the buffer here, and keeps the memory and its owner.
    with store.reserve("z", size) as buffer:
        kept = np.ndarray(size, np.uint8, buffer=buffer)
        kept[:] = 8
    kept[:] = 9
    assert other.get_copy("z") == bytes([8]) * size


@pytest.mark.parametrize("size", SIZES)
def test_views_that_outlive_the_block_are_reported(store: penstock.Store, size: int) -> None:
    with (
        pytest.warns(ResourceWarning, match="outlives its commit") as caught,
        store.reserve("x", shape=(size,), dtype=np.uint8) as room,
    ):
        part = room[3:5]
    assert caught[0].filename == __file__
    del part
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with store.reserve("y", shape=(size,), dtype=np.uint8) as room:
            room[3:5][:] = 1
            for row in room[:4].reshape(2, -1):
                row[...] = 2
            del row


def two(store: penstock.Store) -> Any:
    with store.reserve("two", shape=(4, 5), dtype="float32") as a:
        v = a[0]
        w = a[1]
        a[...] = 1
    del w
    return v


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_views_as_local_names(store: penstock.Store) -> None:
    v = two(store)
    v[:] = 99
    assert (store.get_copy("two") == 1).all()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("size", [64, 300 * KIB])
def test_debuggers_and_locals(store: penstock.Store, size: int) -> None:
    seen: list[dict[str, Any]] = []

    def trace(frame: Any, event: str, arg: Any) -> Any:
        seen.append(dict(frame.f_locals))
        return trace

    def fill(key: str) -> None:
        names = [store.reserve(key, shape=size, dtype="uint8")]
        for reservation in names:
            with reservation as room, memoryview(b"x"):
                everything = locals()
                for row in room.reshape(4, -1):
                    row[...] = 1
            assert everything

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        fill("traced")
    finally:
        sys.settrace(before)
    fill("not traced")
    assert any("room" in names for names in seen)
    for names in seen:
        for value in names.values():
            if isinstance(value, np.ndarray) and value.flags.writeable:
                value[...] = 9
    assert (store.get_copy("traced") == 1).all()
    assert (store.get_copy("not traced") == 1).all()


def test_no_reference_is_counted(store: penstock.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither at run time, nor anywhere in the sources."""

    def refuse(_: object) -> int:
        raise AssertionError("a reference count was asked for")

    monkeypatch.setattr(sys, "getrefcount", refuse)
    with store.reserve("x", shape=10, dtype=int) as room:
        room[...] = 1
    monkeypatch.undo()
    root = Path(__file__).parents[2]
    sources = [
        file
        for folder in ("src", "include", "python", "tools")
        for file in (root / folder).rglob("*")
        if file.suffix in {".py", ".cpp", ".hpp"}
    ]
    assert len(sources) > 100
    asked = re.compile(
        r"getrefcount|Py_REFCNT|ob_refcnt|_Py_IsUniquelyReferenced|PyUnstable_\w*Ref"
    )
    assert [str(file) for file in sources if asked.search(file.read_text())] == []


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("size", [64, 300 * KIB, 3 << 20])
def test_a_thread_that_never_stops_writing(
    store: penstock.Store, other: penstock.Store, size: int
) -> None:
    """Writes before the commit are in the object or not; later ones never are."""
    target: list[Any] = [np.zeros(size, np.uint8)]
    passes = 0
    is_over = threading.Event()

    def scribble() -> None:
        nonlocal passes
        while not is_over.is_set():
            target[0][...] = passes % 251
            passes += 1

    def wait_for_more() -> None:
        wanted = passes + 3
        while passes < wanted:
            assert thread.is_alive()
            threading.Event().wait(0.0005)

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        for number in range(8):
            with store.reserve(f"x{number}", shape=size, dtype=np.uint8) as room:
                target[0] = room[:]
                wait_for_more()
            first = other.get_copy(f"x{number}")
            wait_for_more()
            assert (other.get_copy(f"x{number}") == first).all()
            store.delete(f"x{number}")
    finally:
        is_over.set()
        thread.join(LONG)


@pytest.mark.parametrize("size", SIZES)
def test_an_abort_frees_the_room_despite_references(store: penstock.Store, size: int) -> None:
    free = store.stats().free_bytes
    kept = []
    with (
        pytest.raises(RuntimeError, match="on purpose"),
        store.reserve("x", shape=size, dtype=np.uint8) as room,
    ):
        room[:] = 7
        kept.append(room[:])
        raise RuntimeError("on purpose")
    assert store.stats().free_bytes == free
    assert store.put_bytes("x", bytes(size))
    kept[0][:] = 9
    assert store.get_copy("x") == bytes(size)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("size", SIZES)
def test_a_refused_commit_leaves_nothing_to_write_into(store: penstock.Store, size: int) -> None:
    reservation = store.reserve("x", shape=size, dtype=np.uint8)
    kept = reservation.room[:]
    kept[:] = 7
    store.delete("neighbour before")
    assert store.clear() == 1
    with pytest.raises(penstock.Expired, match="cleared"):
        reservation.commit()
    assert store.put_bytes("x", bytes(size))
    kept[:] = 9
    assert store.get_copy("x") == bytes(size)


@pytest.mark.parametrize("size", [300 * KIB, 3 << 20])
def test_a_leftover_view_shows_the_object_after_its_deletion(
    store: penstock.Store, size: int
) -> None:
    with store.reserve("x", shape=size, dtype=np.uint8) as room:
        room[:] = 7
    store.delete("x")
    for number in range(10):
        store.put_bytes(f"y{number}", bytes([number]) * size)
    assert (room == 7).all()
    del room
    gc.collect()
    assert store.stats().doomed == 0


class Interrupts:
    """Raises KeyboardInterrupt before the n-th executed line of our files: a signal's handler
    raises between any two of them."""

    def __init__(self, file: str, line: int) -> None:
        self._file = file
        self._left = line
        self.is_over = False  # it has raised

    def _trace(self, frame: FrameType, event: str, _arg: Any) -> Any:
        if frame.f_code.co_filename != self._file:
            return None
        if event == "line":
            self._left -= 1
            if self._left == 0:
                self.is_over = True
                raise KeyboardInterrupt
        return self._trace

    def __enter__(self) -> Interrupts:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fails", [False, True], ids=["commit", "abort"])
def test_an_interrupt_at_the_end_of_a_block_leaves_nothing_half_done(
    store: penstock.Store, other: penstock.Store, size: int, fails: bool
) -> None:
    """The object is whole, or its key and its room are free, though a view is left."""
    for line in itertools.count(1):
        key = f"{line}"
        reservation = store.reserve(key, shape=(size,), dtype="uint8")
        view = None
        with (
            Interrupts(_reservation.__file__, line) as interrupts,
            contextlib.suppress(KeyboardInterrupt, ZeroDivisionError),
            reservation as room,
        ):
            view = room[:10]
            room[...] = 1
            if fails:
                raise ZeroDivisionError
        del reservation
        if not interrupts.is_over:
            assert (key in other) is not fails
            break
        if key in other:
            assert not fails
            assert (other.get_copy(key) == 1).all()
        else:
            assert store.stats().staged == 0, f"after line {line}"
            other.put(key, 1)
        del view
    assert line > 10


def test_a_dropped_reservation_frees_its_key_despite_references_to_the_room(
    store: penstock.Store, other: penstock.Store
) -> None:
    for size in SIZES:
        reservation = store.reserve("key", shape=(size,), dtype="uint8")
        view = reservation.room
        del reservation
        other.put("key", 3)
        view[...] = 1
        assert other.get_copy("key") == 3
        other.delete("key")


def mappings(store: penstock.Store) -> int:
    return Path("/proc/self/maps").read_text().count(f"penstock.{store.name}")


def test_mappings_do_not_add_up(store: penstock.Store) -> None:
    before = mappings(store)
    for number in range(50):
        with store.reserve(number.to_bytes(2, "big"), shape=(1 << 20) + number, dtype="u1") as room:
            room[:] = 1
        store.clear()
    del room
    gc.collect()
    assert mappings(store) == before


def test_many_are_open_at_once(store: penstock.Store, other: penstock.Store) -> None:
    open_ones = [store.reserve(str(i), shape=300 * KIB, dtype=np.uint8) for i in range(40)]
    for number, one in enumerate(open_ones):
        one.room[:] = number
    for one in open_ones[::2] + open_ones[1::2]:
        one.commit()
    for number in range(40):
        assert (other.get_copy(str(number)) == number).all()


def test_locked_memory_is_not_moved(name: str) -> None:
    """The lock belongs to the mapping: rooms are copied in there, and cut off all the same."""
    try:
        store = penstock.Store.create(name, capacity="2MiB", lock_memory=True)
    except penstock.Error as error:
        pytest.skip(str(error))
    with store:
        locked = re.findall(r"VmLck:\s+(\d+)", Path("/proc/self/status").read_text())
        with store.reserve("x", shape=1 << 20, dtype=np.uint8) as room:
            room[:] = 7
        assert (store.get_copy("x") == 7).all()
        assert locked == re.findall(r"VmLck:\s+(\d+)", Path("/proc/self/status").read_text())


def run(name: str, program: str) -> subprocess.CompletedProcess[str]:
    start = f"""
    import ctypes, os, resource
    import numpy as np
    import penstock
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    store = penstock.Store.attach({name!r})
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(start) + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )


def test_without_memory_for_a_private_copy_a_write_faults(store: penstock.Store) -> None:
    outcome = run(
        store.name,
        """
        reservation = store.reserve("x", shape=3 << 20, dtype=np.uint8)
        room = reservation.room
        room[:] = 7
        resource.setrlimit(resource.RLIMIT_DATA, (1 << 20, -1))
        reservation.commit()
        assert room[-1] == 7
        print("committed", flush=True)
        ctypes.memset(room.ctypes.data + 8192, 9, 4096)
        """,
    )
    assert outcome.stdout == "committed\n", outcome.stderr
    assert outcome.returncode == -signal.SIGSEGV
    assert (store.get_copy("x") == 7).all()


def test_without_addresses_for_a_window_the_room_is_copied_in(store: penstock.Store) -> None:
    outcome = run(
        store.name,
        """
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (7 << 20), -1))  # 6 MiB, and no window
        with store.reserve("x", shape=6 << 20, dtype=np.uint8) as room:
            room[:] = 7
        os._exit(0)
        """,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert (store.get_copy("x") == 7).all()


@pytest.mark.parametrize("size", [64, 3 << 20])
def test_a_child_can_not_write_into_its_parents_room(store: penstock.Store, size: int) -> None:
    with store.reserve("x", shape=size, dtype=np.uint8) as room:
        room[:] = 7
        child = os.fork()
        if child == 0:
            faulthandler.disable()
            room[:] = 9  # private, or not mapped
            os._exit(0)
        os.waitpid(child, 0)
        assert (room == 7).all()
    assert (store.get_copy("x") == 7).all()


def test_a_child_neither_commits_nor_aborts(store: penstock.Store) -> None:
    reservation = store.reserve("x", shape=10, dtype=np.uint8)
    reservation.room[:] = 7
    child = os.fork()
    if child == 0:
        status = 1
        try:
            reservation.commit()
        except penstock.WrongProcess:
            reservation.abort()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    reservation.commit()
    assert (store.get_copy("x") == 7).all()


# Dtypes and shapes


NATIVE = "<" if sys.byteorder == "little" else ">"
SWAPPED = ">" if sys.byteorder == "little" else "<"


@pytest.mark.parametrize(
    "dtype",
    [
        "f4",
        "<f4",
        ">f4",
        ">i8",
        np.float32,
        float,
        np.dtype("c8"),
        "S5",
        "S",
        "U3",
        "M8[ns]",
        ("f4", (2,)),
        [("x", "<i2"), ("y", ">f8", (3,))],
        np.dtype([("a", "u1"), ("b", "f4")], align=True),
        {"names": ["q"], "formats": ["i4"], "itemsize": 16},
    ],
)
def test_dtypes_are_read_as_numpy_reads_them(store: penstock.Store, dtype: Any) -> None:
    wanted = np.empty((2, 3), dtype)
    wanted.view(np.uint8)[...] = 0
    wanted.flat[0] = np.ones((), wanted.dtype)
    with store.reserve("x", shape=(2, 3), dtype=dtype, meta={"layer": 1}) as room:
        assert (room.dtype, room.shape) == (wanted.dtype, wanted.shape)
        room[...] = wanted
    view = store.get("x")
    with view as seen:
        assert seen.dtype == wanted.dtype
        assert seen.shape == wanted.shape
        assert (seen == wanted).all()
        assert not seen.flags.writeable
        assert view.meta == {"layer": 1}
    copy = store.get_copy("x")
    assert copy.dtype == wanted.dtype
    assert (copy == wanted).all()
    store.put("y", wanted)
    assert store.get_copy("y").dtype == copy.dtype


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn"])
def test_dtypes_of_ml_dtypes_by_name_and_by_type(store: penstock.Store, dtype: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for key, said in enumerate((dtype, getattr(ml_dtypes, dtype), np.dtype(dtype))):
        with store.reserve(str(key), shape=3, dtype=said) as room:
            room[...] = 1
        assert store.get_copy(str(key)).dtype == np.dtype(dtype)


@pytest.mark.parametrize(
    ("shape", "dims"),
    [
        (np.int64(5), (5,)),
        (np.array([2, 3]), (2, 3)),
        ([np.uint8(2), 3], (2, 3)),
        (range(2, 4), (2, 3)),
        ((), ()),
        (0, (0,)),
        (np.array(4), (4,)),
    ],
)
def test_shapes_are_read_as_numpy_reads_them(store: penstock.Store, shape: Any, dims: Any) -> None:
    with store.reserve("x", shape=shape, dtype="f4") as room:
        assert room.shape == dims
        room[...] = 1
    assert store.get_copy("x").shape == dims


@pytest.mark.parametrize(
    ("shape", "dtype", "sentence"),
    [
        ((2,), "O", "object"),
        ((2,), [("a", "O")], "object"),
        ((2,), "float99", "float99"),
        ((2,), object(), "no dtype"),
        ((2,), "V0", "no size"),
        (-1, "f4", "negative"),
        ((2, -1), "f4", "negative"),
        (2.5, "f4", "2.5"),
        ("23", "f4", "'23'"),
        ((2, "3"), "f4", "3"),
        ((2,), None, "give both"),
        ((1,) * 65, "f4", "64 dimensions"),
    ],
)
def test_invalid_shapes_and_dtypes_are_refused_with_a_reason(
    store: penstock.Store, shape: Any, dtype: Any, sentence: str
) -> None:
    with pytest.raises(penstock.InvalidArgument, match=re.escape(sentence)):
        store.reserve("x", shape=shape, dtype=dtype)
    assert store.stats().staged == 0


def test_a_batch_reads_dtypes_alike(name: str) -> None:
    from penstock.trajectories import TrajectoryGroup, TrajectoryReader, TrajectoryWriter

    tokens = [np.arange(64, dtype=np.int32)] * 2
    with (
        TrajectoryReader.create(name, sequences=2, max_staleness=1) as trainer,
        TrajectoryWriter.attach(name, environment="math", group_size=2) as math,
        math.begin(timeout=LONG) as rollout,
    ):
        rollout.put(TrajectoryGroup(tokens, masks=tokens, scores=np.zeros(2)))
        for refused in (">i8" if NATIVE == "<" else "<i8", "bfloat16", object(), "S3"):
            with pytest.raises(penstock.InvalidArgument, match=r"dtype|column"):
                trainer.next_batch(layout="padded", timeout=LONG, dtypes={"tokens": refused})
        swapped = np.zeros((2, 64), SWAPPED + "i4")
        with pytest.raises(penstock.InvalidArgument, match="byte order"):
            trainer.next_batch(layout="padded", timeout=LONG, out={"tokens": swapped})
        batch = trainer.next_batch(layout="padded", timeout=LONG, dtypes={"tokens": NATIVE + "i8"})
        assert batch.tokens.dtype == np.int64
        batch.ack(step=1)


def test_layouts_of_a_kv_pool_read_dtypes_and_sizes_alike() -> None:
    from penstock.integrations.lmcache import EngineContext

    def group_of(dtype: Any) -> Any:
        context = EngineContext.of_one_group(
            "engine",
            "model",
            num_layers=np.int64(2),
            token_shape=np.array([2, 8]),
            dtype=dtype,
            block_size=np.int32(16),
        )
        return context.groups[0]

    for dtype in ("f2", np.float16, np.dtype("float16"), NATIVE + "f2", "float16"):
        assert group_of(dtype).dtype == "float16"
    assert group_of("bfloat16").dtype == "bfloat16"
    assert group_of("f2").token_shape == (2, 8)
    assert type(group_of("f2").block_size) is int
    for refused in (SWAPPED + "f2", "c8", object(), "float99"):
        with pytest.raises(penstock.InvalidArgument):
            group_of(refused)
