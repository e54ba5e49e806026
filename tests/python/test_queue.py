"""The Queue for Python users: values, batches, acknowledgement, the end, threads, tasks."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import signal
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from peers import WITHIN, eventually

import penstock
from penstock import Queue, inspect


@pytest.fixture
def queue(name: str) -> Iterator[Queue]:
    with Queue.create(name, slots=16, capacity="1MiB") as made:
        yield made
        if not made.closed:
            made.discard()


def group(number: int, tokens: int = 4096) -> dict[str, object]:
    return {"number": number, "tokens": np.arange(number, number + tokens, dtype=np.int32)}


def is_group(value: dict[str, object], number: int, tokens: int = 4096) -> bool:
    return value["number"] == number and np.array_equal(
        value["tokens"], np.arange(number, number + tokens, dtype=np.int32)
    )


@pytest.mark.parametrize(
    "value", [None, 7, "text", b"bytes", [1, [2.5, "x"]], {"a": 1}, np.float32(1.5)]
)
def test_values_come_back(queue, value):
    queue.put(value)
    got = queue.get(timeout=WITHIN)
    assert got == value
    assert type(got) is type(value)


def test_arrays_are_the_receivers_own(queue):
    for number in range(40):
        queue.put(group(number))
        got = queue.get(timeout=WITHIN)
        assert is_group(got, number)
        got["tokens"][0] = -1
    assert len(queue) == 0
    assert queue.stats().held_bytes == 0


def test_bytes_go_in_from_any_buffer(queue):
    queue.put_bytes(np.arange(5, dtype=np.uint8))
    queue.put_bytes(bytes(100_000))
    assert queue.get(timeout=WITHIN) == bytes(range(5))
    assert queue.get(timeout=WITHIN) == bytes(100_000)


def test_between_processes(queue, peer):
    other = peer()
    other.call("make", "q", "Queue.attach", queue.handle)
    for number in range(30):
        other.start("q.put", group(number))
        assert is_group(queue.get(timeout=WITHIN), number)
        other.result()


def test_a_full_queue_times_out(queue):
    for number in range(16):
        queue.put(number)
    with pytest.raises(penstock.Timeout, match="full"):
        queue.put(16, timeout=0.05)
    with pytest.raises(penstock.TooLarge):
        queue.put_bytes(bytes(2 << 20))
    assert len(queue) == 16
    assert bool(queue)


def test_put_many_returns_the_number_put(queue):
    assert queue.put_many(range(10)) == 10
    with pytest.raises(penstock.Timeout) as failure:
        queue.put_many(range(10), timeout=0.05)
    assert failure.value.accepted == 6
    assert [queue.get(timeout=0) for _ in range(16)] == [*range(10), *range(6)]


@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_put_many_puts_the_values_before_a_failure(queue, kind):
    with pytest.raises(penstock.UnsupportedType) as failure:
        queue.put_many(kind([1, b"two" * 5000, "three", object(), 5]))
    assert failure.value.accepted == 3
    assert [queue.get(timeout=0) for _ in range(3)] == [1, b"two" * 5000, "three"]
    with pytest.raises(penstock.Timeout) as full:
        queue.put_many(kind([*range(20)]), timeout=0)
    assert full.value.accepted == 16
    assert [queue.get(timeout=0) for _ in range(16)] == [*range(16)]
    assert queue.put_many(kind([])) == 0


def test_an_interrupt_of_put_many_is_no_want_of_room(queue):
    class Interrupted:
        def __dlpack__(self, *_args, **_options):
            raise KeyboardInterrupt

        def __dlpack_device__(self):
            return 1, 0

    assert queue.put_many(range(16)) == 16  # full
    with pytest.raises(KeyboardInterrupt):
        queue.put_many([16, Interrupted()])
    assert [queue.get(timeout=0) for _ in range(16)] == [*range(16)]


def test_put_many_keeps_the_order_of_short_and_long(queue, peer):
    sizes = [1, 3000, 200, 2048, 2049, 100_000, 7] * 20
    other = peer()
    other.call("make", "q", "Queue.attach", queue.handle)
    other.start("q.put_many", [bytes([size % 251]) * size for size in sizes], WITHIN)
    for size in sizes:
        assert queue.get(timeout=WITHIN) == bytes([size % 251]) * size
    assert other.result() == len(sizes)


def test_put_many_asks_an_iterator_for_more_when_the_last_one_is_put(queue):
    def numbers():
        for number in range(5):
            yield number
            assert queue.get(timeout=0) == number

    assert queue.put_many(numbers(), timeout=0) == 5


def test_a_batch_is_acknowledged_at_its_end(queue):
    queue.put_many(group(number) for number in range(10))
    with queue.get_many(max_items=4) as batch:
        assert len(batch) == 4
        assert all(is_group(value, number) for number, value in enumerate(batch))
        assert not batch[0]["tokens"].flags.writeable
        assert batch[0]["tokens"].ctypes.data % 64 == 0
        assert queue.stats().in_flight == 4
    assert batch == []
    gc.collect()
    assert queue.stats().in_flight == 0
    assert queue.stats().acknowledged == 4
    with queue.get_many() as batch:
        assert [value["number"] for value in batch] == [4, 5, 6, 7, 8, 9]


def test_an_exception_nacks_the_batch(queue):
    queue.put_many(range(4))

    class Failed(Exception):
        pass

    def fail() -> None:
        with queue.get_many(max_items=2) as batch:
            assert batch == [0, 1]
            raise Failed

    with pytest.raises(Failed):
        fail()
    with queue.get_many() as batch:
        assert batch == [0, 1, 2, 3]
    assert queue.stats().nacked == 2


def test_too_few_messages_are_put_back(queue):
    queue.put_many(range(3))
    with (
        pytest.raises(penstock.Timeout),
        queue.get_many(min_items=5, max_items=8, timeout=0.05),
    ):
        pass
    assert [queue.get(timeout=0) for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize(("most", "least"), [(0, 1), (1, 0), (2, 3)])
def test_impossible_batches_are_refused(queue, most, least):
    with pytest.raises(penstock.InvalidArgument):
        queue.get_many(max_items=most, min_items=least)


def test_a_kept_array_keeps_its_memory(queue):
    queue.put(group(0))
    with queue.get_view(timeout=WITHIN) as value:
        kept = value["tokens"]
    del value
    for number in range(1, 60):
        queue.put(group(number))
        assert is_group(queue.get(timeout=WITHIN), number)
    assert np.array_equal(kept, np.arange(4096, dtype=np.int32))
    assert queue.stats().in_flight == 1
    del kept
    gc.collect()
    assert queue.stats().in_flight == 0


def test_a_killed_consumers_batch_comes_again(queue, peer):
    queue.put_many(group(number) for number in range(5))
    other = peer()
    other.call("make", "q", "Queue.attach", queue.handle, role="consumer")
    other.call("make", "b", "q.get_many", max_items=3)
    other.call("b.__enter__")
    assert queue.stats().in_flight == 3
    other.kill()
    # The first three come when the death is noticed: before the others, or after them.
    got = {value["number"]: value for value in (queue.get(timeout=1) for _ in range(5))}
    assert sorted(got) == [0, 1, 2, 3, 4]
    assert all(is_group(value, number) for number, value in got.items())
    assert queue.stats().deaths == 1


def test_an_unreadable_message_is_a_dead_letter(name):
    with Queue.create(name, max_deliveries=2) as queue:
        queue.put("poison")
        for _ in range(2):
            with pytest.raises(ZeroDivisionError), queue.get_view(timeout=WITHIN):
                raise ZeroDivisionError
        with pytest.raises(penstock.Timeout):
            queue.get(timeout=0)
        info = inspect.inspect(name)
        assert isinstance(info, penstock.QueueInfo)
        assert info.stats.dead_letters == 1
        assert info.dead_letters == [0]
        assert queue.discard() == 1


def test_the_end_of_the_stream(queue, peer):
    other = peer()
    other.call("make", "q", "Queue.attach", queue.handle, role="producer")
    other.call("q.put", 1)
    queue.put(2)
    other.call("q.close")
    assert queue.get(timeout=WITHIN) == 1
    assert queue.get(timeout=WITHIN) == 2
    queue.end()
    with pytest.raises(penstock.Closed, match="ended"):
        queue.get()
    with pytest.raises(penstock.Closed):
        queue.put(3)


def test_producers_come_and_go(queue, peer):
    for number in range(2):
        producer = peer()
        producer.call("make", "q", "Queue.attach", queue.handle, role="producer")
        producer.call("q.put", number)
        if number == 0:
            producer.call("q.close")
        producer.end()  # and by its ordinary exit
        assert queue.get(timeout=WITHIN) == number
        assert not queue.stats().closed
    with pytest.raises(penstock.Timeout):
        queue.get(timeout=0)
    info = inspect.inspect(queue.name)
    assert isinstance(info, penstock.QueueInfo)
    assert info.ends_with == "creator"


@pytest.mark.parametrize("way", ["close", "exit"])
def test_the_creator_ends_the_stream(name, peer, way):
    creator = peer()
    creator.call("make", "q", "Queue.create", name)
    with Queue.attach(name) as consumer:
        if way == "close":
            creator.call("q.close")
        creator.end()
        with pytest.raises(penstock.Closed, match="ended"):
            consumer.get(timeout=WITHIN)


def test_a_killed_creators_stream_can_be_ended_by_a_newcomer(name, peer):
    creator = peer()
    creator.call("make", "q", "Queue.create", name)
    with Queue.attach(name) as consumer:
        creator.kill()
        consumer.put(1)
        assert consumer.get(timeout=WITHIN) == 1
        assert not consumer.stats().closed
        with Queue.attach(name) as operator:
            operator.end()
        with pytest.raises(penstock.Closed):
            consumer.get(timeout=WITHIN)


def test_the_last_producer_ends_the_stream_where_that_was_agreed_on(name, peer):
    creator = Queue.create(name, ends_with="last_producer")
    with Queue.attach(name, role="consumer") as consumer:
        first, second = peer(), peer()
        for producer in (first, second):
            producer.call("make", "q", "Queue.attach", name, role="producer")
        creator.close()
        first.call("q.close")
        second.call("q.put", 1)
        assert consumer.get(timeout=WITHIN) == 1
        assert not consumer.stats().closed
        second.call("q.close")
        with pytest.raises(penstock.Closed):
            consumer.get(timeout=WITHIN)
    with pytest.raises(penstock.InvalidArgument, match="'creator' or 'last_producer'"):
        Queue.create(name, ends_with="nobody")  # type: ignore[arg-type]


def test_close_ends_a_get_in_another_thread(queue):
    outcomes: list[BaseException] = []

    def consume() -> None:
        try:
            queue.get()
        except penstock.Error as error:
            outcomes.append(error)

    thread = threading.Thread(target=consume)
    thread.start()
    queue.close()
    thread.join(WITHIN)
    assert isinstance(outcomes[0], penstock.Closed)


def test_a_waiting_get_does_not_block_a_put(queue):
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.append(queue.get(timeout=WITHIN)))
    thread.start()
    queue.put("through the same handle")
    thread.join(WITHIN)
    assert got == ["through the same handle"]


def test_a_forked_child_attaches_anew(queue):
    queue.put(1)
    pid = os.fork()
    if pid == 0:
        try:
            ok = queue.get(timeout=WITHIN) == 1
            queue.put("from the child")
            queue.close()
            os._exit(0 if ok else 1)
        except BaseException:
            os._exit(2)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert queue.get(timeout=WITHIN) == "from the child"


def test_pickle_only_where_both_ask(name):
    with Queue.create(name, codec="pickle") as queue, Queue.attach(queue.handle) as plain:
        queue.put({1, 2, 3})
        with pytest.raises(penstock.Incompatible, match="pickle"):
            plain.get(timeout=0)
        assert queue.get(timeout=0) == {1, 2, 3}
        with Queue.attach(name) as typed, pytest.raises(penstock.UnsupportedType):
            typed.put({1, 2, 3})


def test_tasks(queue):
    async def main() -> list[object]:
        async def produce() -> None:
            for number in range(50):
                await queue.put_async(group(number, 16), timeout=WITHIN)

        async def consume() -> list[object]:
            return [await queue.get_async(timeout=WITHIN) for _ in range(50)]

        consumer = asyncio.create_task(consume())
        await produce()
        return await consumer

    values = asyncio.run(main())
    assert all(is_group(value, number, 16) for number, value in enumerate(values))


def test_a_cancelled_task_takes_nothing(queue):
    async def main() -> None:
        task = asyncio.create_task(queue.get_async())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    queue.put(1)
    assert queue.get(timeout=0) == 1


def test_ctrl_c_ends_a_wait(queue):
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT))

    def get_and_be_told() -> None:
        timer.start()
        queue.get()

    with pytest.raises(KeyboardInterrupt):
        get_and_be_told()
    timer.join()


def test_repr_handle_and_close(queue):
    queue.put(1)
    assert repr(queue) == f"<penstock.Queue '{queue.name}'>"
    handle = pickle.loads(pickle.dumps(queue.handle))
    with Queue.attach(handle) as other:
        assert other.get(timeout=0) == 1
    with pytest.raises(TypeError, match="handle"):
        pickle.dumps(queue)
    queue.close()
    assert "closed" in repr(queue)
    with pytest.raises(penstock.Closed):
        queue.put(1)


def test_a_consumer_can_not_put(queue):
    with (
        Queue.attach(queue.name, role="consumer") as consumer,
        pytest.raises(penstock.InvalidArgument),
    ):
        consumer.put(1)
    with pytest.raises(penstock.InvalidArgument, match="role"):
        Queue.attach(queue.name, role="nobody")


def test_attach_waits_for_the_name(name):
    made: list[Queue] = []
    thread = threading.Thread(target=lambda: made.append(Queue.attach(name, timeout=WITHIN)))
    thread.start()
    with Queue.create(name):
        thread.join(WITHIN)
        assert made
        made[0].close()
    with pytest.raises(penstock.NotFound):
        Queue.attach(name)


def test_a_dead_creator_ends_nothing(name, peer):
    other = peer()
    other.call("make", "q", "Queue.create", name)
    with Queue.attach(name) as queue:
        other.kill()
        queue.put(1)
        assert queue.get(timeout=WITHIN) == 1
        eventually(lambda: queue.stats().deaths == 1 or _looks(queue), within=1.0)


def _looks(queue: Queue) -> bool:
    with pytest.raises(penstock.Timeout):
        queue.get(timeout=0)
    return False
