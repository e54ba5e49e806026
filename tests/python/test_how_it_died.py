"""How a peer died is said wherever a dead one is named: in PeerDied, by inspection, by the command;
in every concept, for a child of this process and for a stranger, reaped or not. What can't be known
is said to be unknown."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import platform
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from peers import WITHIN, eventually

import penstock
from penstock import Broadcast, Queue, Store, inspect
from penstock.trajectories import TrajectoryReader

PARKED = 0.3  # seconds; by then a wait's peers are watched
UNKNOWN = "how it ended is not known here: its exit status had been collected"


def tells_of_reaped() -> bool:
    """Whether the kernel tells how a process ended that was reaped since."""
    numbers = re.match(r"(\d+)\.(\d+)", platform.release())
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= (6, 15)


@dataclass(frozen=True)
class Ending:
    last_act: str
    words: str
    exit_code: int | None = None
    signal: int | None = None

    def is_told_by(self, told: Any) -> bool:
        """Whether the exception or the participant has it in its fields."""
        return (told.exit_code, told.signal) == (self.exit_code, self.signal)


KILLED = Ending(
    "os.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9 (SIGKILL)", signal=signal.SIGKILL
)
EXITED = Ending("os._exit(3)", "ended with exit code 3 without closing", exit_code=3)
ENDINGS = [pytest.param(KILLED, id="killed"), pytest.param(EXITED, id="exited")]

VICTIM = """
    import os, signal, sys, penstock, penstock.trajectories
    kept = {attach}
    print(os.getpid(), flush=True)
    sys.stdin.readline()
    {last_act}
"""
# Another parent, which reaps the victim at once.
PARENT = "import subprocess, sys; subprocess.run(sys.argv[1:], check=False)"


class Victim:
    """A process that holds a handle until it ends, as its ending says."""

    def __init__(self, attach: str, ending: Ending, *, is_stranger: bool = False) -> None:
        script = textwrap.dedent(VICTIM).format(attach=attach, last_act=ending.last_act)
        command = [sys.executable, "-c", script]
        if is_stranger:
            command = [sys.executable, "-c", PARENT, *command]
        self._is_stranger = is_stranger
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.pid = int(self._process.stdout.readline())

    def end(self) -> None:
        """Returns when it is dead: a zombie if it is a child of this process, else reaped."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        if self._is_stranger:
            self._process.wait(WITHIN)
        else:
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)

    def reap(self) -> None:
        """Also ends it, by force."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._process.communicate(timeout=WITHIN)


MakeVictim = Callable[..., Victim]


@pytest.fixture
def victim() -> Iterator[MakeVictim]:
    """Make victims, and end them."""
    made: list[Victim] = []

    def make(attach: str, ending: Ending, *, is_stranger: bool = False) -> Victim:
        made.append(Victim(attach, ending, is_stranger=is_stranger))
        return made[-1]

    yield make
    for one in made:
        one.reap()


def assert_named(death: penstock.PeerDied, who: Victim, ending: Ending) -> None:
    assert f"(pid {who.pid}, " in str(death)
    assert ending.words in str(death)
    assert death.pid == who.pid
    assert ending.is_told_by(death)


# ---- PeerDied


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_dead_writer_is_named_with_its_end(name: str, victim: MakeVictim, ending: Ending) -> None:
    writer = victim(f"penstock.Broadcast.create({name!r}, readers=2)", ending)
    with Broadcast.attach(name, rank=0) as reader:
        writer.end()
        with pytest.raises(penstock.PeerDied) as death:
            reader.recv(timeout=WITHIN)
        assert_named(death.value, writer, ending)
        assert death.value.rank is None
        writer.reap()
        for _ in range(2):  # it was noted
            with pytest.raises(penstock.PeerDied) as death:
                reader.recv(timeout=WITHIN)
            assert_named(death.value, writer, ending)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_dead_reader_is_named_with_its_end(name: str, victim: MakeVictim, ending: Ending) -> None:
    with Broadcast.create(name, readers=1) as writer:
        reader = victim(f"penstock.Broadcast.attach({name!r}, rank=0)", ending)
        writer.wait_ready(timeout=WITHIN)
        reader.end()
        assert ending.is_told_by(writer.readers()[0])
        assert writer.readers()[0].how_it_died == ending.words
        assert f", dead: {ending.words}, " in writer.readers()[0].describe()
        with pytest.raises(penstock.PeerDied) as death:
            writer.wait_ready(timeout=WITHIN)
        assert_named(death.value, reader, ending)
        assert death.value.rank == 0


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_death_that_a_replacement_found_is_named(
    name: str, victim: MakeVictim, ending: Ending
) -> None:
    with Broadcast.create(name, readers=1, capacity="64KiB") as writer:
        reader = victim(f"penstock.Broadcast.attach({name!r}, rank=0)", ending)
        writer.wait_ready(timeout=WITHIN)
        reader.end()
        with Broadcast.attach(name, rank=0) as replacement:
            reader.reap()

            def pass_many_messages() -> None:
                for _ in range(100):
                    writer.send_bytes(bytes(1000), timeout=WITHIN)
                    replacement.recv(timeout=WITHIN)

            with pytest.raises(penstock.PeerDied, match=re.escape(ending.words)) as death:
                pass_many_messages()
            assert death.value.pid == reader.pid
            assert ending.is_told_by(death.value)


@pytest.mark.skipif(not tells_of_reaped(), reason="needs Linux 6.15")
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_watched_stranger_is_named_although_it_was_reaped(
    name: str, victim: MakeVictim, ending: Ending
) -> None:
    attach = f"penstock.Broadcast.create({name!r}, readers=1)"
    writer = victim(attach, ending, is_stranger=True)
    with Broadcast.attach(name, rank=0) as reader:
        with pytest.raises(penstock.Timeout):
            reader.recv(timeout=PARKED)
        writer.end()
        with pytest.raises(penstock.PeerDied) as death:
            reader.recv(timeout=WITHIN)
        assert_named(death.value, writer, ending)


def test_an_end_that_can_not_be_known_is_said_to_be_unknown(name: str, victim: MakeVictim) -> None:
    attach = f"penstock.Broadcast.create({name!r}, readers=1)"
    writer = victim(attach, EXITED, is_stranger=True)
    with Broadcast.attach(name, rank=0) as reader:
        writer.end()
        with pytest.raises(penstock.PeerDied) as death:
            reader.recv(timeout=WITHIN)
        assert ") died; everything it had sent was received; " + UNKNOWN in str(death.value)
        assert death.value.pid == writer.pid
        assert (death.value.exit_code, death.value.signal) == (None, None)


def test_what_is_known_survives_pickling(name: str, victim: MakeVictim) -> None:
    writer = victim(f"penstock.Broadcast.create({name!r}, readers=1)", KILLED)
    with Broadcast.attach(name, rank=0) as reader:
        writer.end()
        with pytest.raises(penstock.PeerDied) as death:
            reader.recv(timeout=WITHIN)
    copy = pickle.loads(pickle.dumps(death.value))
    assert_named(copy, writer, KILLED)
    assert (penstock.PeerDied.pid, penstock.PeerDied.exit_code, penstock.PeerDied.signal) == (
        None,
        None,
        None,
    )


# ---- inspection, in every concept


@dataclass(frozen=True)
class Concept:
    create: Callable[[str], Any]
    attach: str  # in the victim; {name!r}
    find: Callable[[Any], object]  # the creator's call that finds the dead


def _find_in_broadcast(writer: penstock.BroadcastWriter) -> None:
    with contextlib.suppress(penstock.PeerDied):
        writer.wait_ready(timeout=WITHIN)


CONCEPTS = {
    "broadcast": Concept(
        lambda name: Broadcast.create(name, readers=1),
        "penstock.Broadcast.attach({name!r}, rank=0)",
        _find_in_broadcast,
    ),
    "queue": Concept(
        Queue.create,
        "penstock.Queue.attach({name!r})",
        lambda queue: queue.get(timeout=0.01),
    ),
    "store": Concept(
        lambda name: Store.create(name, capacity="1MiB"),
        "penstock.Store.attach({name!r})",
        lambda store: store.reap_dead(),
    ),
    "trajectories": Concept(
        lambda name: TrajectoryReader.create(name, sequences=1),
        "penstock.trajectories.TrajectoryWriter.attach({name!r})",
        lambda reader: reader.next_batch(timeout=0.01),
    ),
}


def look(find: Callable[[Any], object], handle: Any) -> None:
    with contextlib.suppress(penstock.Timeout):
        find(handle)


def assert_shown(one: penstock.Participant, who: Victim, ending: Ending) -> None:
    assert (one.slot, one.alive, one.pid) == (1, False, who.pid)
    assert one.attached_at > 0
    assert ending.is_told_by(one)
    assert one.how_it_died == ending.words


def command(*arguments: str) -> str:
    words = [sys.executable, "-m", "penstock.cli.main", *arguments]
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=WITHIN).stdout


@pytest.mark.parametrize("kind", CONCEPTS)
@pytest.mark.parametrize("ending", ENDINGS)
def test_inspection_names_the_dead_and_those_that_were_reaped(
    name: str, victim: MakeVictim, kind: str, ending: Ending
) -> None:
    concept = CONCEPTS[kind]
    with concept.create(name) as handle:
        dead = victim(concept.attach.format(name=name), ending)
        assert inspect.summarize(name).participants[1].how_it_died == ""
        dead.end()
        seen = inspect.summarize(name)
        assert_shown(seen.participants[1], dead, ending)
        assert seen.reaped == []
        look(concept.find, handle)
        dead.reap()
        seen = inspect.summarize(name)
        assert len(seen.participants) == 1
        assert_shown(seen.reaped[0], dead, ending)
        text = command("info", name)
        assert "died, and cleaned up after" in text
        assert f"pid {dead.pid}" in text
        assert ending.words in text
        (told,) = json.loads(command("info", name, "--json"))["reaped"]
        assert (told["life"], told["pid"]) == ("dead", dead.pid)
        assert (told["exit_code"], told["signal"]) == (ending.exit_code, ending.signal)
        assert told["how_it_died"] == ending.words


def test_the_command_names_the_dead_that_nobody_has_reaped(name: str, victim: MakeVictim) -> None:
    writer = victim(f"penstock.Broadcast.create({name!r}, readers=1)", KILLED)
    assert KILLED.words not in command("ls")
    writer.end()
    for shown in (command("ls"), command("info", name)):
        (line,) = [line for line in shown.splitlines() if f"pid {writer.pid} " in line]
        assert line.split()[0] == "dead"
        assert line.endswith(KILLED.words)
    writer.reap()
    (line,) = [line for line in command("ls").splitlines() if f"pid {writer.pid} " in line]
    assert UNKNOWN in line, "no participant was left to note it"
    assert inspect.remove_if_abandoned(name)


@pytest.mark.skipif(not tells_of_reaped(), reason="needs Linux 6.15")
def test_a_parked_consumer_knows_how_a_reaped_stranger_died(name: str, victim: MakeVictim) -> None:
    with Queue.create(name) as queue:
        dead = victim(f"penstock.Queue.attach({name!r})", KILLED, is_stranger=True)
        with pytest.raises(penstock.Timeout):
            queue.get(timeout=PARKED)
        dead.end()
        with pytest.raises(penstock.Timeout):
            queue.get(timeout=0.01)
        (reaped,) = eventually(lambda: inspect.summarize(name).reaped)
        assert_shown(reaped, dead, KILLED)
