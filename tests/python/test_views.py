"""Reading and writing in place: what may be touched, for how long, and what happens to arrays that
are kept for longer."""

# ruff: noqa: PT012, PT031 (what raises is a loop, or the end of a block)

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
from peers import WITHIN, eventually

import penstock
from penstock import Broadcast

MIB = 1 << 20


# recv_view


def test_arrays_of_a_view_lie_in_shared_memory_read_only(pair):
    writer, reader = pair
    writer.send({"x": np.arange(100, dtype=np.int32), "n": 5})
    with reader.recv_view(timeout=0) as message:
        array = message["x"]
        assert message["n"] == 5
        assert not array.flags.writeable
        assert not array.flags.owndata
        assert array.ctypes.data % 64 == 0
        np.testing.assert_array_equal(array, np.arange(100))
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


def test_bytes_are_viewed_as_a_read_only_memoryview(pair):
    writer, reader = pair
    writer.send_bytes(b"some bytes")
    with reader.recv_view(timeout=0) as view:
        assert isinstance(view, memoryview)
        assert view.readonly
        assert view == b"some bytes"


def lag(writer: penstock.BroadcastWriter) -> int:
    return writer.readers()[0].lag_messages


def test_a_message_without_arrays_is_given_back_at_the_end_of_the_block(pair):
    writer, reader = pair
    writer.send({"n": 5})
    with reader.recv_view(timeout=0) as message:
        assert lag(writer) == 1
    assert lag(writer) == 0
    assert message == {"n": 5}


def test_a_message_is_given_back_when_its_last_array_is_gone(pair):
    writer, reader = pair
    writer.send([np.zeros(10), np.ones(10)])
    with reader.recv_view(timeout=0) as arrays:
        part = arrays[1][2:5]  # a view of a view
    del arrays
    gc.collect()
    assert lag(writer) == 1
    np.testing.assert_array_equal(part, np.ones(3))
    del part
    assert lag(writer) == 0


def test_a_kept_array_keeps_its_bytes_while_the_ring_wants_the_room(pair):
    writer, reader = pair
    writer.send(np.arange(1000, dtype=np.int64))
    with reader.recv_view(timeout=0) as kept:
        pass
    with pytest.raises(penstock.Timeout):
        while True:
            writer.send_bytes(bytes(5000), timeout=0)
            reader.recv(timeout=0)
    np.testing.assert_array_equal(kept, np.arange(1000))
    del kept
    writer.send_bytes(bytes(5000), timeout=0)


def test_a_kept_large_array_does_not_hold_up_the_ring(pair):
    writer, reader = pair
    large = np.arange(100_000, dtype=np.int64)
    writer.send(large)
    with reader.recv_view(timeout=0) as kept:
        pass
    for i in range(500):  # many laps of the ring
        writer.send_bytes(bytes(1000), timeout=0)
        reader.recv(timeout=0)
        if i % 100 == 0:
            writer.send(large + i, timeout=0)
            reader.recv(timeout=0)
    np.testing.assert_array_equal(kept, large)
    del kept
    writer.send_bytes(b"", timeout=0)
    eventually(lambda: reader.recv(timeout=0) == b"")


def test_views_outlive_their_reader_and_their_writer(name):
    with Broadcast.create(name, readers=1) as writer:
        with Broadcast.attach(name, rank=0) as reader:
            writer.send(np.arange(1000))
            writer.send_bytes(b"text")
            with reader.recv_view() as array, reader.recv_view() as text:
                pass
        del reader
    del writer
    gc.collect()
    np.testing.assert_array_equal(array, np.arange(1000))
    assert text == b"text"


def test_views_may_die_in_any_order_and_thread(pair):
    writer, reader = pair
    views = []
    for i in range(20):
        writer.send(np.full(100, i))
        with reader.recv_view(timeout=0) as view:
            views.append(view)
    del view
    assert lag(writer) == 20

    def drop(parity: int) -> None:
        for i in range(parity, 20, 2):
            assert (views[i] == i).all()
            views[i] = None

    threads = [threading.Thread(target=drop, args=(parity,)) for parity in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN)
    assert lag(writer) == 0


def test_an_exception_in_the_block_takes_the_message_all_the_same(pair):
    writer, reader = pair
    writer.send(1)
    writer.send(2)
    with pytest.raises(ZeroDivisionError), reader.recv_view(timeout=0) as value:
        value /= 0
    assert reader.recv(timeout=0) == 2


def test_a_view_that_is_not_entered_takes_nothing(pair):
    writer, reader = pair
    writer.send(1)
    reader.recv_view(timeout=0)
    assert reader.recv(timeout=0) == 1


def test_a_view_waits_and_times_out(pair):
    _, reader = pair
    with pytest.raises(penstock.Timeout), reader.recv_view(timeout=0.05):
        pytest.fail("there was no message")


def test_a_view_can_be_entered_once(pair):
    writer, reader = pair
    writer.send(1)
    writer.send(2)
    view = reader.recv_view()
    with view:
        pass
    with pytest.raises(penstock.Busy), view:
        pytest.fail("it was entered twice")
    assert reader.recv(timeout=0) == 2


def test_too_many_kept_messages_are_an_error_that_passes(name):
    with (
        Broadcast.create(name, readers=1, capacity="1MiB") as writer,
        Broadcast.attach(name, rank=0) as reader,
    ):
        views = []
        for _ in range(4097):
            writer.send_bytes(b"x", timeout=0)
        with pytest.raises(penstock.Busy, match="4096"):
            while True:
                with reader.recv_view(timeout=0) as view:
                    views.append(view)
        assert len(views) == 4096
        views.clear()
        del view
        assert reader.recv(timeout=0) == b"x"


# loan


def test_a_loan_is_sent_at_the_end_of_its_block(pair):
    writer, reader = pair
    with writer.loan(10) as buf:
        assert isinstance(buf, memoryview)
        assert not buf.readonly
        assert buf.nbytes == 10
        buf[:] = b"0123456789"
        with pytest.raises(penstock.Timeout):
            reader.recv(timeout=0)
    assert reader.recv(timeout=0) == b"0123456789"


@pytest.mark.parametrize("nbytes", [0, 1, 4096, 20_000, "1MiB"])
def test_a_loan_of_any_size(pair, nbytes):
    writer, reader = pair
    with writer.loan(nbytes) as buf:
        buf[:] = bytes(len(buf))
        if len(buf) > 0:
            buf[-1] = 7
        size = len(buf)
    received = reader.recv_bytes(timeout=0)
    assert len(received) == size
    assert received[-1:] == (b"\7" if size else b"")


@pytest.mark.parametrize("size", [100, MIB])
def test_a_loan_is_dropped_when_its_block_raises(pair, size):
    writer, reader = pair
    with pytest.raises(ZeroDivisionError), writer.loan(size) as buf:
        buf[0] = 1 // 0
    writer.send_bytes(b"next", timeout=0)
    assert reader.recv(timeout=0) == b"next"
    assert writer.stats().messages == 1


def test_numpy_writes_into_a_loan(pair):
    writer, reader = pair
    with writer.loan(800) as buf:
        np.frombuffer(buf, np.int64)[:] = np.arange(100)
    np.testing.assert_array_equal(np.frombuffer(reader.recv_bytes(), np.int64), np.arange(100))


def test_a_loan_is_aligned_for_numpy(pair):
    writer, reader = pair
    for _ in range(3):
        writer.send_bytes(b"odd")
        with writer.loan(64) as buf:
            assert np.frombuffer(buf, np.uint8).ctypes.data % 64 == 0
        reader.recv_bytes()
        with reader.recv_view() as view:
            assert np.frombuffer(view, np.uint8).ctypes.data % 64 == 0


def test_the_buffer_of_a_loan_ends_with_its_block(pair):
    writer, _ = pair
    with writer.loan(10) as buf:
        pass
    with pytest.raises(ValueError, match="released"):
        buf[0] = 1


@pytest.mark.parametrize("size", [800, 3 * MIB])
def test_an_array_that_outlives_its_loan_can_not_touch_the_message(pair, size):
    """Nor later messages: it has private memory from the end of the block on."""
    writer, reader = pair
    with pytest.warns(ResourceWarning, match="outlives its block"), writer.loan(size) as buf:
        array = np.frombuffer(buf, np.uint8)
        array[:] = 7
    array[:] = 9
    assert reader.recv_bytes(timeout=0) == bytes([7]) * size
    for _ in range(200):
        writer.send_bytes(bytes(1000), timeout=0)
        array[:] = 9
        assert reader.recv_bytes(timeout=0) == bytes(1000)
    assert (array == 9).all()
    with writer.loan(size) as buf:  # later loans work
        np.frombuffer(buf, np.uint8)[:] = 3
    assert reader.recv_bytes(timeout=0) == bytes([3]) * size


@pytest.mark.parametrize("size", [800, 3 * MIB])
def test_an_array_that_refers_to_a_loan_without_an_export_is_cut_off_too(pair, size):
    """NumPy releases the buffer here, and keeps its owner."""
    writer, reader = pair
    with pytest.warns(ResourceWarning, match="outlives its block"), writer.loan(size) as buf:
        array = np.ndarray(size, np.uint8, buffer=buf)
        array[:] = 7
    array[:] = 9
    assert reader.recv_bytes(timeout=0) == bytes([7]) * size
    for _ in range(20):
        writer.send_bytes(bytes(size), timeout=0)
        array[:] = 9
        assert reader.recv_bytes(timeout=0) == bytes(size)


def test_a_slice_that_outlives_its_loan_keeps_its_bytes(pair):
    writer, reader = pair
    with pytest.warns(ResourceWarning), writer.loan(10) as buf:
        buf[:] = b"0123456789"
        middle = buf[3:6]
    assert middle == b"345"
    middle[:] = b"xyz"
    assert reader.recv_bytes(timeout=0) == b"0123456789"


def test_an_array_of_a_dropped_loan_can_not_touch_later_messages(pair):
    writer, reader = pair
    with (
        pytest.raises(ZeroDivisionError),
        pytest.warns(ResourceWarning),
        writer.loan(1000) as buf,
    ):
        array = np.frombuffer(buf, np.uint8)
        raise ZeroDivisionError
    writer.send_bytes(bytes(1000))
    array[:] = 9
    assert reader.recv_bytes(timeout=0) == bytes(1000)


def test_arrays_of_loans_outlive_the_writer(name):
    with (
        Broadcast.create(name, readers=1) as writer,
        pytest.warns(ResourceWarning),
        writer.loan(1000) as buf,
    ):
        array = np.frombuffer(buf, np.uint8)
        array[:] = 5
    del writer, buf
    gc.collect()
    assert (array == 5).all()


def test_one_thread_has_one_loan_at_a_time(pair):
    writer, reader = pair
    with writer.loan(10) as buf:
        for use in (lambda: writer.send(1), lambda: writer.loan(1).__enter__()):
            with pytest.raises(penstock.Busy, match="a loan is open"):
                use()
        buf[:] = bytes(10)
    assert reader.recv(timeout=0) == bytes(10)
    writer.send(1)
    assert reader.recv(timeout=0) == 1


def test_other_threads_wait_for_the_end_of_a_loan(pair):
    writer, reader = pair
    outcome: list[object] = []

    def send() -> None:
        try:
            writer.send("impatient", timeout=0.02)
        except penstock.Timeout as error:
            outcome.append(error)
        writer.send("patient", timeout=WITHIN)

    with writer.loan(4) as buf:
        sender = threading.Thread(target=send)
        sender.start()
        eventually(lambda: outcome)
        buf[:] = b"loan"
    sender.join(WITHIN)
    assert "other threads" in str(outcome[0])
    assert [reader.recv(timeout=0), reader.recv(timeout=0)] == [b"loan", "patient"]


def test_closing_the_writer_in_the_block_drops_the_loan(pair):
    writer, reader = pair
    with pytest.raises(penstock.Closed), writer.loan(4) as buf:
        writer.close()
        buf[:] = b"loan"  # still memory, but no message
    with pytest.raises(penstock.Closed):
        reader.recv(timeout=0)


def test_closing_from_another_thread_does_not_wait_for_the_loan(pair):
    writer, reader = pair
    with pytest.raises(penstock.Closed), writer.loan(4) as buf:
        closer = threading.Thread(target=writer.close)
        closer.start()
        closer.join(WITHIN)
        assert not closer.is_alive()
        buf[:] = b"loan"
    with pytest.raises(penstock.Closed):
        reader.recv(timeout=0)


def test_a_loan_that_is_entered_and_forgotten_is_dropped(pair):
    writer, reader = pair
    writer.loan(10).__enter__()
    writer.send(1, timeout=0)
    assert reader.recv(timeout=0) == 1
    assert writer.stats().messages == 1


@pytest.mark.parametrize("nbytes", [-1, 2**64, 1.5, "many", None])
def test_loans_of_impossible_sizes(pair, nbytes):
    writer, _ = pair
    with pytest.raises((penstock.InvalidArgument, TypeError)):
        writer.loan(nbytes)
