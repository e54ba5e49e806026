"""The users whose segments are attached to, replaced and unpickled; and that inspecting another
user's segment does no harm, whatever that user does with the file."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pwd
import select
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from peers import WITHIN, run_script

import penstock
from penstock import Broadcast, Queue, Store, inspect
from penstock.handle import Handle
from penstock.integrations.atropos import ZeroCopySHMBuffer
from penstock.integrations.lmcache import PoolClient, PoolServer
from penstock.trajectories import TrajectoryReader, TrajectoryWriter

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make another user's files")

STRANGER = 65534
KINDS: dict[str, str] = {
    "broadcast": 'penstock.Broadcast.create(name, readers=1, large="1MiB")',
    "queue": "penstock.Queue.create(name)",
    "store": "penstock.Store.create(name, persistent=True)",
    "trajectories": "penstock.trajectories.TrajectoryReader.create(name, sequences=1)",
}
# Each way of attaching, and what must exist for it.
ATTACH: dict[str, tuple[str, Callable[..., Any]]] = {
    "broadcast": (
        KINDS["broadcast"],
        lambda name, **options: Broadcast.attach(name, rank=0, **options),
    ),
    "queue": (KINDS["queue"], Queue.attach),
    "consumer": (
        KINDS["queue"],
        lambda name, **options: Queue.attach(name, role="consumer", **options),
    ),
    "store": (KINDS["store"], Store.attach),
    "trainer": (KINDS["trajectories"], TrajectoryReader.attach),
    "environment": (KINDS["trajectories"], TrajectoryWriter.attach),
    "pool": (
        'penstock.integrations.lmcache.PoolServer.open(name, capacity="1MiB")',
        PoolClient.attach,
    ),
    "buffer": (
        "penstock.integrations.atropos.ZeroCopySHMBuffer(name, 4, 8, create=True)",
        lambda name, timeout=0, **options: ZeroCopySHMBuffer(name, **options),
    ),
}


def path_of(name: str) -> Path:
    return Path(f"/dev/shm/penstock.{name}")


class Stranger:
    """A process of another user. Its script has `name`, and prints "ready"."""

    def __init__(self, script: str, name: str) -> None:
        head = f"""
import fcntl, os, sys, time
import penstock, penstock.trajectories
import penstock.integrations.atropos, penstock.integrations.lmcache
os.setgid({STRANGER}); os.setuid({STRANGER})
name = sys.argv[1]
path = f"/dev/shm/penstock.{{name}}"
def ready():
    print("ready", flush=True)
def wait():
    sys.stdin.readline()
"""
        self._process = subprocess.Popen(
            [sys.executable, "-c", head + textwrap.dedent(script), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def await_ready(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def stranger(name: str) -> Iterator[Callable[[str], Stranger]]:
    """Make processes of another user, and end them with all that they left under the name."""
    made: list[Stranger] = []

    def make(script: str) -> Stranger:
        made.append(Stranger(script, name))
        return made[-1]

    yield make
    for one in made:
        one.kill()
    path_of(name).unlink(missing_ok=True)


def holding(what: str) -> str:
    return f"held = {what}\nready()\nwait()"


def assert_refused(error: pytest.ExceptionInfo[penstock.PermissionDenied], name: str) -> None:
    sentence = str(error.value)
    for words in (name, "belongs to another user, uid 65534", "owner=65534", "run as the user"):
        assert words in sentence, sentence


@pytest.mark.parametrize("way", ATTACH)
def test_another_users_is_refused_at_once_and_had_by_owner(
    way: str, name: str, stranger: Callable[[str], Stranger]
) -> None:
    make, attach = ATTACH[way]
    stranger(holding(make)).await_ready()
    began = time.monotonic()
    with pytest.raises(penstock.PermissionDenied) as error:
        attach(name, timeout=10 * WITHIN)
    assert time.monotonic() - began < WITHIN, "a stranger's file is no reason to wait"
    assert_refused(error, name)
    for owner in (STRANGER, str(STRANGER), pwd.getpwuid(STRANGER).pw_name):
        attach(name, owner=owner).close()
    with pytest.raises(penstock.PermissionDenied):
        attach(name, owner=STRANGER - 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_handle_names_a_segment_and_grants_no_trust(
    kind: str, name: str, stranger: Callable[[str], Stranger]
) -> None:
    _, attach = ATTACH[{"trajectories": "trainer"}.get(kind, kind)]
    script = f"held = {KINDS[kind]}\nprint(held.handle.instance, flush=True)\nwait()"
    one = stranger(script)
    assert one._process.stdout is not None
    handle = Handle(name, one._process.stdout.readline().strip())
    with pytest.raises(penstock.PermissionDenied) as error:
        attach(handle)
    assert_refused(error, name)
    attach(handle, owner=STRANGER).close()


@pytest.mark.parametrize("is_async", [False, True], ids=["thread", "task"])
def test_a_wait_for_a_name_does_not_end_with_another_users_segment(
    is_async: bool, name: str, stranger: Callable[[str], Stranger]
) -> None:
    squatter = stranger(f"ready()\nwait()\nheld = {KINDS['broadcast']}\nwait()")
    squatter.await_ready()

    async def wait_in_a_task() -> None:
        waiting = asyncio.create_task(Broadcast.attach_async(name, 0, timeout=10 * WITHIN))
        await asyncio.sleep(0)  # it has looked once
        squatter.go_on()
        await waiting

    def wait() -> None:
        squatter.go_on()
        Broadcast.attach(name, rank=0, timeout=10 * WITHIN)

    began = time.monotonic()
    with pytest.raises(penstock.PermissionDenied) as error:
        asyncio.run(wait_in_a_task()) if is_async else wait()
    assert time.monotonic() - began < 5 * WITHIN
    assert_refused(error, name)


BOMB = """
class Bomb:
    def __reduce__(self):
        return (exec, (f"open('/dev/shm/ran-{name}', 'w')",))
"""
PICKLES = {
    "broadcast": (
        'held = penstock.Broadcast.create(name, readers=1, codec="pickle"); held.send(Bomb())',
        lambda handle, **options: Broadcast.attach(handle, rank=0, **options).recv(timeout=0),
    ),
    "queue": (
        'held = penstock.Queue.create(name, codec="pickle"); held.put(Bomb())',
        lambda handle, **options: Queue.attach(handle, **options).get(timeout=0),
    ),
    "store": (
        'held = penstock.Store.create(name, codec="pickle"); held.put("key", Bomb())',
        lambda handle, **options: Store.attach(handle, **options).get_copy("key"),
    ),
}


@pytest.mark.parametrize("owner", [None, STRANGER], ids=["plain", "owner"])
@pytest.mark.parametrize("kind", PICKLES)
def test_another_users_pickle_is_never_read(
    kind: str, owner: int | None, name: str, stranger: Callable[[str], Stranger]
) -> None:
    put, take = PICKLES[kind]
    trace = Path(f"/dev/shm/ran-{name}")
    stranger(f"{BOMB}\n{put}\nready()\nwait()").await_ready()
    try:
        with pytest.raises(penstock.PermissionDenied) as error:
            take(name, codec="pickle", owner=owner, timeout=WITHIN)
        assert not trace.exists(), "a stranger's code was run"
    finally:
        trace.unlink(missing_ok=True)
    if owner is not None:
        for words in ("would run that user's code", "without codec='pickle'", "uid 65534"):
            assert words in str(error.value)
        with pytest.raises(penstock.Incompatible, match="pickle"):
            take(name, owner=owner)


@pytest.mark.parametrize("kind", KINDS)
def test_a_squatted_name_is_neither_taken_nor_joined(
    kind: str, name: str, stranger: Callable[[str], Stranger]
) -> None:
    squatter = stranger(f"held = {KINDS[kind]}\nready()\nwait()")
    squatter.await_ready()
    squatter.kill()  # the segment has no participant any more
    before = path_of(name).stat().st_ino
    creates = {
        "broadcast": lambda **options: Broadcast.create(name, readers=1, **options),
        "queue": lambda **options: Queue.create(name, **options),
        "store": lambda **options: Store.create(name, **options),
        "trajectories": lambda **options: TrajectoryReader.create(name, sequences=1, **options),
    }
    for create in creates.values():
        with pytest.raises(penstock.PermissionDenied) as error:
            create()
        assert_refused(error, name)
        assert f"the name is taken by {path_of(name)}" in str(error.value)
    assert path_of(name).stat().st_ino == before
    with contextlib.ExitStack() as stack:
        if kind == "store":  # persistent, but empty
            with pytest.raises(penstock.AlreadyExists):
                Queue.create(name, owner=STRANGER)
        stack.enter_context(creates[kind](owner=STRANGER))
        assert path_of(name).stat().st_uid == 0


def test_a_pool_of_a_strangers_is_not_taken_over(
    name: str, stranger: Callable[[str], Stranger]
) -> None:
    stranger(holding(ATTACH["pool"][0])).await_ready()
    with pytest.raises(penstock.PermissionDenied) as error:
        PoolServer.open(name, capacity="1MiB")
    assert_refused(error, name)
    PoolServer.open(name, capacity="1MiB", owner=STRANGER).close()


def test_the_rule_is_one_for_every_user(name: str) -> None:
    """Root's segment, made accessible by its mode, and a user who does or does not trust root."""
    script = """
import os, sys
import penstock
os.setgid(65534); os.setuid(65534)
for owner in (None, "root", 0):
    try:
        penstock.Queue.attach(sys.argv[1], owner=owner).put(1)
        print("attached")
    except penstock.PermissionDenied as error:
        print(error)
"""
    with Queue.create(name) as queue:
        path_of(name).chmod(0o666)
        refused, *attached = run_script(script, name).stdout.splitlines()
        assert "belongs to another user, uid 0 (root)" in refused
        assert "owner=0" in refused
        assert attached == ["attached", "attached"]
        assert [queue.get(timeout=0), queue.get(timeout=0)] == [1, 1]


def test_a_forked_child_trusts_whom_its_parent_trusted(
    name: str, stranger: Callable[[str], Stranger]
) -> None:
    stranger(holding(KINDS["queue"])).await_ready()
    with Queue.attach(name, owner=STRANGER) as queue:
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                queue.put("from the child")
                code = 0
            os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert queue.get(timeout=WITHIN) == "from the child"


@pytest.mark.parametrize(
    ("owner", "words"),
    [
        ("no-such-user", "there is no user 'no-such-user'"),
        ("", "there is no user ''"),
        (-1, "owner is -1"),
        (1 << 32, "there is no user '4294967296'"),
        ((1 << 32) - 1, "there is no user '4294967295'"),
        (True, "owner must be a user's name or number, not True"),
        (1.5, "owner must be a user's name or number, not 1.5"),
    ],
)
def test_an_owner_is_a_user(owner: Any, words: str, name: str) -> None:
    for attach in (
        lambda: Broadcast.attach(name, rank=0, owner=owner),
        lambda: Queue.attach(name, owner=owner),
        lambda: Store.attach(name, owner=owner),
        lambda: TrajectoryReader.attach(name, owner=owner),
        lambda: TrajectoryWriter.attach(name, owner=owner),
        lambda: Queue.create(name, owner=owner),
        lambda: Store.create(name, owner=owner),
        lambda: Broadcast.create(name, readers=1, owner=owner),
    ):
        with pytest.raises(penstock.InvalidArgument) as error:
            attach()
        assert words in str(error.value)


# --- squatters against other processes -----------------------------------------------------------


@pytest.mark.parametrize(
    "trap",
    [
        # Every lock, so that a joining process would wait.
        "file = os.open(path, os.O_RDWR); fcntl.lockf(file, fcntl.LOCK_EX)",
        # A lease: an open of the file would wait for its end, for 45 s.
        "file = os.open(path, os.O_RDWR); fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)",
    ],
    ids=["locks", "lease"],
)
def test_a_squatter_blocks_no_caller(
    trap: str, name: str, stranger: Callable[[str], Stranger]
) -> None:
    # A break of the lease is a signal, which by default ends its holder.
    script = f"""
import signal
signal.signal(signal.SIGIO, signal.SIG_IGN)
open(path, "wb").write(bytes(8192))
{trap}
ready()
wait()
"""
    stranger(script).await_ready()
    began = time.monotonic()
    with pytest.raises((penstock.PermissionDenied, penstock.Busy)) as error:
        Queue.attach(name, timeout=10 * WITHIN)
    assert any(words in str(error.value) for words in ("another user", "has a lease on the file"))
    with pytest.raises(penstock.Error):
        Queue.create(name)
    with pytest.raises(penstock.Error):
        inspect.inspect(name)
    inspect.list_segments()
    assert time.monotonic() - began < WITHIN


def test_a_planted_fifo_is_never_opened(name: str) -> None:
    os.mkfifo(path_of(name))
    reading = os.open(path_of(name), os.O_RDONLY | os.O_NONBLOCK)
    try:
        for look in (
            lambda: Broadcast.attach(name, rank=0, timeout=WITHIN),
            lambda: Queue.create(name),
            lambda: inspect.inspect(name),
            lambda: inspect.remove_if_abandoned(name),
        ):
            with pytest.raises(penstock.Error, match="not a regular file"):
                look()
        inspect.list_segments()
        told = select.poll()
        told.register(reading, select.POLLIN)
        assert told.poll(0) == [], "it was opened for writing, and closed again"
    finally:
        os.close(reading)
        path_of(name).unlink()


# With megabytes of statistics, so that an inspection takes a while.
LARGE: dict[str, str] = {
    "broadcast": 'penstock.Broadcast.create(name, readers=1, large="32GiB")',
    "queue": "penstock.Queue.create(name, slots=1 << 16)",
    "store": "penstock.Store.create(name, objects=1 << 16)",
    "trajectories": (
        "penstock.trajectories.TrajectoryReader.create(name, sequences=1, slots=1 << 16)"
    ),
}
FLIP = """
held = {make}
with open(path, "rb") as file:
    whole = os.fstat(file.fileno()).st_size
    front = file.read(1 << 16)
file = os.open(path, os.O_RDWR)
ready()
while True:
    os.ftruncate(file, 0)
    os.pwrite(file, front, 0)
    os.ftruncate(file, whole)
"""
LOOK = """
import sys, time
import penstock
from penstock import inspect
from penstock.cli import main
name = sys.argv[1]
looks = (
    lambda: inspect.list_segments(),
    lambda: inspect.summarize(name),
    lambda: inspect.inspect(name),
    lambda: penstock.Queue.create(name),
    lambda: penstock.Broadcast.attach(name, rank=0),
)
told = set()
for _ in range(100):
    for look in looks:
        try:
            look()
        except penstock.Error as error:
            told.add(type(error).__name__)
for command in (["ls"], ["info", name], ["gc", "--dry-run"], ["ls", "--json"]):
    main.main(command)
print(sorted(told), file=sys.stderr)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_truncating_a_file_harms_no_inspection(
    kind: str, name: str, stranger: Callable[[str], Stranger]
) -> None:
    stranger(FLIP.format(make=LARGE[kind])).await_ready()
    outcome = run_script(LOOK, name)  # which ends by no signal
    assert outcome.returncode == 0, outcome.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_root_still_sees_another_users_segment_whole(
    kind: str, name: str, stranger: Callable[[str], Stranger]
) -> None:
    one = stranger(holding(KINDS[kind]))
    one.await_ready()
    summary = inspect.summarize(name)
    assert summary.owner == STRANGER
    assert not summary.is_abandoned()
    assert [each.alive for each in summary.participants] == [True]
    info = inspect.inspect(name)
    assert info.segment == summary  # type: ignore[union-attr]
    script = "import sys; from penstock.cli import main; main.main(sys.argv[1:])"
    [listed] = [
        each
        for each in json.loads(run_script(script, "ls", "--json").stdout)
        if each["name"] == name
    ]
    assert listed["owner"] == STRANGER
    assert listed["condition"] == "live"
    assert "of uid 65534" in run_script(script, "ls").stdout
    assert not inspect.remove_if_abandoned(name)
    one.kill()
    assert inspect.summarize(name).is_abandoned()
    assert inspect.remove_if_abandoned(name, data=True)
    assert not path_of(name).exists()


def test_another_users_abandoned_data_is_kept(
    name: str, stranger: Callable[[str], Stranger]
) -> None:
    one = stranger("held = penstock.Queue.create(name)\nfor i in range(7): held.put(i)\nready()")
    one.await_ready()
    one.kill()
    assert inspect.summarize(name).kept.messages == 7
    assert not inspect.remove_if_abandoned(name)
    assert path_of(name).exists()
    with Queue.attach(name, owner=STRANGER) as queue:
        assert [queue.get(timeout=0) for _ in range(7)] == list(range(7))


# --- descriptors ---------------------------------------------------------------------------------


def test_an_anonymous_file_that_could_shrink_is_refused() -> None:
    with Broadcast.create(None, readers=1, capacity=4096, large=0) as writer:
        own = writer.handle
        assert fcntl.fcntl(own.fileno(), fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
        with pytest.raises(OSError, match="not permitted"):
            os.ftruncate(own.fileno(), 0)
        whole = os.pread(own.fileno(), os.fstat(own.fileno()).st_size, 0)
        planted = os.memfd_create("planted", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.pwrite(planted, whole, 0)
        handle = Handle("", own.instance, planted)
        with pytest.raises(penstock.Incompatible, match="not sealed against shrinking") as error:
            Broadcast.attach(handle, rank=0)
        assert "SIGBUS" in str(error.value)
        fcntl.fcntl(planted, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        with contextlib.suppress(penstock.PeerDied):  # its writer holds no lock of this file
            Broadcast.attach(handle, rank=0).close()
        Broadcast.attach(own, rank=0).close()


def test_a_descriptor_of_another_users_is_refused() -> None:
    with Broadcast.create(None, readers=1, capacity=4096, large=0) as writer:
        handle = writer.handle
        os.fchown(handle.fileno(), STRANGER, STRANGER)
        with pytest.raises(penstock.PermissionDenied, match="another user, uid 65534"):
            Broadcast.attach(handle, rank=0)
        with pytest.raises(penstock.PermissionDenied, match="would run that user's code"):
            Broadcast.attach(handle, rank=0, owner=STRANGER, codec="pickle")
        Broadcast.attach(handle, rank=0, owner=STRANGER).close()


# --- the command ---------------------------------------------------------------------------------


def test_commands_that_attach_take_an_owner(name: str, stranger: Callable[[str], Stranger]) -> None:
    stranger(holding(KINDS["queue"])).await_ready()
    script = "import sys; from penstock.cli import main; sys.exit(main.main(sys.argv[1:]))"
    refused = run_script(script, "dead", name)
    assert refused.returncode == 1
    assert "PermissionDenied" in refused.stderr
    assert "belongs to another user, uid 65534" in refused.stderr
    allowed = run_script(script, "dead", name, "--owner", str(STRANGER))
    assert allowed.returncode == 0, allowed.stderr
    assert "has no dead letters" in allowed.stdout
    unknown = run_script(script, "dead", name, "--owner", "no-such-user")
    assert unknown.returncode == 1
    assert "there is no user 'no-such-user'" in unknown.stderr
    for command in (["recv", name], ["trajectories", "serve", "--queue", name, "--port", "0"]):
        assert "--owner" in run_script(script, *command, "--help").stdout
