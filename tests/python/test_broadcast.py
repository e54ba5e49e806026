"""The Broadcast contract from Python: a sent message arrives at every reader, whole and in order,
and a participant that can't continue gets the reason."""

# ruff: noqa: PT012 (what raises is a loop, or the end of a block)

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from peers import WITHIN, eventually

import penstock
from penstock import Broadcast

MIB = 1 << 20


# Values and bytes


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**63),
        2**64 - 1,
        1.5,
        "über",
        b"\0bytes",
        [1, [2]],
        (1, "a"),
        {"a": {1: 2}},
    ],
    ids=repr,
)
def test_a_value_arrives_as_it_was_sent(pair, value):
    writer, reader = pair
    writer.send(value)
    received = reader.recv(timeout=0)
    assert received == value
    assert type(received) is type(value)


def test_received_arrays_are_the_receivers_own(pair):
    writer, reader = pair
    sent = np.arange(12, dtype=np.float32).reshape(3, 4)
    writer.send({"x": sent})
    received = reader.recv(timeout=0)["x"]
    np.testing.assert_array_equal(received, sent)
    received[0, 0] = 99  # writable and private
    assert received.flags.owndata or received.base is not None
    assert sent[0, 0] == 0


@pytest.mark.parametrize("size", [0, 1, 63, 64, 2047, 2049, 16 * 1024, 100_000, 3 * MIB])
def test_bytes_of_any_size_arrive(pair, size):
    writer, reader = pair
    data = os.urandom(size)
    writer.send_bytes(data)
    assert reader.recv_bytes(timeout=0) == data


@pytest.mark.parametrize(
    "data",
    [b"abcd", bytearray(b"abcd"), memoryview(b"abcd"), np.array([[97, 98], [99, 100]], np.uint8)],
    ids=lambda data: type(data).__name__,
)
def test_any_contiguous_buffer_can_be_sent(pair, data):
    writer, reader = pair
    writer.send_bytes(data)
    assert reader.recv(timeout=0) == b"abcd"


def test_an_object_without_a_contiguous_buffer_is_refused(pair):
    writer, _ = pair
    with pytest.raises(TypeError, match="bytes-like"):
        writer.send_bytes("text")
    with pytest.raises(ValueError, match="contiguous"):
        writer.send_bytes(np.zeros((4, 4))[:, ::2])
    assert writer.stats().messages == 0


def test_recv_of_bytes_gives_bytes(pair):
    writer, reader = pair
    writer.send_bytes(b"plain")
    assert reader.recv(timeout=0) == b"plain"


def test_recv_bytes_leaves_a_value_where_it_is(pair):
    writer, reader = pair
    writer.send({"a": 1})
    writer.send_bytes(b"next")
    for _ in range(2):
        with pytest.raises(penstock.Incompatible, match=r"still there: take it with recv\(\)"):
            reader.recv_bytes(timeout=0)
        with pytest.raises(penstock.Incompatible, match="still there"):
            reader.recv_bytes_into(bytearray(100), timeout=0)
    assert reader.recv(timeout=0) == {"a": 1}
    assert reader.recv_bytes(timeout=0) == b"next"


def test_recv_bytes_into_fills_a_buffer(pair):
    writer, reader = pair
    buffer = np.zeros(10, np.uint8)
    writer.send_bytes(b"12345")
    assert reader.recv_bytes_into(buffer, timeout=0) == 5
    assert buffer.tobytes() == b"12345" + bytes(5)


def test_a_buffer_too_small_loses_nothing(pair):
    writer, reader = pair
    writer.send_bytes(b"12345")
    small = bytearray(4)
    with pytest.raises(penstock.TooLarge, match="has 5 bytes and the buffer only 4"):
        reader.recv_bytes_into(small, timeout=0)
    assert small == bytes(4)
    assert reader.recv_bytes(timeout=0) == b"12345"


def test_a_read_only_buffer_is_refused_before_anything_is_taken(pair):
    writer, reader = pair
    writer.send_bytes(b"12345")
    with pytest.raises(BufferError):
        reader.recv_bytes_into(b"12345", timeout=0)
    assert reader.recv(timeout=0) == b"12345"


def test_a_value_the_codec_does_not_know_is_named_and_not_sent(pair):
    writer, reader = pair
    with pytest.raises(penstock.UnsupportedType, match="pickle") as refusal:
        writer.send({"good": 1, "bad": {1, 2}})
    assert "bad" in str(refusal.value)
    assert "set" in str(refusal.value)
    with pytest.raises(penstock.Timeout):
        reader.recv(timeout=0)


# Order, wraps, many readers


def test_many_messages_of_many_sizes_arrive_in_order(name, peer):
    """Several laps of a small ring, with messages in blocks in between."""
    with Broadcast.create(name, readers=1, capacity="64KiB") as writer:
        reader = peer()
        reader.call("attach", "r", writer.handle, rank=0)
        random = np.random.default_rng(7)
        sizes = [*random.integers(0, 3000, 300), 20_000, 200_000, *random.integers(0, 3000, 300)]
        reader.start("do", "peers:recv_many", "r", len(sizes), WITHIN)
        for i, size in enumerate(sizes):
            writer.send({"i": i, "x": np.full(size, i % 256, np.uint8)}, timeout=WITHIN)
        for i, message in enumerate(reader.result()):
            assert message["i"] == i
            assert message["x"].size == sizes[i]
            assert (message["x"] == i % 256).all()


def test_every_reader_gets_every_message(name, peer):
    with Broadcast.create(name, readers=3) as writer:
        readers = [peer() for _ in range(3)]
        for rank, reader in enumerate(readers):
            reader.call("attach", "r", name, rank=rank)
        writer.wait_ready(timeout=WITHIN)
        for i in range(50):
            writer.send(i)
        for reader in readers:
            assert reader.call("do", "peers:recv_many", "r", 50, WITHIN) == list(range(50))


def test_nothing_is_lost_before_the_first_reader_attaches(name):
    with Broadcast.create(name, readers=1) as writer:
        for i in range(10):
            writer.send(i)
        with Broadcast.attach(name, rank=0) as reader:
            assert [reader.recv(timeout=0) for _ in range(10)] == list(range(10))


def test_a_replacement_starts_with_the_next_message(name):
    with Broadcast.create(name, readers=1) as writer:
        with Broadcast.attach(name, rank=0) as first:
            writer.send("seen")
            assert first.recv(timeout=0) == "seen"
        writer.send("nobody was there")
        with Broadcast.attach(name, rank=0) as second:
            writer.send("new")
            assert second.recv(timeout=0) == "new"


def test_round_trips_between_two_processes(name, peer):
    other = peer()
    with Broadcast.create(name, readers=1) as writer:
        other.call("attach", "r", writer.handle, rank=0)
        back = other.call("create", "w", f"{name}-back", readers=1)
        with Broadcast.attach(back, rank=0) as reader:
            other.start("do", "peers:echo", "r", "w", 200, WITHIN)
            for i in range(200):
                writer.send({"step": i})
                assert reader.recv(timeout=WITHIN) == {"step": i}
            other.result()
        other.call("w.close")


# Sizes, room, timeouts


@pytest.mark.parametrize("capacity", ["64KiB", 65536, np.int64(65536), "0.0625MiB"], ids=repr)
def test_capacity_as_people_write_it(name, capacity):
    with Broadcast.create(name, readers=1, capacity=capacity) as writer:
        assert writer.stats().capacity == 65536


def test_a_full_ring_times_out_and_names_the_reader(pair):
    writer, reader = pair
    with pytest.raises(penstock.Timeout):
        while True:
            writer.send_bytes(bytes(1000), timeout=0)
    sent = writer.stats().messages
    assert sent >= 60
    started = time.monotonic()
    with pytest.raises(penstock.Timeout, match=rf"reader 0 \(pid {os.getpid()}"):
        writer.send_bytes(bytes(1000), timeout=0.1)
    assert 0.1 <= time.monotonic() - started < WITHIN
    assert writer.stats().messages == sent
    reader.recv()
    for _ in range(8):  # room is freed in larger pieces than one message
        reader.recv()
    writer.send_bytes(bytes(1000), timeout=0)


def test_a_message_that_can_never_fit_is_refused_at_once(name):
    with Broadcast.create(name, readers=1, capacity="64KiB", large="1MiB") as writer:
        for send in (
            writer.send_bytes,
            writer.send,
            lambda data: writer.loan(len(data)).__enter__(),
        ):
            with pytest.raises(penstock.TooLarge, match="can never fit") as refusal:
                send(bytes(2 * MIB))
            assert "1048576" in str(refusal.value)
        writer.send_bytes(bytes(MIB // 2))
        assert writer.stats().messages == 1


def test_large_messages_wait_for_room_too(name, peer):
    with Broadcast.create(name, readers=1, capacity="64KiB", large="1MiB") as writer:
        other = peer()
        other.call("attach", "r", name, rank=0)
        writer.send_bytes(bytes(700_000))
        with pytest.raises(penstock.Timeout):
            writer.send_bytes(bytes(700_000), timeout=0.05)
        assert other.call("r.recv") == bytes(700_000)
        writer.send_bytes(bytes(700_001), timeout=WITHIN)
        assert other.call("r.recv") == bytes(700_001)
        assert writer.stats().large_messages == 2


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan"), float("-inf")])
def test_timeouts_that_can_not_be(pair, timeout):
    writer, reader = pair
    calls = [
        lambda: reader.recv(timeout=timeout),
        lambda: reader.recv_bytes(timeout=timeout),
        lambda: reader.recv_bytes_into(bytearray(1), timeout=timeout),
        lambda: reader.recv_view(timeout=timeout),
        lambda: writer.send(1, timeout=timeout),
        lambda: writer.send_bytes(b"", timeout=timeout),
        lambda: writer.loan(1, timeout=timeout),
        lambda: writer.wait_ready(timeout=timeout),
    ]
    for call in calls:
        with pytest.raises(penstock.InvalidArgument, match="timeout is"):
            call()
    assert writer.stats().messages == 0


def test_timeouts_of_many_types(pair):
    writer, reader = pair
    for timeout in (0, 0.0, 1, 1.5, np.float32(1), np.int64(1), True, None, float("inf"), 1e300):
        writer.send("x", timeout=timeout)
        assert reader.recv(timeout) == "x"
    with pytest.raises(TypeError):
        reader.recv(timeout="1")


def test_a_timeout_is_kept(pair):
    _, reader = pair
    started = time.monotonic()
    with pytest.raises(penstock.Timeout):
        reader.recv(timeout=0.2)
    assert 0.2 <= time.monotonic() - started < WITHIN


# Participants


def test_wait_ready_waits_for_every_rank(name, peer):
    with Broadcast.create(name, readers=2) as writer, Broadcast.attach(name, rank=0):
        with pytest.raises(penstock.Timeout, match="nobody is at rank 1"):
            writer.wait_ready(timeout=0.05)
        peer().call("attach", "r", name, rank=1)
        writer.wait_ready(timeout=WITHIN)


def test_readers_reports_their_positions(name):
    with Broadcast.create(name, readers=2) as writer:
        assert [reader.life for reader in writer.readers()] == ["expected", "expected"]
        with Broadcast.attach(name, rank=1):
            writer.send_bytes(b"12345678")
            waiting = writer.readers()[1]
            assert (waiting.rank, waiting.life, waiting.alive) == (1, "active", True)
            assert waiting.pid == os.getpid()
            assert waiting.lag_messages == 1
            assert waiting.lag_bytes >= 8
            assert "1 message" in waiting.describe()
        assert writer.readers()[1].life == "vacant"


def test_blocked_by_names_a_stopped_reader_only(name, peer):
    with Broadcast.create(name, readers=2, capacity="64KiB") as writer:
        reader, sleeper = peer(), peer()
        reader.call("attach", "r", name, rank=0)
        sleeper.call("attach", "r", name, rank=1)
        assert writer.blocked_by() == []
        with sleeper.stopped():
            reader.start("do", "peers:recv_many", "r", 65, WITHIN)
            for _ in range(65):
                writer.send_bytes(bytes(1000), timeout=WITHIN)
                if writer.stats().used_bytes > 63_000:
                    break
            send = threading.Thread(target=lambda: writer.send_bytes(bytes(4000), timeout=WITHIN))
            send.start()
            # Reader 0 may be behind, too, until it has received the rest.
            eventually(lambda: [blocker.rank for blocker in writer.blocked_by()] == [1])
            blockers = writer.blocked_by()
            assert blockers[0].stopped
            assert blockers[0].pid == sleeper.pid
            eventually(lambda: writer.blocked_by()[0].blocking_for > 0.01)
        sleeper.call("do", "peers:recv_many", "r", 30, WITHIN)
        send.join(WITHIN)
        assert not send.is_alive()
        reader.kill()


def test_stats_count(pair):
    writer, reader = pair
    writer.send_bytes(bytes(100))
    writer.send_bytes(bytes(40_000))
    assert reader.recv_bytes() == bytes(100)
    stats = writer.stats()
    assert (stats.messages, stats.bytes, stats.large_messages) == (2, 40_100, 1)
    assert stats.capacity == 65536
    assert stats.reserved_bytes > 65536
    assert stats.held_bytes >= 40_000
    assert reader.stats().messages == 1


def test_repr_helps(name):
    writer = Broadcast.create(name, readers=2)
    reader = Broadcast.attach(name, rank=1)
    assert repr(writer) == f"<penstock.BroadcastWriter '{name}'>"
    assert repr(reader) == f"<penstock.BroadcastReader '{name}', rank 1>"
    writer.close()
    reader.close()
    assert repr(writer) == f"<penstock.BroadcastWriter '{name}', closed>"
    assert repr(reader) == f"<penstock.BroadcastReader '{name}', rank 1, closed>"


# Ends


def test_close_lets_readers_drain(pair):
    writer, reader = pair
    writer.send(1)
    writer.send(2)
    writer.close()
    assert reader.recv() == 1
    assert reader.recv() == 2
    for _ in range(2):
        with pytest.raises(penstock.Closed, match="everything was received"):
            reader.recv()


def test_close_wakes_a_waiting_reader(name, peer):
    with Broadcast.create(name, readers=1) as writer:
        other = peer()
        other.call("attach", "r", name, rank=0)
        other.start("r.recv")
        writer.close()
        with pytest.raises(penstock.Closed):
            other.result()


def test_context_managers_close(name):
    with Broadcast.create(name, readers=1) as writer, Broadcast.attach(name, rank=0) as reader:
        assert not writer.closed
        assert not reader.closed
    assert writer.closed
    assert reader.closed
    assert not Path(f"/dev/shm/penstock.{name}").exists()


def test_a_forgotten_handle_is_closed(name):
    writer = Broadcast.create(name, readers=1)
    reader = Broadcast.attach(name, rank=0)
    del writer
    with pytest.raises(penstock.Closed):
        reader.recv(timeout=WITHIN)


def test_a_dead_writer_is_reported_after_its_last_message(name, peer):
    other = peer()
    handle = other.call("create", "w", name, readers=1)
    with Broadcast.attach(handle, rank=0) as reader:
        for i in range(3):
            other.call("w.send", i)
        other.kill()
        assert [reader.recv() for _ in range(3)] == [0, 1, 2]
        with pytest.raises(penstock.PeerDied, match=f"pid {other.pid}") as death:
            reader.recv()
        assert death.value.rank is None
        with pytest.raises(penstock.PeerDied):
            reader.recv(timeout=0)


def test_a_waiting_reader_notices_a_death_soon(name, peer):
    other = peer()
    handle = other.call("create", "w", name, readers=1)
    with Broadcast.attach(handle, rank=0) as reader:

        def kill() -> None:
            eventually(lambda: reader.stats().waits > 0)
            killed.append(time.monotonic())
            other.signal(signal.SIGKILL)

        killed: list[float] = []
        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(penstock.PeerDied):
            reader.recv(timeout=WITHIN)
        killer.join()
        # 100 ms is the promise; the rest is for busy machines.
        assert time.monotonic() - killed[0] < 1.0


def fill(writer: penstock.BroadcastWriter) -> int:
    """Send until there is no room; return the number of messages."""
    count = 0
    while True:
        try:
            writer.send_bytes(bytes(1000), timeout=0)
        except penstock.Timeout:
            return count
        count += 1


def test_a_dead_reader_is_reported_once(name, peer):
    with Broadcast.create(name, readers=2, capacity="64KiB") as writer:
        other = peer()
        other.call("attach", "r", name, rank=1)
        with Broadcast.attach(name, rank=0) as reader:
            other.kill()
            with pytest.raises(penstock.PeerDied, match="reader 1") as death:
                for _ in range(100):
                    writer.send_bytes(bytes(1000), timeout=WITHIN)
                    reader.recv(timeout=0)
            assert death.value.rank == 1
            assert f"pid {other.pid}" in str(death.value)
            for _ in range(200):  # no longer a gate, and reported once
                writer.send_bytes(bytes(1000), timeout=WITHIN)
                reader.recv(timeout=0)
            assert writer.readers()[1].life == "vacant"
            assert writer.stats().reader_deaths == 1


def test_a_dead_reader_can_be_dropped_silently(name, peer):
    with Broadcast.create(name, readers=1, capacity="64KiB", on_reader_death="drop") as writer:
        other = peer()
        other.call("attach", "r", name, rank=0)
        other.kill()
        for _ in range(200):
            writer.send_bytes(bytes(1000), timeout=WITHIN)
        assert writer.stats().reader_deaths == 1


def test_a_replacement_takes_a_dead_readers_place(name, peer):
    with Broadcast.create(name, readers=1, capacity="64KiB") as writer:
        first, second = peer(), peer()
        first.call("attach", "r", name, rank=0)
        fill(writer)
        first.kill()
        with pytest.raises(penstock.PeerDied):
            writer.send_bytes(bytes(1000), timeout=WITHIN)
        second.call("attach", "r", name, rank=0)
        writer.send("after")
        assert second.call("r.recv", timeout=WITHIN) == "after"


def test_wait_ready_reports_a_death(name, peer):
    with Broadcast.create(name, readers=2) as writer:
        other = peer()
        other.call("attach", "r", name, rank=1)
        other.kill()
        with pytest.raises(penstock.PeerDied) as death:
            writer.wait_ready(timeout=WITHIN)
        assert death.value.rank == 1
