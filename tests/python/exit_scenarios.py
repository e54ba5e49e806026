"""Programs that end in every way with a handle open, for `test_exit.py`: each is a forked child of
an interpreter that has imported everything, and ends as an interpreter of its own.

A program makes the handle of one concept, has a peer wait at the other end until it is Closed, and
ends. The error that the peer got is written to a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import penstock
from penstock.trajectories import TrajectoryReader, TrajectoryWriter

LONG = 200.0
NO_SERVER = penstock.SecondTier("redis://127.0.0.1:1", policy="read_only")


# The other end: waits until it gets an error, and returns its name.


def read(handle: Any, joined: Callable[[], None]) -> str:
    reader = penstock.Broadcast.attach(handle, rank=0, timeout=LONG)
    joined()
    while True:
        reader.recv(timeout=LONG)


def write(handle: str, joined: Callable[[], None]) -> str:
    with penstock.Broadcast.create(handle, readers=1, capacity="64KiB") as writer:
        writer.wait_ready(timeout=LONG)
        joined()
        while writer.readers()[0].life == "active":
            with contextlib.suppress(penstock.Timeout):
                writer.send_bytes(bytes(1000), timeout=0.05)
    raise penstock.Closed("the reader left in good order")


def get(handle: Any, joined: Callable[[], None]) -> str:
    queue = penstock.Queue.attach(handle)
    joined()
    while True:
        queue.get(timeout=LONG)


def train(handle: Any, joined: Callable[[], None]) -> str:
    reader = TrajectoryReader.attach(handle, sequences=4)
    joined()
    while True:
        reader.next_batch(timeout=LONG)


def roll_out(handle: Any, joined: Callable[[], None]) -> str:
    writer = TrajectoryWriter.attach(handle, environment="other", group_size=4)
    joined()
    rollouts = []
    while True:
        rollouts.append(writer.begin(timeout=LONG))


def look_up(handle: Any, joined: Callable[[], None]) -> str:
    store = penstock.Store.attach(handle)
    joined()
    with store.wait("key", timeout=LONG) as found:
        assert found == 7
    raise penstock.Closed("it was there")


Peer = Callable[[Any, Callable[[], None]], str]


def tell(outcome: str, peer: Peer, handle: Any) -> None:
    """Run a peer in a process or thread of its own, and note the error that it got."""
    with open(outcome, "a") as file:
        try:
            peer(handle, Path(f"{outcome}.joined").touch)
        except penstock.Error as error:
            file.write(f"{type(error).__name__}\n")
        except BaseException as error:
            file.write(repr(error) + "\n")


# The program's handle, and a way to give its peer something to wait for.


def make_writer(name: str) -> tuple[Any, Any, Callable[[], None]]:
    writer = penstock.Broadcast.create(name, readers=1)

    def begin() -> None:
        writer.wait_ready(timeout=LONG)
        writer.send("something")

    return writer, writer.handle, begin


def make_queue(name: str) -> tuple[Any, Any, Callable[[], None]]:
    queue = penstock.Queue.create(name, capacity="1MiB", slots=16)
    return queue, queue.handle, lambda: queue.put("something", timeout=LONG)


def make_trainer(name: str) -> tuple[Any, Any, Callable[[], None]]:
    reader = TrajectoryReader.create(name, sequences=4, capacity="1MiB", slots=16)
    return reader, reader.handle, lambda: None


def make_environment(name: str) -> tuple[Any, Any, Callable[[], None]]:
    writer = TrajectoryWriter.create(
        name, environment="math", group_size=4, capacity="1MiB", slots=16
    )
    return writer, writer.handle, lambda: None


def make_store(name: str) -> tuple[Any, Any, Callable[[], None]]:
    store = penstock.Store.create(name, capacity="1MiB")
    return store, store.handle, lambda: store.put("key", 7) and None


def make_tiered(name: str) -> tuple[Any, Any, Callable[[], None]]:
    store = penstock.Store.create(name, capacity="1MiB", second_tier=NO_SERVER)
    return store, store.handle, lambda: store.put("key", 7) and None


def make_reader(name: str) -> tuple[Any, Any, Callable[[], None]]:
    """The reverse: the peer creates, and waits for the program's reader."""
    return [], name, lambda: None


CONCEPTS: dict[str, tuple[Callable[[str], tuple[Any, Any, Any]], Peer]] = {
    "writer": (make_writer, read),
    "reader": (make_reader, write),
    "queue": (make_queue, get),
    "trainer": (make_trainer, roll_out),
    "environment": (make_environment, train),
    "store": (make_store, look_up),
    "tiered": (make_tiered, look_up),
}

kept: list[Any] = []  # by the program, until its end


def run(concept: str, peer: str, method: str, imports: str, name: str, outcome: str) -> None:
    """A whole program, except its end."""
    make, other_end = CONCEPTS[concept]
    if imports == "before":
        import multiprocessing.util  # noqa: F401
    handle, address, begin = make(name)
    kept.append(handle)
    start(peer, method, (outcome, other_end, address))
    if concept == "reader":
        kept.append(penstock.Broadcast.attach(name, rank=0, timeout=LONG))
    while not Path(f"{outcome}.joined").exists():
        time.sleep(0.01)
    begin()


def start(peer: str, method: str, arguments: tuple[Any, ...]) -> None:
    if peer == "process":
        from multiprocessing import get_context

        get_context(method).Process(target=tell, args=arguments).start()
    elif peer == "process_pool":
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        kept.append(ProcessPoolExecutor(1, mp_context=get_context(method)))
        kept[-1].submit(tell, *arguments)
    elif peer == "pools":  # a pool of idle threads beside it
        from concurrent.futures import ThreadPoolExecutor

        kept.append(ThreadPoolExecutor(1))
        kept[-1].submit(int).result()
        start("process_pool", method, arguments)
    elif peer == "thread":
        threading.Thread(target=tell, args=arguments).start()
    elif peer == "thread_pool":
        from concurrent.futures import ThreadPoolExecutor

        kept.append(ThreadPoolExecutor(1))
        kept[-1].submit(tell, *arguments)
    elif peer == "child":  # a process whose child waits for it
        from multiprocessing import get_context

        nested = (*arguments[:2], arguments[2])
        get_context(method).Process(target=start, args=("process", method, nested)).start()
    else:
        raise AssertionError(peer)


# Programs whose daemon threads are inside a call when the program ends: they never return.


def stay() -> None:
    """Stay in a block until the process ends."""
    inside.set()
    threading.Event().wait()


inside = threading.Event()


def waits(call: Callable[..., Any], *arguments: Any, **options: Any) -> Callable[[], None]:
    def work() -> None:
        inside.set()  # the closest point: its wait never ends
        call(*arguments, **options)

    return work


def holds(enter: Callable[[], Any]) -> Callable[[], None]:
    def work() -> None:
        with enter() as thing:
            kept_by_thread = thing  # noqa: F841
            stay()

    return work


def store_of(name: str, is_tiered: bool) -> Any:
    second_tier = NO_SERVER if is_tiered else None
    store = penstock.Store.create(name, capacity="1MiB", second_tier=second_tier)
    store.put("there", bytes(100_000))
    kept.append(store)
    return store


def ring_of(name: str) -> tuple[Any, Any]:
    writer = penstock.Broadcast.create(name, readers=1, capacity="64KiB")
    reader = penstock.Broadcast.attach(name, rank=0)
    kept.extend((writer, reader))
    return writer, reader


def queue_of(name: str, messages: int = 0) -> Any:
    queue = penstock.Queue.create(name, capacity="1MiB", slots=4)
    kept.append(queue)
    for _ in range(messages):
        queue.put(bytes(5000), timeout=LONG)
    return queue


def trajectories_of(name: str) -> tuple[Any, Any]:
    from penstock.trajectories import TrajectoryGroup

    trainer = TrajectoryReader.create(name, sequences=2, capacity="1MiB", slots=16)
    environment = TrajectoryWriter.attach(name, environment="math", group_size=2)
    kept.extend((trainer, environment))
    with environment.begin(timeout=LONG) as rollout:
        rollout.put(TrajectoryGroup([[1, 2], [3]], masks=[[1, 1], [1]], scores=[0.0, 1.0]))
    return trainer, environment


def receive_view(name: str) -> Callable[[], None]:
    writer, reader = ring_of(name)
    writer.send_bytes(bytes(1000))
    return holds(lambda: reader.recv_view(timeout=LONG))


def receive_large_view(name: str) -> Callable[[], None]:
    import numpy as np

    writer, reader = ring_of(name)
    writer.send(np.zeros(100_000))

    def work() -> None:
        with reader.recv_view(timeout=LONG) as array:
            kept_array = array
        stay()
        del kept_array

    return work


def begin_in_vain(name: str) -> Callable[[], None]:
    trainer, environment = trajectories_of(name)
    trainer.next_batch(timeout=LONG).ack(step=1)

    def work() -> None:
        rollouts = []
        while True:
            inside.set()
            rollouts.append(environment.begin())

    return work


def wait_for_more(name: str) -> Callable[[], None]:
    trainer, _ = trajectories_of(name)
    trainer.next_batch(timeout=LONG).ack(step=1)
    return waits(trainer.next_batch)


def hold_rollout(name: str) -> Callable[[], None]:
    trainer, environment = trajectories_of(name)
    trainer.next_batch(timeout=LONG).ack(step=1)
    return holds(lambda: environment.begin(timeout=LONG))


def hold_batch(name: str) -> Callable[[], None]:
    trainer, _ = trajectories_of(name)

    def work() -> None:
        batch = trainer.next_batch(timeout=LONG)
        stay()
        batch.ack(step=1)

    return work


def wait_in_a_loop(name: str) -> Callable[[], None]:
    import asyncio

    queue = queue_of(name)
    return waits(lambda: asyncio.run(queue.get_async()))


def nothing_in_a_thread(name: str) -> Callable[[], None]:
    """A view referenced only by a cycle: not even the end of the interpreter frees it."""
    store = store_of(name, False)
    view = store.get("there")
    cycle: list[Any] = [view, view.__enter__()]
    cycle.append(cycle)
    kept.append(cycle)
    return stay


DAEMONS: dict[str, Callable[[str], Callable[[], None]]] = {
    "store waits": lambda name: waits(store_of(name, False).wait, "never"),
    "store reads": lambda name: holds(lambda: store_of(name, False).get("there")),
    "store writes": lambda name: holds(lambda: store_of(name, False).reserve("new", "100KiB")),
    "store writes a tensor": lambda name: holds(
        lambda: store_of(name, False).reserve("new", shape=(9, 9), dtype="float32")
    ),
    "store, a cycle": nothing_in_a_thread,
    "tiered store waits": lambda name: waits(store_of(name, True).wait, "never"),
    "tiered store reads": lambda name: holds(lambda: store_of(name, True).get("there")),
    "tiered store writes": lambda name: holds(lambda: store_of(name, True).reserve("new", 1000)),
    "reader waits": lambda name: waits(ring_of(name)[1].recv),
    "reader reads": receive_view,
    "reader keeps": receive_large_view,
    "writer waits": lambda name: waits(
        lambda writer: [writer.send_bytes(bytes(1000)) for _ in range(1000)], ring_of(name)[0]
    ),
    "writer writes": lambda name: holds(lambda: ring_of(name)[0].loan(1000)),
    "writer writes a large one": lambda name: holds(lambda: ring_of(name)[0].loan(100_000)),
    "queue takes": lambda name: waits(queue_of(name).get),
    "queue waits in a loop": wait_in_a_loop,
    "trainer waits": wait_for_more,
    "environment waits": begin_in_vain,
    "environment has a rollout": hold_rollout,
}
# The data of these is kept for the next participant, and the name with it.
DAEMONS_WITH_DATA: dict[str, Callable[[str], Callable[[], None]]] = {
    "queue has a batch": lambda name: holds(lambda: queue_of(name, 2).get_many(timeout=LONG)),
    "queue has a view": lambda name: holds(lambda: queue_of(name, 2).get_view(timeout=LONG)),
    "queue puts": lambda name: waits(queue_of(name, 4).put, bytes(5000)),
    "trainer has a batch": hold_batch,
    "trainer has too little": lambda name: waits(trajectories_of(name)[0].next_batch, sequences=4),
}


def run_daemon(which: str, name: str) -> None:
    work = {**DAEMONS, **DAEMONS_WITH_DATA}[which](name)
    threading.Thread(target=work, daemon=True).start()
    assert inside.wait(LONG)


def end(how: str) -> None:
    if how == "exception":
        raise RuntimeError("as was asked for")
    if how == "exit":
        sys.exit(3)


def main() -> None:
    """Read programs from stdin, run all of them at once, and print how each ended."""
    cases = json.loads(sys.stdin.read())
    within = float(sys.argv[1])
    running = {}
    for case in cases:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            program, how = case["run"], case["end"]
            with open(case["stderr"], "w") as stderr:
                os.dup2(stderr.fileno(), 2)
            os.dup2(2, 1)
            if len(program) == 2:
                run_daemon(*program)
            else:
                run(*program)
            end(how)
            return
        running[pid] = case
    codes: dict[str, Any] = {}
    deadline = time.monotonic() + within
    while running and time.monotonic() < deadline:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            time.sleep(0.01)
        else:
            codes[running.pop(pid)["id"]] = os.waitstatus_to_exitcode(status)
    for pid, case in running.items():
        codes[case["id"]] = "hangs"
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    print(json.dumps(codes))


if __name__ == "__main__":
    main()
