"""Store from Python: put objects are found whole, reservations are written in place, views are
pinned; and invalid input is refused with a reason."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import penstock

LONG = 30.0


@pytest.fixture
def store(name: str) -> Iterator[penstock.Store]:
    with penstock.Store.create(name, capacity="8MiB") as store:
        yield store


def is_settled(store: penstock.Store) -> bool:
    """Nothing is staged or in use, and every byte is accounted for."""
    gc.collect()
    store.clear()
    stats = store.stats()
    return stats.used_bytes == 0 and stats.free_bytes == stats.capacity == stats.largest_free


def adds_up(store: penstock.Store) -> bool:
    stats = store.stats()
    parts = (
        stats.object_bytes
        + stats.staged_bytes
        + stats.doomed_bytes
        + stats.padding_bytes
        + stats.other_bytes
    )
    return parts == stats.used_bytes and stats.used_bytes + stats.free_bytes == stats.capacity


def test_the_contract(store: penstock.Store) -> None:
    other = penstock.Store.attach(store.name)
    assert store.put("a", {"tokens": np.arange(5), "text": "x"}) is True
    assert other.put("a", 1) is False
    with store.reserve("kv", shape=(4, 8), dtype="float16") as array:
        array[...] = 7
    with other.get("kv") as seen:
        assert seen.shape == (4, 8)
        assert seen.dtype == np.float16
        assert (seen == 7).all()
        assert not seen.flags.writeable
        assert not seen.flags.owndata
    with other.get("a") as value:
        assert value["text"] == "x"
        assert (value["tokens"] == np.arange(5)).all()
    copy = other.get_copy("kv")
    copy[...] = 1
    assert (other.get_copy("kv") == 7).all()
    assert "kv" in other
    assert sorted(store.keys()) == ["a", "kv"]
    assert other.delete("kv") is True
    assert other.delete("kv") is False
    assert "kv" not in store
    assert adds_up(store)
    other.close()


def test_misses(store: penstock.Store) -> None:
    with pytest.raises(penstock.NotFound, match="'nothing'"):
        store.get("nothing")
    with pytest.raises(FileNotFoundError):
        store.get_copy("nothing")
    assert store.get_copy("nothing", default=3) == 3
    assert store.get("nothing", default=None) is None
    assert store.look("nothing").state == "miss"
    assert store.stats().misses == 4


def test_a_lookup_that_pins_or_gives_the_default_itself(store: penstock.Store) -> None:
    """Like `dict.get`, also for false values and empty objects."""
    for default in (None, False, 0, "", [], object()):
        assert store.get("nothing", default=default) is default
        assert store.get("nothing", default) is default
    for nothing in (b"", None, 0, []):
        store.delete("x")
        store.put("x", nothing)
        view = store.get("x", default=None)
        assert view is not None and view  # noqa: PT018  a view is true, whatever it shows
        assert store.stats().in_use == 1
        with view as found:
            assert found == nothing
        assert store.stats().in_use == 0
    with store.get("nothing", default=contextlib.nullcontext()) as value:
        assert value is None
    with store.get("x", default=contextlib.nullcontext()) as value:
        assert value == []


@pytest.mark.parametrize("key", ["text", "üß", b"\xff\x00bytes", "k" * 4096])
def test_keys(store: penstock.Store, key: str | bytes) -> None:
    assert store.put_bytes(key, b"value")
    assert store.get_copy(key) == b"value"
    assert store.keys() == [key]
    assert key in store


@pytest.mark.parametrize("dtype", ["float32", "int8", "bool", "complex64", "float64", "uint16"])
def test_arrays_in_place(store: penstock.Store, dtype: str) -> None:
    with store.reserve("x", shape=(3, 5), dtype=dtype, meta={"layer": 3}) as room:
        assert room.ctypes.data % 64 == 0
        room[...] = np.arange(15).reshape(3, 5) % 2
    view = store.get("x")
    with view as seen:
        assert seen.dtype == np.dtype(dtype)
        assert (seen == np.arange(15).reshape(3, 5) % 2).all()
        assert view.meta == {"layer": 3}
        assert view.nbytes == seen.nbytes
    assert store.meta("x") == {"layer": 3}


@pytest.mark.parametrize("alignment", [64, 4096, "1MiB", 2 << 20])
def test_alignment(store: penstock.Store, alignment: int | str) -> None:
    nbytes = penstock.parse_size(str(alignment))
    with store.reserve("x", shape=(10,), dtype="int32", alignment=alignment) as room:
        assert room.ctypes.data % nbytes == 0
        room[...] = 1


def test_buffers(store: penstock.Store) -> None:
    with store.reserve("x", "1KiB") as buffer:
        buffer[:5] = b"hello"
        buffer[5:] = bytes(1019)
    with pytest.raises(ValueError, match="released"):
        buffer[0]
    with store.get("x") as view:
        assert isinstance(view, memoryview)
        assert view.readonly
        assert bytes(view[:5]) == b"hello"
    with pytest.raises(RuntimeError, match="on purpose"), store.reserve("y", 10):
        raise RuntimeError("on purpose")
    assert "y" not in store
    assert store.stats().aborted == 1


def test_reservations_by_hand(store: penstock.Store) -> None:
    reservation = store.reserve("x", 1000)
    other = penstock.Store.attach(store.name)
    assert other.look("x").state == "staged"
    with pytest.raises(penstock.Busy, match="being written by participant 0") as caught:
        other.reserve("x", 10)
    assert caught.value.rank == 0
    assert other.put("x", 1) is False
    reservation.resize(10)
    reservation.room[:] = b"0123456789"
    reservation.commit()
    assert other.get_copy("x") == b"0123456789"
    with pytest.raises(penstock.Expired):
        reservation.commit()
    with pytest.raises(penstock.AlreadyExists, match="'x'"):
        other.reserve("x", 10)
    again = store.reserve("y", 1000)
    again.abort()
    again.abort()
    with pytest.raises(penstock.Expired):
        again.commit()
    other.close()


def test_deadlines_and_clear(store: penstock.Store) -> None:
    late = store.reserve("x", 10, expires_after=0)
    with pytest.raises(penstock.Expired, match="deadline"):
        late.commit()
    cleared = store.reserve("y", 10)
    assert store.clear() == 1
    with pytest.raises(penstock.Expired, match="cleared"):
        cleared.commit()
    assert is_settled(store)


def test_batches(store: penstock.Store) -> None:
    outcomes = store.reserve_many(["a", "b", "c"], ["3MiB", "3MiB", "9MiB"])
    assert isinstance(outcomes[2], penstock.TooLarge)
    assert store.commit_many(outcomes) == [True, True, False]
    with store.get_many(["a", "x", "b"]) as found:
        assert [one is not None for one in found] == [True, False, True]
    with store.get_many(["a", "b", "x", "a"], prefix=True) as found:
        assert len(found) == 2
    assert store.prefix_length(["a", "b", "x"]) == 2
    pinned = [store.get("a"), store.get("b")]
    outcomes = store.reserve_many(["d", "e", "f"], "3MiB", prefix=True)
    assert len(outcomes) == 1
    assert isinstance(outcomes[0], penstock.NoSpace)
    del pinned


def test_references(store: penstock.Store) -> None:
    store.put("x", [1])
    ref = store.get("x").ref
    with store.get_ref(pickle.loads(pickle.dumps(ref))) as value:
        assert value == [1]
    store.clear()
    store.put("x", [2])
    with pytest.raises(penstock.NotFound):
        store.get_ref(ref)


def test_views_outlive_their_block(store: penstock.Store) -> None:
    store.put("x", {"a": np.arange(1000), "b": np.ones(3)})
    with store.get("x") as value:
        kept = value["a"][10:20]
    del value
    store.delete("x")
    assert (kept == np.arange(10, 20)).all()
    assert store.stats().doomed == 1
    del kept
    assert is_settled(store)


def test_pins_and_weights(name: str) -> None:
    with penstock.Store.create(name, capacity="1MiB", eviction="fifo") as store:
        store.put_bytes("kept", bytes(1000))
        assert store.retain("kept")
        for number in range(100):
            store.put_bytes(str(number), bytes(50_000), weight=number % 3)
        assert "kept" in store
        assert store.stats().retained == 1
        assert store.release("kept")
        assert not store.release("kept")
        for number in range(100, 200):
            store.put_bytes(str(number), bytes(50_000))
        assert "kept" not in store
        assert not store.retain("kept")
        assert not store.touch("kept")
        assert store.touch("199")


def test_no_space(name: str) -> None:
    with penstock.Store.create(name, capacity="1MiB", eviction="none") as store:
        store.put_bytes("a", bytes(600_000))
        with pytest.raises(penstock.NoSpace, match="600"):
            store.put_bytes("b", bytes(600_000))
        with pytest.raises(penstock.TooLarge):
            store.put_bytes("b", bytes(1 << 20))
        assert store.look("b").state == "miss"
        assert adds_up(store)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"eviction": "random"}, penstock.InvalidArgument),
        ({"capacity": 0}, penstock.InvalidArgument),
        ({"capacity": "many"}, penstock.InvalidArgument),
        ({"granule": 100}, penstock.InvalidArgument),
        ({"participants": 0}, penstock.InvalidArgument),
        ({"codec": "json"}, penstock.InvalidArgument),
    ],
)
def test_options(name: str, arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        penstock.Store.create(name, **arguments)


def test_bad_input(store: penstock.Store) -> None:
    with pytest.raises(penstock.InvalidArgument, match="4097"):
        store.put("k" * 4097, 1)
    with pytest.raises(penstock.InvalidArgument):
        store.put("", 1)
    with pytest.raises(TypeError, match="str or bytes"):
        store.put(3, 1)  # type: ignore[arg-type]
    with pytest.raises(penstock.UnsupportedType):
        store.put("x", object())
    with pytest.raises(penstock.UnsupportedType):
        store.put("x", 1, meta=object())
    with pytest.raises(penstock.InvalidArgument):
        store.reserve("x")
    with pytest.raises(penstock.InvalidArgument):
        store.reserve("x", 10, shape=(1,), dtype="int8")
    with pytest.raises(penstock.InvalidArgument):
        store.reserve("x", shape=(1,))
    with pytest.raises(penstock.InvalidArgument):
        store.reserve("x", shape=(-1,), dtype="int8")
    with pytest.raises(penstock.InvalidArgument, match="object"):
        store.reserve("x", shape=(1,), dtype=object)
    with pytest.raises(penstock.TooLarge):
        store.reserve("x", shape=(1 << 40, 1 << 40), dtype="int8")
    with pytest.raises(penstock.InvalidArgument):
        store.reserve("x", 10, alignment=3)
    with pytest.raises(penstock.InvalidArgument):
        store.reserve("x", 10, weight=1000)
    assert is_settled(store)


def test_zero_bytes(store: penstock.Store) -> None:
    assert store.put_bytes("x", b"")
    assert store.get_copy("x") == b""
    with store.reserve("y", shape=(0, 4), dtype="int32") as room:
        assert room.shape == (0, 4)
    with store.get("y") as seen:
        assert seen.shape == (0, 4)
    with store.reserve("z", 0) as buffer:
        assert len(buffer) == 0


def test_a_store_of_another_kind(name: str) -> None:
    with penstock.Queue.create(name), pytest.raises(penstock.Incompatible):
        penstock.Store.attach(name)


def test_pickles_only_where_both_ask(name: str) -> None:
    with penstock.Store.create(name, codec="pickle") as store:
        store.put("x", {1, 2})
        assert store.get_copy("x") == {1, 2}
        with penstock.Store.attach(name) as other:
            with pytest.raises(penstock.Incompatible, match="codec='pickle'"):
                other.get("x")
            with pytest.raises(penstock.UnsupportedType):
                other.put("y", {1, 2})


def test_torch(store: penstock.Store) -> None:
    torch = pytest.importorskip("torch")
    with store.reserve("x", shape=(4, 8), dtype=torch.bfloat16) as tensor:
        assert tensor.dtype is torch.bfloat16
        tensor.fill_(1.5)
    assert (tensor == 1.5).all()
    with store.get("x") as seen:
        assert seen.dtype is torch.bfloat16
        assert seen.shape == (4, 8)
        assert (seen == 1.5).all()
        del seen
    store.put("w", {"weights": torch.ones(3, dtype=torch.float16)})
    assert store.get_copy("w")["weights"].dtype is torch.float16
    assert is_settled(store)


def test_ml_dtypes(store: penstock.Store) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with store.reserve("x", shape=(4,), dtype="bfloat16") as room:
        room[...] = 1.5
    with store.get("x") as seen:
        assert seen.dtype == ml_dtypes.bfloat16


def test_waiting(store: penstock.Store) -> None:
    with pytest.raises(penstock.Timeout, match="'x'"):
        store.wait("x", timeout=0.01)
    thread = threading.Thread(target=store.put, args=("x", 5))
    thread.start()
    with store.wait("x", timeout=LONG) as value:
        assert value == 5
    thread.join()

    async def both() -> int:
        async def put() -> None:
            store.put("y", 6)

        waiting = asyncio.create_task(store.wait_async("y", timeout=LONG))
        await asyncio.sleep(0)
        await put()
        with await waiting as value:
            return int(value)

    assert asyncio.run(both()) == 6


def test_close_ends_waits(store: penstock.Store) -> None:
    other = penstock.Store.attach(store.name)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            other.wait("never")
        except penstock.Error as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    other.close()
    thread.join(LONG)
    assert isinstance(errors[0], penstock.Closed)
    with pytest.raises(penstock.Closed, match="closed by this process"):
        other.get("x")
    other.close()
    assert "closed" in repr(other)


def test_a_handle_pickles_and_a_store_does_not(store: penstock.Store) -> None:
    with penstock.Store.attach(pickle.loads(pickle.dumps(store.handle))) as other:
        assert other.name == store.name
    with pytest.raises(TypeError, match="handle"):
        pickle.dumps(store)


def test_fork_attaches_anew(store: penstock.Store) -> None:
    store.put("x", 1)
    pid = os.fork()
    if pid == 0:
        good = store.get_copy("x") == 1 and store.put("y", 2)
        store.close()
        os._exit(0 if good else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert store.get_copy("y") == 2


def hold(handle: penstock.Handle, ready: Any) -> None:
    store = penstock.Store.attach(handle)
    held = store.get("pinned")  # noqa: F841
    staged = store.reserve("staged", 3 << 20)  # noqa: F841
    ready.set()
    signal.pause()


def test_the_dead_hold_nothing(store: penstock.Store) -> None:
    context = multiprocessing.get_context("spawn")
    store.put_bytes("pinned", bytes(3 << 20))
    ready = context.Event()
    child = context.Process(target=hold, args=(store.handle, ready))
    child.start()
    assert ready.wait(LONG)
    with pytest.raises(penstock.NoSpace):
        store.reserve("x", 4 << 20)
    assert store.look("staged").staged_by == 1
    assert not store.look("pinned").is_retained
    store.retain("pinned")
    assert store.look("pinned").is_retained
    store.release("pinned")
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    store.reserve("x", 4 << 20).commit()  # at once
    assert store.reserve("staged", 10) is not None
    assert store.stats().deaths == 1


def test_a_gpu_or_a_sentence(name: str) -> None:
    torch = pytest.importorskip("torch")
    with penstock.Store.create(name, capacity="1MiB", populate=True) as store:
        store.put_bytes("x", bytes(100_000))
        store.delete("x")
        assert store.trim() == 0  # it may be pinned for a device
        if torch.cuda.is_available():
            store.register_cuda()
            store.register_cuda()
        else:
            with pytest.raises(penstock.NotFound, match="CUDA"):
                store.register_cuda()
    with (
        penstock.Store.create(name, capacity="1MiB") as store,
        pytest.raises(penstock.InvalidArgument, match="populate"),
    ):
        store.register_cuda()


def test_threads(store: penstock.Store) -> None:
    wrong: list[Any] = []

    def work(seed: int) -> None:
        for turn in range(300):
            number = (turn * 7 + seed) % 30
            value = store.get_copy(str(number), default=None)
            if value is None:
                store.put(str(number), np.full(20_000, number))
            elif (value != number).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert store.stats().hits > 100
    assert adds_up(store)


def test_its_repr_and_stats(store: penstock.Store, capsys: pytest.CaptureFixture[str]) -> None:
    from penstock.cli.main import main

    store.put("x", 1)
    assert repr(store) == f"<penstock.Store '{store.name}'>"
    assert main(["info", store.name, "--interval", "0"]) == 0
    shown = capsys.readouterr().out
    assert "store" in shown
    assert "objects" in shown
    info = penstock.inspect.inspect(store.name)
    assert isinstance(info, penstock.StoreInfo)
    assert info.stats.objects == 1
