"""Every mistake and failure has its own class, derived from the fitting built-in, with a message
that says what is in the way; and none leaves anything behind."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from peers import WITHIN, needs_a_mount, run_script, with_own_shm

import penstock
from penstock import Broadcast, errors, inspect

SHM = Path("/dev/shm")

BUILT_INS = {
    "Timeout": TimeoutError,
    "Closed": EOFError,
    "PeerDied": ConnectionError,
    "NotFound": FileNotFoundError,
    "AlreadyExists": FileExistsError,
    "NoSpace": MemoryError,
    "TooLarge": ValueError,
    "Incompatible": RuntimeError,
    "Corrupt": RuntimeError,
    "Cancelled": RuntimeError,
    "InvalidName": ValueError,
    "InvalidArgument": ValueError,
    "PermissionDenied": PermissionError,
    "Busy": RuntimeError,
    "UnsupportedType": TypeError,
    "Expired": RuntimeError,
    "WrongProcess": RuntimeError,
}


@pytest.mark.parametrize(("name", "built_in"), BUILT_INS.items())
def test_each_error_is_also_the_built_in_that_one_would_catch(name, built_in):
    cls = getattr(penstock, name)
    assert issubclass(cls, penstock.Error)
    assert issubclass(cls, built_in)
    assert str(cls("what happened")) == "what happened"
    again = pickle.loads(pickle.dumps(cls("what happened")))
    assert type(again) is cls
    assert str(again) == "what happened"


def test_the_list_of_errors_is_complete():
    assert set(errors.__all__) == {*BUILT_INS, "Error"}


# Arguments


@pytest.mark.parametrize(
    "bad", ["", "a/b", "a b", "ü", "x" * 201, "a\0b", "../up", "a\n", "file:relative", "file:"]
)
def test_names_that_can_not_be(bad):
    with pytest.raises(penstock.InvalidName):
        Broadcast.create(bad, readers=1)
    with pytest.raises(penstock.InvalidName):
        Broadcast.attach(bad, rank=0)
    with pytest.raises(penstock.InvalidName):
        inspect.inspect(bad)


@pytest.mark.parametrize("good", ["a", "A-Z_0.9", "x" * 200])
def test_names_that_can_be(good, name):
    unique = (name + "-" + good)[:200]
    with Broadcast.create(unique, readers=1) as writer:
        assert writer.name == unique


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("readers", 0),
        ("readers", 257),
        ("readers", -1),
        ("readers", 2**40),
        ("capacity", 0),
        ("capacity", -1),
        ("capacity", 2**64),
        ("capacity", 2**50),
        ("capacity", "lots"),
        ("capacity", "4 parsecs"),
        ("large", -1),
        ("large", "1XB"),
        ("on_reader_death", "ignore"),
        ("codec", "json"),
        ("numa_node", 4096),
        ("numa_node", -1),
        ("numa_node", 2**32 - 1),
    ],
)
def test_options_that_can_not_be(name, option, value):
    with pytest.raises(penstock.InvalidArgument):
        Broadcast.create(name, **{"readers": 1, option: value})
    with pytest.raises(penstock.NotFound):
        inspect.inspect(name)


@pytest.mark.parametrize(
    ("option", "value"),
    [("readers", "1"), ("readers", 1.0), ("capacity", 1.5), ("capacity", None), ("codec", 1)],
)
def test_options_of_the_wrong_type(name, option, value):
    with pytest.raises((TypeError, penstock.InvalidArgument)):
        Broadcast.create(name, **{"readers": 1, option: value})


def test_ranks_that_are_not_there(name):
    with Broadcast.create(name, readers=2) as writer:
        with pytest.raises(penstock.InvalidArgument, match=r"no rank 2.*for 2 readers"):
            Broadcast.attach(name, rank=2)
        with pytest.raises(penstock.InvalidArgument, match="rank"):
            Broadcast.attach(name, rank=-1)
        with pytest.raises(TypeError):
            Broadcast.attach(name, rank="0")
        assert [reader.life for reader in writer.readers()] == ["expected", "expected"]


def test_parse_size():
    assert penstock.parse_size("64MiB") == 64 << 20
    assert penstock.parse_size("1.5GiB") == 3 << 29
    assert penstock.parse_size("10MB") == 10**7
    assert penstock.parse_size("4096") == 4096
    for bad in ("", "MiB", "-1", "1e400", "1 2", "nan", "99999999999999GiB"):
        with pytest.raises(penstock.InvalidArgument):
            penstock.parse_size(bad)


# Holders


def test_a_taken_rank_is_refused_naming_its_holder(name, peer):
    with Broadcast.create(name, readers=1):
        other = peer()
        other.call("attach", "r", name, rank=0)
        with pytest.raises(penstock.Busy, match=f"pid {other.pid}") as busy:
            Broadcast.attach(name, rank=0)
        assert busy.value.rank == 0
        other.kill()
        Broadcast.attach(name, rank=0).close()


def test_a_taken_name_is_refused_naming_its_holder(name, peer):
    other = peer()
    other.call("create", "w", name, readers=1)
    with pytest.raises(penstock.AlreadyExists, match=f"pid {other.pid}"):
        Broadcast.create(name, readers=1)
    other.kill()
    with Broadcast.create(name, readers=1) as writer:  # the dead have no claim
        writer.send("new")
        with Broadcast.attach(name, rank=0) as reader:
            assert reader.recv(timeout=0) == "new"


def test_a_second_writer_is_refused_while_a_reader_lives(name, peer):
    other = peer()
    other.call("create", "w", name, readers=1)
    with Broadcast.attach(name, rank=0) as reader:
        other.kill()
        with pytest.raises(penstock.AlreadyExists, match=f"pid {os.getpid()}"):
            Broadcast.create(name, readers=1)
        with pytest.raises(penstock.PeerDied):
            reader.recv(timeout=0)


def test_nothing_to_attach_to(name):
    with pytest.raises(penstock.NotFound, match=name):
        Broadcast.attach(name, rank=0)
    with pytest.raises(penstock.NotFound):
        Broadcast.attach(name, rank=0, timeout=0.1)


def test_attach_waits_for_the_name(name, peer):
    other = peer()
    other.start("attach", "r", name, rank=0, timeout=WITHIN)
    with Broadcast.create(name, readers=1) as writer:
        other.result()
        writer.wait_ready(timeout=WITHIN)


# Files under the name that are no Broadcast of ours


@pytest.fixture
def file(name):
    """The file of the name, which the test makes."""
    path = SHM / f"penstock.{name}"
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def image(name, file):
    """The bytes of a valid segment without participants."""
    writer = Broadcast.create(name, readers=1, capacity="64KiB", large=0)
    data = file.read_bytes()
    writer.close()
    return bytearray(data)


def refused(name: str, *classes: type[penstock.Error]) -> str:
    """Attaching and inspecting are refused; return the message."""
    with pytest.raises(classes) as refusal:
        Broadcast.attach(name, rank=0)
    with pytest.raises(classes):
        inspect.inspect(name)
    assert any(segment.name == name and segment.problem for segment in inspect.list_segments())
    return str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"short", bytes(10_000), b"not ours" * 10_000])
def test_a_foreign_file(name, file, content):
    file.write_bytes(content)
    refused(name, penstock.Incompatible)
    with pytest.raises(penstock.AlreadyExists, match="taken"):
        Broadcast.create(name, readers=1)
    assert file.read_bytes() == content


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("/etc/hostname")])
def test_a_name_that_is_no_regular_file(name, file, make):
    make(file)
    try:
        with pytest.raises(penstock.Error):
            Broadcast.attach(name, rank=0)
    finally:
        if file.is_dir() and not file.is_symlink():
            file.rmdir()


def test_another_version(name, file, image):
    changed = bytearray(image)
    at = version_offset()
    changed[at] ^= 0xFF
    file.write_bytes(changed)
    assert "version" in refused(name, penstock.Incompatible)


def version_offset() -> int:
    """The position of the layout version, as in docs/layout.md."""
    return 8


@pytest.mark.parametrize("keep", [1, 100, 4096, 8192, 70_000])
def test_a_truncated_segment(name, file, image, keep):
    assert keep < len(image)
    file.write_bytes(image[:keep])
    refused(name, penstock.Incompatible, penstock.Corrupt)


def test_every_damaged_header_byte_is_refused_or_harmless(name, file, image):
    """Each bit is flipped in turn; never a crash, and never a wrong message."""
    for at in range(256):
        damaged = bytearray(image)
        damaged[at] ^= 1 << (at % 8)
        file.write_bytes(damaged)
        try:
            Broadcast.attach(name, rank=0).close()
        except penstock.Error:
            pass
        file.unlink(missing_ok=True)


def test_a_ring_that_was_written_into_is_corrupt(name):
    with (
        Broadcast.create(name, readers=1, capacity="64KiB", large=0) as writer,
        Broadcast.attach(name, rank=0) as reader,
    ):
        writer.send_bytes(b"?" * 200)  # too long for the copy beside the position
        path = SHM / f"penstock.{name}"
        at = path.read_bytes().index(b"?" * 200) - 8
        with path.open("r+b") as stray:
            stray.seek(at)
            stray.write(b"\xff" * 8)
        with pytest.raises(penstock.Corrupt):
            reader.recv(timeout=0)


# System failures: each in its own process, because it changes the process


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to change users")


@needs_root
def test_another_users_segment(name):
    with Broadcast.create(name, readers=1):
        outcome = run_script(
            """
            import os, sys
            import penstock
            from penstock import inspect
            os.setgid(65534); os.setuid(65534)
            for call in (
                lambda: penstock.Broadcast.attach(sys.argv[1], rank=0),
                lambda: penstock.Broadcast.create(sys.argv[1], readers=1),
                lambda: inspect.inspect(sys.argv[1]),
                lambda: inspect.remove_if_abandoned(sys.argv[1]),
            ):
                try:
                    call()
                except penstock.PermissionDenied as error:
                    assert "another user" in str(error), error
                    print("denied")
            """,
            name,
        )
        assert outcome.stdout.split() == ["denied"] * 4, outcome.stderr


@needs_a_mount
def test_a_directory_that_may_not_be_written(name):
    outcome = with_own_shm(
        """
        import sys, penstock
        try:
            penstock.Broadcast.create(sys.argv[1], readers=1)
        except penstock.Error as error:
            print(error)
        """,
        name,
        mount="ro",
    )
    assert name in outcome.stdout, outcome.stderr


# Use after the end


def test_every_use_after_close_says_so(name):
    writer = Broadcast.create(name, readers=1)
    reader = Broadcast.attach(name, rank=0)
    handle = writer.handle
    writer.close()
    reader.close()
    writer.close()  # again: no effect
    reader.close()
    calls = [
        lambda: writer.send(1),
        lambda: writer.send_bytes(b""),
        lambda: writer.loan(1),
        lambda: writer.wait_ready(),
        lambda: writer.readers(),
        lambda: writer.blocked_by(),
        lambda: writer.stats(),
        lambda: reader.recv(),
        lambda: reader.recv_view(),
        lambda: reader.recv_bytes(),
        lambda: reader.recv_bytes_into(bytearray(1)),
        lambda: reader.stats(),
    ]
    for call in calls:
        with pytest.raises(penstock.Closed, match="closed by this process"):
            call()
    assert writer.name == reader.name == name
    assert reader.rank == 0
    assert writer.handle == handle
    with pytest.raises(penstock.NotFound):
        Broadcast.attach(handle, rank=0)


def test_closed_says_by_whom(name):
    writer = Broadcast.create(name, readers=1)
    reader = Broadcast.attach(name, rank=0)
    writer.close()
    with pytest.raises(errors.Closed) as ended:
        reader.recv(timeout=WITHIN)
    assert ended.value.by == "peer"
    reader.close()
    for call in (reader.recv, reader.stats, lambda: writer.send(1)):
        with pytest.raises(errors.Closed) as closed:
            call()
        assert closed.value.by == "self"


def test_closed_says_by_whom_of_a_queue_and_a_store(name):
    queue = penstock.Queue.create(name)
    other = penstock.Queue.attach(name)
    queue.close()
    for call in (lambda: other.put(1, timeout=WITHIN), lambda: other.get(timeout=WITHIN)):
        with pytest.raises(errors.Closed) as ended:
            call()
        assert ended.value.by == "peer"
    other.close()
    store = penstock.Store.create(name)
    store.close()
    for call in (lambda: queue.put(1), lambda: other.get(), lambda: store.put("key", 1)):
        with pytest.raises(errors.Closed) as closed:
            call()
        assert closed.value.by == "self"


def test_the_classes_are_not_made_by_hand():
    with pytest.raises(TypeError, match=r"create\(\)"):
        Broadcast()
