"""One session: processes that use a segment through the whole Python API, and one that corrupts it.

    python corrupted_session.py KIND NAME SEED SECONDS

Exit code 0: every call returned in time, with a value or one of Penstock's errors. A call that
hangs shows where, and ends the session with code 1; another exception, or too much memory, ends it
with code 3.
"""

from __future__ import annotations

import collections
import contextlib
import faulthandler
import os
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from segment_corruptor import SegmentCorruptor

import penstock
from penstock import inspect
from penstock.trajectories import TrajectoryGroup, TrajectoryReader, TrajectoryWriter

BROKEN_PROMISE = 3
HANGS_AFTER = 40.0  # seconds: for calls whose own timeouts are below one, on a busy machine
LONGEST = 0.05  # of a call's own timeout
ADDRESS_SPACE = 6 << 30
RESIDENT = 700 << 20  # of a process, mostly Python and NumPy
SHM = Path("/dev/shm")

Act = Callable[[], Any]


def touch(value: Any) -> None:
    """Read all of it: arrays lie in memory that others write to."""
    if isinstance(value, np.ndarray):
        value.tobytes()
    elif isinstance(value, dict):
        touch(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            touch(item)


def fill(room: Any) -> None:
    room[:] = bytes(len(room))


def within(block: Any, use: Callable[[Any], object] = touch) -> None:
    with block as found:
        use(found)


class Role:
    """A participant that makes random calls, as often as it can."""

    def __init__(self, name: str, dice: random.Random) -> None:
        self.name = name
        self.dice = dice
        self._handle: Any = None

    def timeout(self) -> float:
        return self.dice.choice((0.0, 0.001, LONGEST))

    def value(self) -> Any:
        size = self.dice.choice((0, 1, 10, 1000, 30_000, 100_000))
        return self.dice.choice(
            (
                lambda: None,
                lambda: "é" * size,
                lambda: bytes(size),
                lambda: list(range(min(size, 500))),
                lambda: {"a": np.arange(size), "b": ("x", 1.5, {"c": [None]})},
                lambda: np.ones((2, size), np.float32),
            )
        )()

    def some_bytes(self) -> bytes:
        return bytes(self.dice.choice((0, 9, 9000, 90_000)))

    def handle(self) -> Any:
        if self._handle is None:
            self._handle = self.open()
        return self._handle

    def reopen(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()

    def look_on(self) -> None:
        """Inspect the segment without attaching."""
        inspect.list_segments()
        inspect.summarize(self.name)
        repr(inspect.inspect(self.name))
        inspect.remove_if_abandoned(self.name)

    def open(self) -> Any:
        raise NotImplementedError

    def acts(self) -> list[Act]:
        raise NotImplementedError

    def move_letters(self) -> None:
        for letter in self.handle().dead_letters(4):
            repr(letter)
            letter.content_bytes()
            touch(letter.content())
        self.dice.choice(
            (self.handle().requeue_dead_letters, self.handle().drop_dead_letters, lambda: 0)
        )()


class Writer(Role):
    def open(self) -> Any:
        try:
            return penstock.Broadcast.create(
                self.name, readers=2, capacity="64KiB", large="16MiB", on_reader_death="drop"
            )
        except penstock.AlreadyExists:
            return Reader(self.name, self.dice).open()

    def acts(self) -> list[Act]:
        it, timeout = self.handle(), self.timeout
        if isinstance(it, penstock.BroadcastReader):
            return Reader.acts(self)
        return [
            lambda: it.send(self.value(), timeout()),
            lambda: it.send(self.value(), timeout()),
            lambda: it.send_bytes(self.some_bytes(), 0),
            lambda: within(it.loan(self.dice.choice((1, 5000, 200_000)), timeout()), fill),
            lambda: it.wait_ready(timeout()),
            lambda: repr(it.readers()),
            lambda: repr(it.blocked_by()),
            lambda: repr((it.stats(), it)),
        ]


class Reader(Role):
    def open(self) -> Any:
        rank = self.dice.randrange(2)
        return penstock.Broadcast.attach(self.name, rank=rank, timeout=self.timeout())

    def acts(self) -> list[Act]:
        it, timeout = self.handle(), self.timeout
        return [
            lambda: touch(it.recv(timeout())),
            lambda: touch(it.recv(timeout())),
            lambda: within(it.recv_view(timeout())),
            lambda: it.recv_bytes(timeout()),
            lambda: it.recv_bytes_into(bytearray(100_000), timeout()),
            lambda: repr((it.stats(), it)),
        ]


class QueueUser(Role):
    def open(self) -> Any:
        with contextlib.suppress(penstock.AlreadyExists):
            return penstock.Queue.create(
                self.name, capacity="4MiB", slots=32, participants=8, max_deliveries=2
            )
        return penstock.Queue.attach(self.name)

    def acts(self) -> list[Act]:
        it, timeout = self.handle(), self.timeout

        def take_some(found: Any) -> None:
            touch(list(found))
            if self.dice.random() < 0.3:
                raise penstock.Cancelled("given back")

        return [
            lambda: it.put(self.value(), timeout()),
            lambda: it.put(self.value(), timeout()),
            lambda: it.put_bytes(self.some_bytes(), 0),
            lambda: it.put_many([self.value() for _ in range(3)], timeout()),
            lambda: touch(it.get(timeout())),
            lambda: touch(it.get(timeout())),
            lambda: within(it.get_view(timeout())),
            lambda: within(it.get_many(8, 1, timeout()), take_some),
            self.move_letters,
            it.requeue_dead_letters,
            it.drop_dead_letters,
            it.discard,
            lambda: len(it),
            lambda: repr((it.stats(), it)),
        ]


class StoreUser(Role):
    def open(self) -> Any:
        with contextlib.suppress(penstock.AlreadyExists):
            return penstock.Store.create(
                self.name,
                capacity="1MiB",
                objects=64,
                participants=8,
                eviction=self.dice.choice(("sieve", "fifo", "lru")),
            )
        return penstock.Store.attach(self.name)

    def key(self) -> str:
        return f"key-{self.dice.randrange(12)}"

    def acts(self) -> list[Act]:
        it, key, timeout = self.handle(), self.key, self.timeout

        def view() -> None:
            held = it.get(key(), None)
            if held is not None:
                within(held)

        def many() -> None:
            within(it.get_many([key() for _ in range(4)]))
            it.commit_many(it.reserve_many(["a", "b"], 1000))
            it.prefix_length(["a", "b"])

        def of_key() -> None:
            one = key()
            for act in (it.retain, it.touch, it.look, it.release, it.meta):
                act(one)

        def by_ref() -> None:
            held = it.get(key())
            ref = held.ref
            held.release()
            it.get_ref(ref).release()

        return [
            lambda: it.put(key(), self.value(), meta={"layer": 1}),
            lambda: it.put(key(), self.value()),
            lambda: it.put_bytes(key(), self.some_bytes()),
            lambda: touch(it.get_copy(key(), None)),
            view,
            lambda: within(it.wait(key(), timeout())),
            lambda: within(
                it.reserve(key(), shape=(3, 1000), dtype="float16"), lambda room: room.fill(1)
            ),
            lambda: within(it.reserve(key(), self.dice.choice((0, 100, 90_000))), fill),
            many,
            of_key,
            by_ref,
            lambda: key() in it,
            lambda: it.delete(key()),
            it.keys,
            it.trim,
            it.reap_dead,
            lambda: self.dice.random() < 0.2 and it.clear(),
            lambda: repr((it.stats(), it)),
        ]


class Trainer(Role):
    def open(self) -> Any:
        with contextlib.suppress(penstock.AlreadyExists):
            return TrajectoryReader.create(
                self.name, sequences=4, capacity="4MiB", slots=32, participants=8, max_deliveries=2
            )
        return TrajectoryReader.attach(self.name)

    def train(self) -> None:
        layout = self.dice.choice(("padded", "packed"))
        batch = self.handle().next_batch(layout=layout, timeout=self.timeout())
        touch([batch[column] for column in batch])
        touch([repr(group) for group in batch.groups])
        self.dice.choice((lambda: batch.ack(1), batch.nack, lambda: None))()

    def acts(self) -> list[Act]:
        it = self.handle()
        return [
            self.train,
            self.train,
            self.move_letters,
            lambda: it.load_state_dict(it.state_dict()),
            it.discard,
            lambda: repr((it.stats(), it, it.version)),
        ]


class Environment(Role):
    def open(self) -> Any:
        return TrajectoryWriter.attach(self.name, environment="math", timeout=self.timeout())

    def group(self) -> TrajectoryGroup:
        lengths = [self.dice.randrange(1, 400) for _ in range(self.dice.randrange(1, 4))]
        tokens = [np.arange(length, dtype=np.int32) for length in lengths]
        return TrajectoryGroup(tokens, masks=tokens, scores=[1.0] * len(lengths))

    def acts(self) -> list[Act]:
        it, timeout = self.handle(), self.timeout

        def put(rollout: Any) -> None:
            rollout.put(self.group(), timeout())

        return [
            lambda: within(it.begin(timeout()), put),
            lambda: within(it.begin(timeout()), put),
            lambda: it.put(self.group(), timeout()),
            it.credit,
            lambda: repr((it.stats(), it, it.version)),
        ]


KINDS: dict[str, tuple[type[Role], ...]] = {
    "broadcast": (Writer, Reader),
    "queue": (QueueUser, QueueUser),
    "store": (StoreUser, StoreUser),
    "trajectories": (Trainer, Environment),
}


def work(role: Role, end: float) -> collections.Counter[str]:
    """Count the results of the calls by error. A call that hangs shows where, and ends the
    process."""
    armed_at = -1.0
    outcomes: collections.Counter[str] = collections.Counter()
    while (now := time.monotonic()) < end:
        if now - armed_at > 0.5:  # each call starts a thread
            armed_at = now
            faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
        try:
            if role.dice.random() < 0.03:
                role.reopen()
            elif role.dice.random() < 0.05:
                role.look_on()
            else:
                role.dice.choice(role.acts())()
            outcomes["done"] += 1
        except penstock.Error as error:
            outcomes[type(error).__name__] += 1
            # A handle stays damaged: attach or create anew.
            if not isinstance(error, penstock.Timeout) and role.dice.random() < 0.3:
                with contextlib.suppress(penstock.Error):
                    role.reopen()
    faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
    with contextlib.suppress(penstock.Error):
        role.reopen()
    return outcomes


def run_role(role: Role, end: float) -> int:
    """The exit code of a process with this role."""
    faulthandler.enable()
    warnings.simplefilter("ignore")  # of replaced segments
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    try:
        outcomes = work(role, end)
        print(f"{type(role).__name__}: {dict(outcomes)}", flush=True)
    except BaseException:
        traceback.print_exc()
        return BROKEN_PROMISE
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    if resident > RESIDENT:
        print(f"{resident >> 20} MiB of memory", file=sys.stderr)
        return BROKEN_PROMISE
    return 0


def corrupt(name: str, dice: random.Random, end: float) -> int:
    """Corrupt segments of that name, one after another, as they come and go."""
    faulthandler.enable()
    path = SHM / f"penstock.{name}"
    while time.monotonic() < end:
        try:
            corruptor = SegmentCorruptor(path, dice)
        except (OSError, ValueError):  # not there yet, or gone
            time.sleep(0.001)
            continue
        corruptor.run(min(end, time.monotonic() + 0.5))
        corruptor.close()
    return 0


def spawn(body: Callable[[], int]) -> int:
    pid = os.fork()
    if pid == 0:
        signal.alarm(600)
        code = BROKEN_PROMISE
        try:
            code = body()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return pid


def main() -> NoReturn:
    kind, name, seed, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    end = time.monotonic() + seconds
    roles = KINDS[kind]
    children = [
        spawn(
            lambda number=number, role=role: run_role(  # type: ignore[misc]
                role(name, random.Random(f"{seed} {number}")), end
            )
        )
        for number, role in enumerate(roles)
    ]
    children.append(spawn(lambda: corrupt(name, random.Random(f"{seed} corruptor"), end)))
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    if any(codes):
        print(f"{kind}, seed {seed}: exit codes {codes}", file=sys.stderr)
    sys.exit(next((abs(code) for code in codes if code), 0))


if __name__ == "__main__":
    main()
