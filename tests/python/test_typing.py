"""The types that users see: a correct program is clean under mypy --strict, and a wrong one is
not."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("mypy")


def check(tmp_path, program: str) -> str:
    file = tmp_path / "program.py"
    file.write_text(textwrap.dedent(program))
    outcome = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(file)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return outcome.stdout


@pytest.mark.timeout(120)
def test_a_program_that_uses_everything_is_clean(tmp_path):
    output = check(
        tmp_path,
        """
        import penstock
        from penstock import inspect
        from penstock.errors import PeerDied

        async def main(writer: penstock.BroadcastWriter, reader: penstock.BroadcastReader) -> None:
            await writer.send_async({"a": 1}, timeout=1.0)
            await writer.send_bytes_async(b"x")
            await writer.wait_ready_async()
            data: bytes = await reader.recv_bytes_async(timeout=None)
            value = await reader.recv_async()
            print(data, value)
            block: penstock.AsyncBlock[memoryview] = writer.loan_async(10)
            async with block as room, reader.recv_view_async(timeout=1.0) as seen:
                room[0] = 1
                print(seen, await reader.recv_bytes_into_async(bytearray(10)))

        async def objects(queue: penstock.Queue, store: penstock.Store) -> None:
            async with queue.get_many_async(10, min_items=2) as batch:
                messages: list[object] = batch
            accepted: int = await queue.put_many_async(messages)
            view: penstock.StoreView = await store.wait_async("key")
            async with store.wait_async("key") as obj:
                print(obj, accepted, view.ref)
            tier = penstock.SecondTier("redis://cache", policy="write_through", ttl=60)
            tiered = penstock.Store.attach("kv", second_tier=tier)
            async with tiered, tiered.reserve_async("key", nbytes=3) as memory:
                memory[:] = b"abc"
            report: penstock.Unwritten = await tiered.close_async()
            print(report.is_nothing())

        def plain(queue: penstock.Queue, store: penstock.Store, key: penstock.Key) -> None:
            batch: penstock.Batch = queue.get_many()
            reservation: penstock.Reservation = store.reserve(key, nbytes=3)
            ref: penstock.StoreRef = reservation.ref
            found: penstock.StoreView = store.get_ref(ref)
            print(batch, found)

        with penstock.Broadcast.create("steps", readers=4, capacity="4MiB") as writer:
            handle: penstock.Handle = writer.handle
            with penstock.Broadcast.attach(handle, rank=0, codec="pickle") as reader:
                writer.wait_ready(timeout=10)
                writer.send([1, 2], timeout=1)
                writer.send_bytes(memoryview(b"x"))
                loan: penstock.Loan = writer.loan(10)
                with loan as buf:
                    buf[0] = 1
                message: penstock.View = reader.recv_view(timeout=0)
                print(message)
                with reader.recv_view(timeout=1.0) as view:
                    print(view)
                size: int = reader.recv_bytes_into(bytearray(10), timeout=0)
                try:
                    print(reader.recv_bytes(), size, reader.rank, reader.name)
                except PeerDied as death:
                    rank: int | None = death.rank
                    print(rank)
                for state in writer.blocked_by() + writer.readers():
                    print(state.rank, state.life == "active", state.describe())
                messages: int = writer.stats().messages + reader.stats().messages
                print(messages, writer.closed)
        for segment in inspect.list_segments():
            abandoned: bool = segment.is_abandoned()
            print(segment.participants[0].role, abandoned)
        """,
    )
    assert "Success" in output, output


@pytest.mark.full
@pytest.mark.timeout(120)
def test_mistakes_are_found(tmp_path):
    output = check(
        tmp_path,
        """
        import penstock
        penstock.Broadcast.create("steps", readers="4")
        penstock.Broadcast.create("steps", readers=1, on_reader_death="ignore")
        penstock.Broadcast.attach("steps")
        with penstock.Broadcast.attach("steps", rank=0) as reader:
            text: str = reader.recv_bytes()
        """,
    )
    assert "Found 4 errors" in output, output
