"""Programs that close all descriptors, as daemons do: a remaining handle punches, grows, locks or
closes none of their files, and reports what happened instead of working on in memory that may
belong to others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import closing_programs
import pytest
from peers import WITHIN, eventually
from redis_server import RedisServer, why_no_server

import penstock
from penstock import inspect
from penstock.trajectories import TrajectoryReader, TrajectoryWriter

ALONE = [one for one in vars(closing_programs) if one.startswith("alone_")]
Program = subprocess.Popen


@contextmanager
def running(program: str, *arguments: Any) -> Iterator[Program[str]]:
    """A program that must end successfully."""
    command = [sys.executable, closing_programs.__file__, program, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
            output, errors = process.communicate(timeout=2 * WITHIN)
        finally:
            process.kill()
    assert process.returncode == 0, f"{process.returncode}: {errors}"
    assert output.endswith("well\n")


def hear(process: Program[str], word: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{word}\n"


def go_on(process: Program[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def collect(name: str) -> None:
    """Collect a segment that the program could not remove itself."""
    for segment in inspect.list_segments():
        if segment.name.startswith(name):
            with suppress(penstock.NotFound):
                assert inspect.remove_if_abandoned(segment.name, data=True)


@pytest.mark.parametrize("program", [*ALONE, "close_before_reading", "fork_after"])
def test_each_handle_says_that_its_descriptor_was_closed(
    program: str, name: str, tmp_path: Path
) -> None:
    with running(program, name, tmp_path):
        pass
    collect(name)


def test_files_of_a_daemon_are_not_punched_nor_closed(name: str, tmp_path: Path) -> None:
    with running("issue", name, tmp_path):
        pass
    collect(name)


def test_a_consumer_that_lost_its_lock_gives_its_message_up(name: str, tmp_path: Path) -> None:
    with penstock.Queue.create(name, capacity="1MiB", slots=16) as queue:
        queue.put("one")
        with running("reaped_consumer", name, tmp_path) as program:
            hear(program, "lost")
            assert queue.get(timeout=WITHIN) == "one"
            queue.put("two")
            go_on(program)
        assert queue.get(timeout=0) == "two"
        stats = queue.stats()
        assert (stats.queued, stats.in_flight) == (0, 0)


def test_a_consumer_with_closed_descriptors_keeps_its_deliveries(name: str, tmp_path: Path) -> None:
    """Its mappings keep the lock: its deliveries are not returned before close()."""
    with penstock.Queue.create(name, capacity="1MiB", slots=16) as queue:
        queue.put("one")
        with running("kept_consumer", name, tmp_path) as program:
            hear(program, "lost")
            with pytest.raises(penstock.Timeout):
                queue.get(timeout=0.5)
            queue.put("two")
            go_on(program)
            hear(program, "holds")
            with pytest.raises(penstock.Timeout):
                queue.get(timeout=0.5)
            go_on(program)
        assert queue.get(timeout=WITHIN) == "two"


@pytest.mark.parametrize("program", ["reaped_reader", "reaped_reader_view"])
def test_a_reader_that_was_written_over_says_so(program: str, name: str, tmp_path: Path) -> None:
    with penstock.Broadcast.create(
        name, readers=1, capacity="64KiB", on_reader_death="drop"
    ) as writer:
        for _ in range(3):
            writer.send_bytes(bytes(8000))
        with running(program, name, tmp_path) as process:
            hear(process, "lost")
            for _ in range(20):
                writer.send_bytes(b"\xff" * 8000, timeout=WITHIN)
            go_on(process)


def test_a_writer_that_readers_found_dead_sends_no_more(name: str, tmp_path: Path) -> None:
    with running("reaped_writer", name, tmp_path) as program:
        hear(program, "made")
        with penstock.Broadcast.attach(name, rank=0) as reader:
            hear(program, "lost")
            assert reader.recv(timeout=WITHIN) == "accepted"
            with pytest.raises(penstock.PeerDied):
                reader.recv(timeout=WITHIN)
            go_on(program)
    collect(name)


def test_a_reservation_of_a_process_without_lock_is_freed(name: str, tmp_path: Path) -> None:
    with penstock.Store.create(name, capacity="1MiB") as store:
        with running("reaped_store", name, tmp_path) as program:
            hear(program, "lost")
            eventually(lambda: store.put("key", "the peer's"))
            go_on(program)
        assert store.get_copy("key") == "the peer's"
        assert store.stats().staged == 0


def test_a_pin_of_a_process_without_lock_holds_nothing(name: str, tmp_path: Path) -> None:
    with penstock.Store.create(name, capacity="1MiB") as store:
        store.put("key", bytes(600_000))
        with running("reaped_pin", name, tmp_path) as program:
            hear(program, "lost")
            with store.reserve("other", nbytes=600_000) as room:  # no room but the lost pin's
                room[:] = bytes(len(room))
            assert "key" not in store
            go_on(program)
        assert store.stats().in_use == 0


def test_a_rollout_of_a_process_without_lock_is_void(name: str, tmp_path: Path) -> None:
    with TrajectoryReader.create(name, sequences=2, capacity="1MiB", slots=16) as trainer:
        with running("reaped_environment", name, tmp_path) as program:
            hear(program, "lost")
            with pytest.raises(penstock.Timeout):
                trainer.next_batch(timeout=0.2)
            eventually(lambda: not trainer.stats().environments)
            go_on(program)
        assert trainer.stats().queue.queued == 0


def test_a_batch_of_a_process_without_lock_goes_to_another(name: str, tmp_path: Path) -> None:
    with (
        TrajectoryWriter.create(
            name, environment="math", group_size=2, capacity="1MiB", slots=16, max_staleness=None
        ) as writer,
        running("reaped_trainer", name, tmp_path) as program,
    ):
        with writer.begin(timeout=WITHIN) as rollout:
            rollout.put(closing_programs.group(11))
        hear(program, "lost")
        with TrajectoryReader.attach(name, sequences=2) as trainer:
            batch = trainer.next_batch(timeout=WITHIN)
            assert batch.redelivered == [True]
            batch.ack()
            go_on(program)


def test_an_old_handle_leaves_the_new_handles_descriptors_alone(name: str, tmp_path: Path) -> None:
    with running("attach_again", name, tmp_path) as program:
        hear(program, "lost")
        (segment,) = [one for one in inspect.list_segments() if one.name == name]
        alive = [one for one in segment.participants if one.alive]
        assert len(alive) == 1
        go_on(program)


def test_a_daemon_with_handles_of_before(name: str, tmp_path: Path) -> None:
    with running("daemonize", name, tmp_path) as program:
        outcome = tmp_path / "outcome"
        eventually(outcome.exists, within=2 * WITHIN)
        assert outcome.read_text() == "well"
        with penstock.Queue.attach(f"{name}.queue") as queue:
            assert queue.get(timeout=WITHIN) == "from the daemon"
        go_on(program)


@pytest.mark.skipif(bool(why_no_server), reason=why_no_server)
def test_a_connection_whose_socket_was_closed_is_made_anew(name: str, tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    try:
        with running("redis", name, tmp_path, server.path):
            pass
        assert server.say("EXISTS", "one").startswith(":")
    finally:
        server.kill()
