"""A full /dev/shm: the error has the requested and the available size, and no process dies of
SIGBUS. In a mount namespace with a small tmpfs, so that no other memory is used up."""

from __future__ import annotations

from peers import needs_a_mount, with_own_shm

pytestmark = needs_a_mount


def test_create_reports_the_space_and_the_remedy():
    outcome = with_own_shm(
        """
        import os, penstock
        try:
            penstock.Broadcast.create("big", readers=1, capacity="64MiB")
        except penstock.NoSpace as error:
            print(error)
        assert os.listdir("/dev/shm") == []
        with penstock.Broadcast.create("small", readers=1, capacity="4MiB") as writer:
            with penstock.Broadcast.attach("small", rank=0) as reader:
                writer.send("fits")
                print(reader.recv(timeout=0))
        assert os.listdir("/dev/shm") == []
        """,
        mount="size=16m",
    )
    refusal, fits = outcome.stdout.splitlines()
    assert "could not reserve" in refusal
    assert "16384 KiB" in refusal  # the available size
    assert "--shm-size" in refusal
    assert fits == "fits", outcome.stderr


def test_a_large_message_without_room_is_not_sent_and_does_no_harm():
    outcome = with_own_shm(
        """
        import penstock
        with penstock.Broadcast.create("tight", readers=1, capacity="1MiB") as writer:
            with penstock.Broadcast.attach("tight", rank=0) as reader:
                for send in (writer.send_bytes, lambda data: writer.send({"x": data})):
                    try:
                        send(bytes(64 << 20))
                    except penstock.NoSpace as error:
                        print(type(error).__name__)
                try:
                    with writer.loan("64MiB") as buf:
                        buf[0] = 1
                except penstock.NoSpace as error:
                    print(type(error).__name__)
                writer.send_bytes(bytes(8 << 20))
                writer.send("small")
                print(len(reader.recv(timeout=0)), reader.recv(timeout=0))
        """,
        mount="size=16m",
    )
    assert outcome.stdout.split() == ["NoSpace"] * 3 + [str(8 << 20), "small"], outcome.stderr


def test_room_that_others_took_meanwhile():
    """The ring was reserved at creation: it works on a file system without a free byte."""
    outcome = with_own_shm(
        """
        import contextlib, penstock
        with penstock.Broadcast.create("sure", readers=1, capacity="4MiB") as writer:
            with open("/dev/shm/hog", "wb", buffering=0) as hog, contextlib.suppress(OSError):
                while True:
                    hog.write(bytes(1 << 20))
            with penstock.Broadcast.attach("sure", rank=0) as reader:
                for i in range(20_000):
                    writer.send_bytes(i.to_bytes(4, "little") * 256, timeout=0)
                    assert reader.recv_bytes(timeout=0)[:4] == i.to_bytes(4, "little")
                try:
                    writer.send_bytes(bytes(2 << 20))
                except penstock.NoSpace:
                    print("no space")
                writer.send("and on")
                print(reader.recv(timeout=0))
        """,
        mount="size=16m",
    )
    assert outcome.stdout.splitlines() == ["no space", "and on"], outcome.stderr
