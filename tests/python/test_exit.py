"""How a process ends: in good order, soon, and without a trace, whatever waits for it, however it
ends, and whatever its threads do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import pytest
from exit_scenarios import DAEMONS, DAEMONS_WITH_DATA
from peers import WITHIN, run_script

import penstock
from penstock import inspect
from penstock.trajectories import TrajectoryReader

HERE = Path(__file__).parent
SHM = Path("/dev/shm")

ENDS = {"normal": 0, "exception": 1, "exit": 3}
CONCEPTS = ("writer", "reader", "queue", "trainer", "environment", "store", "tiered")


def group(peer: str, method: str, imports: str) -> list[tuple[str, ...]]:
    """Every concept with every way to end, for each peer that it can have."""
    concepts = [one for one in CONCEPTS if peer not in ("thread", "thread_pool") or one != "reader"]
    return [
        (concept, peer, method, imports, how)
        for number, concept in enumerate(concepts)
        for how in (ENDS if concept == "writer" else [list(ENDS)[number % 3]])
    ]


GROUPS = [
    *product(("process", "process_pool"), ("fork",), ("before", "after")),
    ("process", "spawn", "after"),
    ("process_pool", "spawn", "before"),
    ("pools", "fork", "after"),
    ("child", "fork", "after"),
    ("thread", "-", "after"),
    ("thread_pool", "-", "before"),
    ("thread_pool", "-", "after"),
]


def run_programs(cases: list[dict[str, object]]) -> dict[str, object]:
    """How each program ended: its exit code, or "hangs"."""
    within = float(os.environ.get("PENSTOCK_TEST_EXIT_WITHIN", 10 * WITHIN))
    result = subprocess.run(
        [sys.executable, str(HERE / "exit_scenarios.py"), str(within)],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=within + WITHIN,
        check=False,
    )
    assert result.stdout, result.stderr
    codes: dict[str, object] = json.loads(result.stdout)
    return codes


@pytest.mark.parametrize(("peer", "method", "imports"), GROUPS)
def test_no_program_hangs_at_its_end(name, tmp_path, peer, method, imports):
    """And the peer gets Closed, not PeerDied."""
    cases = []
    for number, case in enumerate(group(peer, method, imports)):
        concept, _, _, _, how = case
        outcome = tmp_path / f"{number}.outcome"
        cases.append(
            {
                "id": "-".join(case),
                "run": [concept, peer, method, imports, f"{name}-{number}", str(outcome)],
                "end": how,
                "stderr": str(tmp_path / f"{number}.stderr"),
                "outcome": str(outcome),
                "expected": ENDS[how],
            }
        )
    codes = run_programs(cases)
    said = {case["id"]: Path(str(case["stderr"])).read_text() for case in cases}
    assert codes == {case["id"]: case["expected"] for case in cases}, said
    told = {case["id"]: Path(str(case["outcome"])).read_text() for case in cases}
    assert told == dict.fromkeys(codes, "Closed\n")
    errors = {
        number: [line for line in text.splitlines() if "Error" in line and "asked for" not in line]
        for number, text in said.items()
    }
    assert not any(errors.values()), errors
    assert not list(SHM.glob(f"penstock.{name}*"))


def run_daemons(daemons: Iterable[str], name: str, tmp_path: Path) -> dict[str, str]:
    """Run them; return the names that they used. They must end in good order, and print nothing."""
    names = {which: f"{name}-{number}" for number, which in enumerate(daemons)}
    cases = [
        {"id": which, "run": [which, own], "end": "normal", "stderr": str(tmp_path / own)}
        for which, own in names.items()
    ]
    codes = run_programs(cases)
    said = {which: (tmp_path / own).read_text() for which, own in names.items()}
    assert codes == dict.fromkeys(names, 0), said
    assert said == dict.fromkeys(names, "")
    return names


def test_daemon_threads_inside_leave_nothing_behind(name, tmp_path):
    """The leave does not depend on a thread that never returns."""
    names = run_daemons(DAEMONS, name, tmp_path)
    assert not [which for which, own in names.items() if (SHM / f"penstock.{own}").exists()]


def test_deliveries_of_a_daemon_thread_are_kept_for_the_next_participant(name, tmp_path):
    names = run_daemons(DAEMONS_WITH_DATA, name, tmp_path)
    for which, own in names.items():
        (segment,) = [one for one in inspect.list_segments() if one.name == own]
        assert not segment.participants, which
        if which.startswith("trainer"):
            with TrajectoryReader.attach(own, sequences=2) as trainer:
                trainer.next_batch(timeout=0).ack(step=1)
                assert trainer.stats().queue.deaths == 0, which
        else:
            with penstock.Queue.attach(own) as queue:
                queue.get(timeout=0)
                assert queue.stats().deaths == 0, which
                queue.discard()


def test_others_see_a_leave_and_not_a_death(name):
    """For a process whose daemon threads hold an object of each kind."""
    with (
        penstock.Broadcast.create(f"{name}-w", readers=1) as writer,
        penstock.Queue.create(f"{name}-q", capacity="1MiB") as queue,
        penstock.Store.create(f"{name}-s", capacity="1MiB") as store,
    ):
        writer.send(bytes(100))
        queue.put(bytes(5000))
        store.put("there", bytes(1000))
        outcome = run_script(
            """
            import sys, threading, penstock
            name = sys.argv[1]
            blocks = [
                penstock.Broadcast.attach(name + "-w", rank=0).recv_view(timeout=30),
                penstock.Queue.attach(name + "-q").get_many(timeout=30),
                penstock.Store.attach(name + "-s").get("there"),
                penstock.Store.attach(name + "-s").reserve("new", 1000),
            ]
            inside = threading.Barrier(len(blocks) + 1)

            def hold(block):
                with block as thing:
                    inside.wait()
                    threading.Event().wait()

            for block in blocks:
                threading.Thread(target=hold, args=(block,), daemon=True).start()
            inside.wait()
            """,
            name,
        )
        assert (outcome.returncode, outcome.stderr) == (0, "")
        assert writer.readers()[0].life == "vacant"
        writer.send("nobody is missed", timeout=0)
        assert writer.stats().reader_deaths == 0
        assert len(queue.get(timeout=0)) == 5000
        assert queue.stats().deaths == 0
        stats = store.stats()
        assert (stats.in_use, stats.staged, stats.deaths) == (0, 0, 0)
        store.put("new", 1)


@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_a_leftover_view_of_a_departed_process_writes_into_no_other_object(name, size):
    """A reservation open at the end is aborted, and written to afterwards through a leftover
    view."""
    with penstock.Store.create(name, capacity="2MiB") as store:
        with subprocess.Popen(
            [
                sys.executable,
                "-c",
                """
import atexit, sys

def late():  # after all of ours, and as a daemon thread may
    print("left", flush=True)
    sys.stdin.readline()
    room[...] = 7
    print("written", flush=True)

atexit.register(late)
import penstock
store = penstock.Store.attach(sys.argv[1])
reservation = store.reserve("given up", shape=(int(sys.argv[2]),), dtype="uint8")
room = reservation.room
room[...] = 1
""",
                name,
                str(size),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "left\n"
            assert store.stats().staged == 0
            with store.reserve("new", shape=(size,), dtype="uint8") as room:
                room[...] = 3  # where the other object was
            process.stdin.write("write\n")
            process.stdin.flush()
            assert process.stdout.readline() == "written\n"
            assert (store.get_copy("new") == 3).all()
        assert process.returncode == 0


LATE = """
import atexit, glob, sys, threading, time
goes_on = threading.Event()

def late():  # after all of ours
    goes_on.set()
    while not glob.glob(f"/dev/shm/penstock.{sys.argv[1]}*"):
        time.sleep(0.01)

def late_and_held():
    global store
    store = penstock.Store.create(sys.argv[1], capacity="64KiB")
    store.put("held", 1)
    goes_on.set()
    made.wait()

def hold():
    goes_on.wait()
    with store.get("held"):
        made.set()
        threading.Event().wait()

def create():
    goes_on.wait()
    while True:  # it does not come back from one of them
        handles.append(CREATE)

made = threading.Event()
handles = []
atexit.register(LATE)
import penstock
threading.Thread(target=WORK, daemon=True).start()
"""


@pytest.mark.parametrize(
    "create",
    [
        'penstock.Queue.create(f"{sys.argv[1]}-{len(handles)}", capacity="64KiB")',
        'penstock.Store.create(f"{sys.argv[1]}-{len(handles)}", capacity="64KiB")',
        'penstock.Broadcast.create(f"{sys.argv[1]}-{len(handles)}", readers=1)',
    ],
)
def test_a_handle_made_by_a_daemon_thread_after_the_leave_is_left_too(name, create):
    """The creating thread may never return, so another thread leaves the segment for it."""
    program = LATE.replace("CREATE", create).replace("WORK", "create").replace("LATE", "late")
    outcome = run_script(program, name)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert not list(SHM.glob(f"penstock.{name}*"))


def test_a_handle_made_at_the_programs_end_after_the_leave_is_left_too(name):
    outcome = run_script(LATE.replace("WORK", "hold").replace("LATE", "late_and_held"), name)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert not list(SHM.glob(f"penstock.{name}*"))


def test_handles_made_during_the_leave_keep_no_other_open(name):
    """Daemon threads continue, at any moment between two steps of the main thread."""
    outcome = run_script(
        """
        import sys, penstock
        from penstock import _exit
        name = sys.argv[1]
        queues = [penstock.Queue.create(f"{name}-{i}", capacity="64KiB") for i in range(3)]
        made = []

        def another(frame, event, _arg):
            if "weakref" in frame.f_code.co_filename and event == "line" and len(made) < 20:
                sys.settrace(None)
                made.append(penstock.Queue.attach(f"{name}-0"))
                sys.settrace(another)
            return another

        for step in (_exit._has_open, _exit._close_all):
            sys.settrace(another)
            step()
            sys.settrace(None)
            made.clear()
        assert all(queue.closed for queue in queues)
        """,
        name,
    )
    assert (outcome.returncode, outcome.stderr) == (0, "")


def test_threads_and_functions_of_the_program_do_their_work(name):
    """They use handles after the main thread has ended, to their end, as in Python."""
    with penstock.Queue.create(name) as queue:
        outcome = run_script(
            """
            import atexit, sys, threading, penstock
            from concurrent.futures import ThreadPoolExecutor
            queue = penstock.Queue.attach(sys.argv[1])
            atexit.register(queue.put, "function")

            def work():
                threading.main_thread().join()
                queue.put("thread")

            threading.Thread(target=work).start()
            pool = ThreadPoolExecutor(1)
            pool.submit(threading.Event().wait, 0.2)
            pool.submit(queue.put, "pool")
            """,
            name,
        )
        assert (outcome.returncode, outcome.stderr) == (0, "")
        said = {queue.get(timeout=0) for _ in range(3)}
        assert said == {"thread", "pool", "function"}
        assert queue.stats().deaths == 0


@pytest.mark.parametrize("method", ["fork", "forkserver"])
@pytest.mark.parametrize("closes", [True, False])
def test_daemonic_children_leave_nothing_behind(name, tmp_path, method, closes):
    """multiprocessing kills them at the end of their parent, after its handles are closed."""
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            """
            import multiprocessing, sys, threading
            import penstock

            def consume(name, told):
                queue, store = penstock.Queue.attach(name), penstock.Store.attach(name + "-s")
                told.send(queue.get())
                threading.Event().wait()

            if __name__ == "__main__":
                name, method, closes = sys.argv[1:]
                context = multiprocessing.get_context(method)
                queue, store = penstock.Queue.create(name), penstock.Store.create(name + "-s")
                here, there = context.Pipe(duplex=False)
                context.Process(target=consume, args=(name, there), daemon=True).start()
                queue.put("begin")
                assert here.recv() == "begin"
                if closes == "True":
                    queue.close()
                    store.close()
            """
        )
    )
    outcome = subprocess.run(
        [sys.executable, str(script), name, method, str(closes)],
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert not list(SHM.glob(f"penstock.{name}*"))


def test_a_signal_handler_that_raises_keeps_no_handle_open(name):
    """Raised in the middle of a close, several times: all others are closed, in order, and the
    exception is raised at the end."""
    script = """
    import ctypes, signal, sys
    import penstock
    from penstock._exit import close_at_exit

    def fail(number, frame):
        raise RuntimeError(f"told by signal {number}")

    class Loud:
        def __init__(self, number):
            self.number = number
            close_at_exit(self)

        def close(self):
            signal.raise_signal(self.number)

    signal.signal(signal.SIGUSR1, fail)
    signal.signal(signal.SIGUSR2, fail)
    loud = [Loud(signal.SIGUSR1)]
    names = [f"{sys.argv[1]}-{number}" for number in range(3)]
    held = []
    for one in names:
        held.append(penstock.Broadcast.create(one, readers=1))
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(held[-1]))  # nothing but the hook closes it
        loud.append(Loud(signal.SIGUSR2))
    print(*names, flush=True)
    sys.stdin.readline()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    names = process.stdout.readline().split()
    readers = [penstock.Broadcast.attach(one, rank=0) for one in names]
    _, errors = process.communicate("\n", timeout=WITHIN)
    assert "told by signal 10" in errors
    for reader in readers:
        with reader, pytest.raises(penstock.Closed):  # not PeerDied
            reader.recv(timeout=WITHIN)
