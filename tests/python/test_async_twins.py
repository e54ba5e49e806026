"""Every waiting call has an async twin, and a cancelled task has neither taken, put, sent, pinned
nor reserved anything, whenever it is cancelled."""

# ruff: noqa: PT012, PERF401 (what raises is a loop, or the end of a block; tasks await in loops)

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import random
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peers import WITHIN, eventually
from redis_server import RedisServer, why_no_server
from test_async import run, until

import penstock
from penstock import _threads, trajectories
from penstock.integrations import lmcache
from penstock.trajectories import TrajectoryGroup, TrajectoryReader, TrajectoryWriter

CLASSES = [
    penstock.Broadcast,
    penstock.BroadcastReader,
    penstock.BroadcastWriter,
    penstock.Queue,
    penstock.Store,
    trajectories.Rollout,
    trajectories.TrajectoryReader,
    trajectories.TrajectoryWriter,
    lmcache.PoolClient,
]


def signature_of(method: Any) -> str:
    """As text: `inspect` can't read signatures of C++ bindings."""
    bound = getattr(method, "__nb_signature__", None)
    return "".join(one[0] for one in bound) if bound else str(inspect.signature(method))


def waiting_calls() -> list[tuple[type, str]]:
    calls = []
    for cls in CLASSES:
        for name in dir(cls):
            method = getattr(cls, name)
            if name.startswith("_") or name.endswith("_async") or not callable(method):
                continue
            if "timeout" in signature_of(method):
                calls.append((cls, name))
    return calls


def test_every_waiting_call_has_an_async_twin():
    calls = waiting_calls()
    found = {f"{cls.__name__}.{name}" for cls, name in calls}
    assert {"Broadcast.attach", "BroadcastWriter.loan", "Queue.get_many", "Store.wait"} <= found
    assert {"Store.flush", "Store.get", "Store.keys", "Rollout.put"} <= found
    assert len(found) >= 30
    assert [
        f"{cls.__name__}.{name}" for cls, name in calls if not hasattr(cls, f"{name}_async")
    ] == []
    for cls, name in calls:
        twin = getattr(cls, f"{name}_async")
        if "timeout" in signature_of(getattr(cls, name)):
            assert "timeout" in inspect.signature(twin).parameters, name


# ---- their behaviour


def test_a_message_in_place(pair):
    writer, reader = pair

    async def main() -> None:
        for value in (np.arange(100), b"bytes", {"a": [1, 2]}):
            task = asyncio.create_task(take(reader.recv_view_async(timeout=WITHIN)))
            await asyncio.sleep(0)
            writer.send_bytes(value) if isinstance(value, bytes) else writer.send(value)
            got = await task
            np.testing.assert_equal(got, value)
        room = bytearray(10)
        filled = asyncio.create_task(reader.recv_bytes_into_async(room, timeout=WITHIN))
        await asyncio.sleep(0)
        writer.send_bytes(b"filled")
        assert await filled == 6
        assert room[:6] == b"filled"
        with pytest.raises(penstock.Timeout):
            await take(reader.recv_view_async(timeout=0.02))
        with pytest.raises(penstock.InvalidArgument):
            reader.recv_view_async(timeout=-1)

    run(main())


async def take(block: Any) -> Any:
    """The message, copied."""
    async with block as value:
        return (
            bytes(value)
            if isinstance(value, memoryview)
            else np.copy(value)
            if isinstance(value, np.ndarray)
            else list(value)
            if isinstance(value, list)
            else value
        )


def test_tasks_wait_for_the_loan_of_another(pair):
    writer, reader = pair

    async def main() -> None:
        order: list[str] = []
        is_open = asyncio.Event()

        async def lend() -> None:
            async with writer.loan_async(5, timeout=WITHIN) as room:
                is_open.set()
                await until(lambda: len(order) == 2)
                with pytest.raises(penstock.Busy):
                    await writer.send_async("myself", timeout=WITHIN)
                room[:] = b"first"

        async def send(number: int) -> None:
            order.append("asked")
            await writer.send_async(number, timeout=WITHIN)

        async with asyncio.TaskGroup() if hasattr(asyncio, "TaskGroup") else Group() as group:
            group.create_task(lend())
            await is_open.wait()
            for number in range(2):
                group.create_task(send(number))
        assert reader.recv_bytes() == b"first"
        assert {reader.recv(), reader.recv()} == {0, 1}
        with contextlib.suppress(ZeroDivisionError):
            async with writer.loan_async(5) as room:
                room[:] = b"never"
                raise ZeroDivisionError
        with pytest.raises(penstock.Timeout):
            reader.recv(0)
        writer.send("goes on")
        assert reader.recv() == "goes on"

    run(main())


class Group:
    """asyncio.TaskGroup for Python 3.10."""

    async def __aenter__(self) -> Group:
        self._tasks: list[asyncio.Task[Any]] = []
        return self

    def create_task(self, main: Any) -> None:
        self._tasks.append(asyncio.create_task(main))

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*self._tasks)


@pytest.fixture
def queue(name):
    with penstock.Queue.create(name, capacity="1MiB", slots=16) as made:
        yield made
        made.discard()


def test_batches(queue):
    async def main() -> None:
        waiting = asyncio.create_task(take(queue.get_many_async(10, min_items=3, timeout=WITHIN)))
        await until(lambda: queue.stats().waits > 0)
        for number in range(3):
            assert not waiting.done()
            await queue.put_async(number)
        assert await waiting == [0, 1, 2]
        view = asyncio.create_task(take(queue.get_view_async(timeout=WITHIN)))
        await asyncio.sleep(0)
        assert await queue.put_many_async(["a", "b"], timeout=WITHIN) == 2
        assert await view == "a"
        with pytest.raises(ZeroDivisionError):
            async with queue.get_many_async(timeout=WITHIN) as batch:
                assert batch == ["b"]
                raise ZeroDivisionError
        assert queue.get(timeout=0) == "b"  # it was returned
        with pytest.raises(penstock.InvalidArgument):
            queue.get_many_async(1, min_items=2)
        queue.put("once")
        once = queue.get_view_async(timeout=WITHIN)
        assert await take(once) == "once"
        with pytest.raises(penstock.Busy):
            await take(once)
        with pytest.raises(penstock.Timeout) as full:
            await queue.put_many_async(range(100), timeout=0.05)
        assert full.value.accepted == 16
        queue.end()
        for _ in range(16):
            await queue.get_async(timeout=WITHIN)
        for block in (queue.get_view_async(), queue.get_many_async()):
            with pytest.raises(penstock.Closed):
                await take(block)

    run(main())


def test_a_cancelled_put_many_reports_the_number_put(queue):
    async def main() -> None:
        task = asyncio.create_task(queue.put_many_async(range(100)))
        await until(lambda: len(queue) == 16)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as end:
            await task
        assert len(queue) == 16
        assert end.value.accepted == 16 or end.value.__context__.accepted == 16

    run(main())


def test_an_object_that_comes(name):
    async def main() -> None:
        with penstock.Store.create(name, capacity="1MiB") as store:
            tasks = [asyncio.create_task(take(store.wait_async("key", WITHIN))) for _ in range(3)]
            await asyncio.sleep(0)
            store.put("key", np.arange(3))
            for task in tasks:
                assert (await task == np.arange(3)).all()
            with await store.wait_async("key") as found:  # unchanged
                assert found.sum() == 3
            del found
            view = await asyncio.wait_for(store.wait_async("key"), WITHIN)
            view.release()
            assert store.stats().in_use == 0

    run(main())


ATTACH: dict[str, tuple[Callable[[str], Any], Callable[..., Awaitable[Any]]]] = {
    "broadcast": (
        lambda name: penstock.Broadcast.create(name, readers=1),
        lambda name, **given: penstock.Broadcast.attach_async(name, 0, **given),
    ),
    "queue": (penstock.Queue.create, penstock.Queue.attach_async),
    "store": (penstock.Store.create, penstock.Store.attach_async),
    "writer": (TrajectoryReader.create, TrajectoryWriter.attach_async),
    "reader": (TrajectoryWriter.create, TrajectoryReader.attach_async),
}


@pytest.mark.parametrize("kind", ATTACH)
def test_attaching_waits_for_the_name(name, kind):
    create, attach = ATTACH[kind]

    async def main() -> None:
        with pytest.raises(penstock.NotFound):
            await attach(name)
        with pytest.raises(penstock.NotFound):
            await attach(name, timeout=0.05)
        tasks = [asyncio.create_task(attach(name, timeout=WITHIN)) for _ in range(2)]
        await asyncio.sleep(0.02)
        tasks[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        with create(name) as made, await tasks[0] as attached:
            assert attached.handle == made.handle
            if kind == "broadcast":  # the cancelled task has not used up the rank
                made.send("from the beginning")
                assert attached.recv(timeout=WITHIN) == "from the beginning"

    run(main())


def test_attaching_to_a_pool_waits_for_its_server(name):
    """First for the store, then for its record: within one timeout."""

    def attached(name: str) -> int:
        segments = {segment.name: segment for segment in penstock.inspect.list_segments()}
        return sum(one.alive for one in segments[name].participants)

    async def main() -> None:
        with penstock.Store.create(name, capacity="1MiB"):
            began = time.monotonic()
            with pytest.raises(penstock.NotFound, match="no KV pool"):
                await lmcache.PoolClient.attach_async(name, timeout=0.05)
            assert time.monotonic() - began >= 0.05
            tasks = [
                asyncio.create_task(lmcache.PoolClient.attach_async(name, timeout=WITHIN))
                for _ in range(2)
            ]
            await until(lambda: attached(name) == 3)
            tasks[1].cancel()
            with pytest.raises(asyncio.CancelledError):
                await tasks[1]
            await until(lambda: attached(name) == 2)
            with (
                lmcache.PoolServer.open(name, capacity="1MiB", chunk_tokens=16),
                await tasks[0] as client,
            ):
                assert client.chunk_tokens == 16

    run(main())


# ---- cancelled at random moments


async def cancelled_at_random(call: Callable[[], Awaitable[Any]], chance: random.Random) -> Any:
    """The result, or None if the call was cancelled before it had one."""
    task = asyncio.ensure_future(call())
    for _ in range(chance.choice((0, 1, 1, 2, 3, 5, 50))):
        await asyncio.sleep(0 if chance.random() < 0.7 else chance.random() / 500)
        if task.done():
            break
    task.cancel()
    try:
        return await task
    except (asyncio.CancelledError, penstock.Timeout):
        return None


GETTERS: dict[str, Callable[[penstock.Queue], Awaitable[Any]]] = {
    "get": lambda queue: queue.get_async(),
    "get_view": lambda queue: take(queue.get_view_async()),
    "get_many": lambda queue: take(queue.get_many_async(4)),
    "get_many_of_two": lambda queue: take(queue.get_many_async(3, min_items=2)),
}


@pytest.mark.parametrize("getter", GETTERS)
def test_cancelled_getters_lose_and_double_nothing(queue, getter):
    """Both sides are cancelled all the time; the messages put and taken are the same."""
    get, chance = GETTERS[getter], random.Random(getter)
    put: list[int] = []
    taken: list[int] = []
    is_over = False

    async def produce(first: int) -> None:
        for number in range(first, first + 150):
            if await cancelled_at_random(lambda n=number: given(n), chance) is not None:
                put.append(number)

    async def given(number: int) -> int:
        await queue.put_async(number)
        return number

    async def consume() -> None:
        while not is_over or len(queue) >= 2:
            got = await cancelled_at_random(lambda: get(queue), chance)
            if got is not None:
                taken.extend(got if isinstance(got, list) else [got])
            await asyncio.sleep(0)

    async def main() -> None:
        nonlocal is_over
        consumers = [asyncio.create_task(consume()) for _ in range(3)]
        await asyncio.gather(produce(0), produce(1000))
        is_over = True
        await asyncio.gather(*consumers)
        with contextlib.suppress(penstock.Timeout):
            while True:
                taken.append(queue.get(timeout=0))

    run(main())
    assert sorted(taken) == sorted(put)
    assert queue.stats().in_flight == 0


def test_cancelled_receivers_lose_and_double_nothing(pair):
    writer, reader = pair
    chance = random.Random(1)
    sent: list[int] = []
    taken: list[int] = []

    async def send(number: int) -> int:
        kind = number % 3
        if kind == 0:
            await writer.send_async(np.full(100, number))
        elif kind == 1:
            async with writer.loan_async(800) as room:
                np.frombuffer(room, np.int64)[:] = number
        else:
            await writer.send_bytes_async(np.full(100, number).tobytes())
        return number

    async def receive() -> int:
        room = np.zeros(100, np.int64)
        kind = chance.randrange(2)
        if kind == 0:
            async with reader.recv_view_async() as seen:
                return int(np.frombuffer(seen, np.int64)[0])
        try:
            await reader.recv_bytes_into_async(room)
        except penstock.Incompatible:
            return int((await reader.recv_async())[0])
        return int(room[0])

    async def main() -> None:
        async def produce() -> None:
            for number in range(300):
                if await cancelled_at_random(lambda n=number: send(n), chance) is not None:
                    sent.append(number)

        producer = asyncio.create_task(produce())
        while not producer.done() or len(taken) < len(sent):
            got = await cancelled_at_random(receive, chance)
            if got is not None:
                taken.append(got)

    run(main())
    assert taken == sent


def test_cancelled_trainers_and_environments_lose_and_double_nothing(name):
    chance = random.Random(2)
    put: list[int] = []
    taken: list[int] = []

    with (
        TrajectoryReader.create(name, sequences=2, max_staleness=3, capacity="1MiB") as trainer,
        TrajectoryWriter.attach(name) as writer,
    ):

        async def make(number: int) -> int:
            group = TrajectoryGroup([[number]])
            if number % 2:
                await writer.put_async(group)
            else:
                with await writer.begin_async() as rollout:
                    await rollout.put_async(group)
            return number

        async def produce() -> None:
            for number in range(200):
                if await cancelled_at_random(lambda n=number: make(n), chance) is not None:
                    put.append(number)

        async def batch() -> Any:
            return await trainer.next_batch_async(layout="packed")

        async def main() -> None:
            producer = asyncio.create_task(produce())
            while not producer.done() or len(put) - len(taken) >= 2:
                got = await cancelled_at_random(batch, chance)
                if got is not None:
                    taken.extend(got.tokens.tolist())
                    assert got.deliveries == [1, 1]
                    got.ack()
            if len(taken) < len(put):
                last = await trainer.next_batch_async(1, layout="packed", timeout=WITHIN)
                taken.extend(last.tokens.tolist())
                last.ack()

        run(main())
        assert taken == put
        assert writer.stats().environments[0].running_groups == 0
        assert writer.stats().queue.in_flight == 0


def test_a_cancelled_wait_has_pinned_nothing(name):
    chance = random.Random(3)
    with penstock.Store.create(name, capacity="1MiB") as store:

        async def main() -> None:
            for number in range(100):
                tasks = [
                    asyncio.create_task(
                        cancelled_at_random(
                            lambda n=number: take(store.wait_async(n_of(n))), chance
                        )
                    )
                    for _ in range(2)
                ]
                await asyncio.sleep(chance.random() / 1000)
                store.put(n_of(number), number)
                for task in tasks:
                    assert await task in (None, number)
            gc.collect()
            assert store.stats().in_use == 0

        def n_of(number: int) -> str:
            return f"key {number}"

        run(main())


# ---- loops, threads


def test_messages_too_late_for_a_closed_loop_are_returned(queue):
    loop = asyncio.new_event_loop()
    task = loop.create_task(take(queue.get_many_async(4, min_items=2)))
    loop.run_until_complete(until(lambda: queue.stats().waits > 0))
    loop.close()  # under the task, which is not cancelled
    queue.put_many([1, 2])
    # The thread gets them, or returns them: in the end they are queued, undelivered.
    got: list[int] = []
    while len(got) < 2:
        got.append(queue.get(timeout=WITHIN))
    assert got == [1, 2]
    assert queue.stats().in_flight == 0
    del task
    gc.collect()


def test_waits_leave_no_threads_behind(queue):
    async def main() -> None:
        tasks = [asyncio.create_task(take(queue.get_many_async(2, min_items=2))) for _ in range(40)]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        assert all(
            isinstance(one, asyncio.CancelledError)
            for one in await asyncio.gather(*tasks, return_exceptions=True)
        )

    def waiting() -> int:
        return sum(one.name == "penstock-wait" for one in threading.enumerate())

    before = threading.active_count()
    for _ in range(3):
        run(main())
    # A surplus thread ends after its task has continued.
    eventually(lambda: waiting() <= _threads._MOST_IDLE)
    eventually(lambda: threading.active_count() <= before + _threads._MOST_IDLE)
    queue.put_many([1, 2])
    assert queue.get(timeout=0) == 1


# ---- the second tier


@pytest.fixture
def server(tmp_path: Path) -> Any:
    if why_no_server:
        pytest.skip(why_no_server)
    server = RedisServer(tmp_path)
    yield server
    server.kill()


def test_two_tiers(name, server):
    async def main() -> None:
        first = penstock.Store.create(name, capacity="1MiB")
        tier = penstock.SecondTier(server.url, policy="write_through")
        async with await penstock.Store.attach_async(name, second_tier=tier) as tiered:
            assert await tiered.put_async("a", {"x": np.arange(3)})
            assert await tiered.put_bytes_async("b", b"bytes")
            async with tiered.reserve_async("c", shape=(3,), dtype="int32", meta=7) as room:
                room[...] = 5
            with pytest.raises(ZeroDivisionError):
                async with tiered.reserve_async("d", nbytes=3):
                    raise ZeroDivisionError
            assert not await tiered.contains_async("d")
            first.clear()
            async with tiered.get_async("a") as found:
                assert found["x"].sum() == 3
            async with tiered.get_async("a") as found:  # now in the first tier
                assert found["x"].sum() == 3
            assert await tiered.get_copy_async("b") == b"bytes"
            view = await tiered.get_async("c")
            assert view.meta == 7
            view.release()
            async with tiered.get_async("d", default=None) as found:
                assert found is None
            with pytest.raises(penstock.NotFound):
                await tiered.get_copy_async("d")
            assert sorted(await tiered.keys_async()) == ["a", "b", "c"]
            assert await tiered.meta_async("c") == 7
            assert (await tiered.look_async("b")).state == "hit"
            assert await tiered.prefix_length_async(["a", "d"]) == 1
            assert await tiered.touch_async("a")
            async with tiered.get_many_async(["b", "d"]) as many:
                assert many == [b"bytes", None]
            assert await tiered.delete_async("a")
            assert not await tiered.delete_async("a")
            assert (await tiered.flush_async(timeout=WITHIN)).is_nothing()
            assert first.stats().in_use == 0
        assert tiered.closed

    run(main())


def test_a_server_that_hangs_does_not_hold_up_the_loop(name, server):
    """A task's wait ends with the task, and no object that was put is lost."""
    import os
    import signal

    async def main() -> None:
        tier = penstock.SecondTier(server.url, request_timeout=WITHIN)
        tiered = penstock.Store.create(name, capacity="1MiB", second_tier=tier)
        os.kill(server._process.pid, signal.SIGSTOP)
        try:
            calls: list[Callable[[], Awaitable[Any]]] = [
                lambda: take(tiered.get_async("missing")),
                lambda: tiered.get_copy_async("missing"),
                lambda: tiered.contains_async("missing"),
                lambda: tiered.keys_async(),
                lambda: take(tiered.wait_async("missing")),
                lambda: penstock.Store.attach_async(name, second_tier=tier),
                lambda: tiered.delete_async("missing"),
            ]
            for call in calls:
                task = asyncio.ensure_future(call())
                for _ in range(5):
                    await asyncio.sleep(0.01)  # the loop runs
                assert not task.done()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asyncio.wait_for(task, WITHIN / 4)
            assert await tiered.put_async("kept", 1)
            for end in (tiered.flush_async, tiered.close_async):
                task = asyncio.ensure_future(end(timeout=WITHIN))
                await asyncio.sleep(0.05)
                assert not task.done()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert not tiered.closed
        finally:
            os.kill(server._process.pid, signal.SIGCONT)
        assert (await tiered.close_async(timeout=WITHIN)).is_nothing()
        assert tiered.closed
        assert (await tiered.close_async()).is_nothing()

    run(main())
