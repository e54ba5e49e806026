"""The async twins: they do what the plain calls do without blocking the event loop, and a cancelled
task has neither sent nor taken anything."""

# ruff: noqa: PT012 (what raises is a loop, or the end of a block)

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from peers import WITHIN

import penstock
from penstock import Broadcast


def run(main):
    """Run the coroutine to its end, which must come in time."""
    return asyncio.run(asyncio.wait_for(main, WITHIN))


async def until(is_so) -> None:
    """Run the loop until the condition is true."""
    while not is_so():
        await asyncio.sleep(0.001)


def test_values_and_bytes(pair):
    writer, reader = pair

    async def main() -> None:
        await writer.wait_ready_async(timeout=WITHIN)
        await writer.send_async({"a": 1})
        await writer.send_bytes_async(b"bytes")
        assert await reader.recv_async() == {"a": 1}
        assert await reader.recv_bytes_async() == b"bytes"

    run(main())


def test_waiting_does_not_hold_up_the_loop(pair):
    writer, reader = pair

    async def main() -> None:
        received = asyncio.create_task(reader.recv_async())
        await until(lambda: reader.stats().waits > 0)
        assert not received.done()
        writer.send("at last")
        assert await received == "at last"

    run(main())


def test_sending_waits_for_room(pair):
    writer, reader = pair

    async def main() -> None:
        sent = 0

        async def send() -> None:
            nonlocal sent
            for i in range(500):
                await writer.send_async((i, bytes(1000)))
                sent += 1

        sender = asyncio.create_task(send())
        await until(writer.blocked_by)
        assert 0 < sent < 500
        for i in range(500):
            assert await reader.recv_async() == (i, bytes(1000))
        await sender

    run(main())


def test_timeouts(pair):
    writer, reader = pair

    async def main() -> None:
        started = time.monotonic()
        with pytest.raises(penstock.Timeout):
            await reader.recv_async(timeout=0.1)
        assert time.monotonic() - started >= 0.1
        with pytest.raises(penstock.Timeout):
            await reader.recv_bytes_async(timeout=0)
        with pytest.raises(penstock.Timeout):
            while True:
                await writer.send_bytes_async(bytes(1000), timeout=0.01)
        for call in (reader.recv_async, reader.recv_bytes_async, writer.wait_ready_async):
            with pytest.raises(penstock.InvalidArgument):
                await call(timeout=-1)
        with pytest.raises(penstock.InvalidArgument):
            await writer.send_async(1, timeout=float("nan"))

    run(main())


def test_errors_come_through(pair):
    writer, reader = pair

    async def main() -> None:
        with pytest.raises(penstock.UnsupportedType):
            await writer.send_async({1, 2})
        with pytest.raises(TypeError):
            await writer.send_bytes_async("text")
        received = asyncio.create_task(reader.recv_async())
        await until(lambda: reader.stats().waits > 0)
        writer.close()
        with pytest.raises(penstock.Closed):
            await received

    run(main())


def test_a_message_that_can_never_fit(name):
    with Broadcast.create(name, readers=1, capacity="64KiB", large="1MiB") as writer:
        for send in (writer.send_async, writer.send_bytes_async):
            with pytest.raises(penstock.TooLarge):
                run(send(bytes(2 << 20)))


def test_a_cancelled_receiver_has_taken_nothing(pair):
    writer, reader = pair

    async def main() -> None:
        for i in range(50):
            seen = reader.stats().waits
            received = asyncio.create_task(reader.recv_async())
            await until(lambda seen=seen: reader.stats().waits > seen)
            if i % 2:
                writer.send(i)  # it arrives while the task is being cancelled
            received.cancel()
            with pytest.raises(asyncio.CancelledError):
                await received
            if i % 2 == 0:
                writer.send(i)
            assert await reader.recv_async(timeout=WITHIN) == i

    run(main())


def test_a_cancelled_sender_has_sent_nothing(pair):
    writer, reader = pair

    async def main() -> None:
        with pytest.raises(penstock.Timeout):
            while True:
                await writer.send_async(bytes(1000), timeout=0)
        full = writer.stats().messages
        for _ in range(5):
            sender = asyncio.create_task(writer.send_async("never"))
            await until(writer.blocked_by)
            sender.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sender
        for _ in range(full):
            assert await reader.recv_async() == bytes(1000)
        await writer.send_async("next")
        assert await reader.recv_async() == "next"
        assert writer.stats().messages == full + 1

    run(main())


def test_a_wait_that_asyncio_ends_loses_nothing(pair):
    writer, reader = pair

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(reader.recv_async(), 0.05)
        writer.send("kept")
        assert await reader.recv_async() == "kept"

    run(main())


def test_many_tasks_wait_on_many_handles(name):
    """More waits than a pool of threads would allow."""
    count = 40

    async def main() -> None:
        with Broadcast.create(name, readers=count) as writer:
            readers = [Broadcast.attach(name, rank=rank) for rank in range(count)]
            tasks = [asyncio.create_task(reader.recv_async()) for reader in readers]
            await until(lambda: all(reader.stats().waits > 0 for reader in readers))
            await writer.send_async("all of you")
            assert await asyncio.gather(*tasks) == ["all of you"] * count
            for reader in readers:
                reader.close()

    run(main())


def test_many_tasks_on_one_handle(pair):
    writer, reader = pair

    async def main() -> None:
        tasks = [asyncio.create_task(reader.recv_async()) for _ in range(10)]
        for i in range(10):
            await writer.send_async(i)
        assert sorted(await asyncio.gather(*tasks)) == list(range(10))

    run(main())


def test_plain_calls_beside_waiting_tasks(pair):
    writer, reader = pair

    async def main() -> None:
        task = asyncio.create_task(reader.recv_async())
        await until(lambda: reader.stats().waits > 0)
        threading.Thread(target=writer.send, args=("one of them",)).start()
        try:
            got = [reader.recv(timeout=1)]
        except penstock.Timeout:
            got = []
        if got:
            writer.send("the other")
        got.append(await task)
        assert got[0] == "one of them"

    run(main())


def test_a_loop_that_ends_leaves_no_wait_behind(pair):
    _, reader = pair

    async def main() -> None:
        asyncio.get_running_loop().create_task(reader.recv_async())
        await until(lambda: reader.stats().waits > 0)

    run(main())
    with pytest.raises(penstock.Timeout):
        reader.recv(timeout=0.01)
