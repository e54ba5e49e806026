"""Commands that are ended by any signal, at any moment, and repeatedly: they end in good order with
the promised exit code, and leave nothing."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from creations import CREATIONS
from peers import WITHIN, eventually, run_script

import penstock
from penstock import _interrupts
from penstock.cli import exits

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
SHM = Path("/dev/shm")

PENSTOCK = [sys.executable, "-m", "penstock.cli.main"]


def pool(name: str) -> list[str]:
    return [sys.executable, "-m", "penstock.integrations.lmcache", name, "--capacity", "8MiB"]


def serve(name: str) -> list[str]:
    return [*PENSTOCK, "trajectories", "serve", "--queue", name, "--port", "0"]


def send(name: str) -> list[str]:
    return [*PENSTOCK, "send", name]


def recv(name: str) -> list[str]:
    return [*PENSTOCK, "recv", name]


def demo(_name: str) -> list[str]:
    return [*PENSTOCK, "demo", "--seconds", "60", "--workers", "1", "--json"]


# Each with its first output at work, on stdout or stderr, and its exit code.
COMMANDS = {
    pool: ("serving", exits.OK),
    serve: ("is at http", exits.OK),
    send: ("waiting for 1 reader", exits.INTERRUPTED),
    recv: ("waiting for", exits.INTERRUPTED),
}


@contextlib.contextmanager
def running(command: list[str], **options: object) -> Iterator[subprocess.Popen[str]]:
    """A command whose stdin is open and silent."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,  # type: ignore[call-overload]
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return
    raise AssertionError(f"it ended with {process.wait()}")


def end_of(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code, and the last output."""
    assert process.stdout is not None
    return process.wait(WITHIN), process.stdout.read()


def nothing_is_left(name: str) -> bool:
    return not list(SHM.glob(f"penstock.{name}*"))


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_ends_a_command(name, command, number):
    word, code = COMMANDS[command]
    with running(command(name)) as process:
        wait_for(process, word)
        process.send_signal(number)
        assert end_of(process)[0] == code
    assert nothing_is_left(name)


@pytest.mark.full
def test_a_demo_whose_terminal_goes_away(name):
    before = set(SHM.glob("penstock.demo-*"))
    with running(demo(name), env={**os.environ, "PYTHONUNBUFFERED": "1"}) as process:
        eventually(lambda: set(SHM.glob("penstock.demo-*")) - before)
        process.send_signal(signal.SIGHUP)
        code, said = end_of(process)
        assert (code, "Traceback" in said) == (exits.INTERRUPTED, False), said


@pytest.mark.parametrize("command", COMMANDS)
def test_a_second_signal_changes_nothing(name, command):
    """While it is closing, and by other signals too."""
    word, code = COMMANDS[command]
    with running(command(name)) as process:
        wait_for(process, word)
        while process.poll() is None:
            for number in SIGNALS:
                process.send_signal(number)
        ended, said = end_of(process)
    assert (ended, "Traceback" in said) == (code, False), said
    assert nothing_is_left(name)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_signal_ends_a_pool_while_it_starts(name, number, moment):
    """Just before the pool exists, and just after."""
    outcome = run_script(
        """
        import os, sys
        from penstock.integrations.lmcache import __main__ as command, server
        name, number, moment = sys.argv.pop(1), int(sys.argv.pop(1)), sys.argv.pop(1)
        sys.argv[1:] = [name, "--capacity", "8MiB"]
        create = server.Store.create

        def create_and_be_told(*arguments, **options):
            if moment == "before":
                os.kill(os.getpid(), number)
            store = create(*arguments, **options)
            if moment == "after":
                os.kill(os.getpid(), number)
            return store

        server.Store.create = create_and_be_told
        command.main()
        """,
        name,
        str(int(number)),
        moment,
    )
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert nothing_is_left(name)


def test_a_signal_ends_an_http_server_while_it_starts(name):
    outcome = run_script(
        """
        import os, signal, sys
        from penstock.cli import main
        from penstock.integrations.atropos.http import serve
        build_app = serve.build_app

        def be_told(*arguments, **options):
            os.kill(os.getpid(), signal.SIGTERM)
            return build_app(*arguments, **options)

        serve.build_app = be_told
        sys.exit(main.main(["trajectories", "serve", "--queue", sys.argv[1], "--port", "0"]))
        """,
        name,
    )
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert nothing_is_left(name)


def test_an_ignored_signal_stays_ignored(name):
    """nohup penstock ... outlives its terminal."""
    with running(["nohup", *pool(name)]) as process:
        wait_for(process, "serving")
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert end_of(process)[0] == 0
    outcome = run_script(
        """
        import os, signal
        from penstock import _interrupts
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _interrupts.listen(_interrupts.note)
        os.kill(os.getpid(), signal.SIGHUP)
        assert not _interrupts.is_told()
        os.kill(os.getpid(), signal.SIGTERM)
        assert _interrupts.wait() == signal.SIGTERM
        """
    )
    assert outcome.returncode == 0, outcome.stderr


def test_a_program_that_calls_a_command_has_its_own_signals_afterwards(name):
    """Otherwise one Ctrl-C would be the last that such a program could receive."""
    outcome = run_script(
        """
        import os, signal, socket, sys
        from penstock.cli.main import main
        def on_hangup(*_):
            pass
        signal.signal(signal.SIGHUP, on_hangup)
        reading, writing = socket.socketpair()
        writing.setblocking(False)
        signal.set_wakeup_fd(writing.fileno())
        descriptors = set(os.listdir("/proc/self/fd"))
        for _ in range(2):
            assert main(["ls"]) == 0
            assert main(["info", sys.argv[1], "--interval", "0"]) == 1
            for _ in range(2):
                try:
                    os.kill(os.getpid(), signal.SIGINT)
                except KeyboardInterrupt:
                    continue
                raise SystemExit("not interrupted")
            assert signal.getsignal(signal.SIGHUP) is on_hangup
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert set(os.listdir("/proc/self/fd")) == descriptors
        assert signal.set_wakeup_fd(-1) == writing.fileno()
        """,
        name,
    )
    assert outcome.returncode == 0, outcome.stderr


# The kernel may deliver a signal to any thread, for example of NumPy's BLAS.

TOLD_BY_A_THREAD = """
    import os, signal, sys, threading

    def tell_when(is_so):
        def watch():
            while not is_so():
                signal.sigtimedwait([], 0.01)
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            threading.Event().wait()
        threading.Thread(target=watch, daemon=True).start()

    def sleeps():
        with open("/proc/self/task/%d/stat" % os.getpid()) as stat:
            return stat.read().rpartition(")")[2].split()[0] == "S"
"""


def test_a_signal_that_another_thread_gets_ends_the_wait():
    outcome = run_script(
        TOLD_BY_A_THREAD
        + """
    from penstock import _interrupts
    _interrupts.listen(_interrupts.note)
    tell_when(sleeps)
    assert _interrupts.wait() == signal.SIGTERM
    """
    )
    assert outcome.returncode == 0, outcome.stderr


def test_a_signal_that_another_thread_gets_ends_a_sender_that_reads(name):
    """Otherwise its read would sleep on, and read data that comes after the signal."""
    with penstock_reader_to_come(name) as reader_of:
        read_end, write_end = os.pipe()
        try:
            with (
                running(
                    [sys.executable, "-c", _script_of_a_sender(), name], pass_fds=(read_end,)
                ) as process,
                reader_of(),
            ):
                code, said = end_of(process)
        finally:
            os.close(read_end)
            os.close(write_end)
    assert (code, "Traceback" in said) == (exits.INTERRUPTED, False), said
    assert nothing_is_left(name)


def _script_of_a_sender() -> str:
    import textwrap

    return textwrap.dedent(
        TOLD_BY_A_THREAD
        + """
    import penstock
    from penstock.cli import main, stream
    chunk_size = stream.chunk_size

    def is_reading(descriptor):  # from here on it reads
        tell_when(sleeps)
        return chunk_size(descriptor)

    stream.chunk_size = is_reading
    sys.exit(main.main(["send", sys.argv[1]]))
    """
    )


@contextlib.contextmanager
def penstock_reader_to_come(name: str) -> Iterator[object]:
    @contextlib.contextmanager
    def reader() -> Iterator[penstock.BroadcastReader]:
        with penstock.Broadcast.attach(name, rank=0, timeout=WITHIN) as one:
            yield one

    yield reader


class Told:
    """Raises that signal before the given line of a function of ``_interrupts``."""

    def __init__(self, function: object, number: int, line: int) -> None:
        self._code = inspect.unwrap(function).__code__  # type: ignore[arg-type]
        self._number = number
        self._left = line
        self.is_over = False

    def _trace(self, frame: FrameType, event: str, _arg: object) -> object:
        if frame.f_code is not self._code:
            return None
        if event == "line":
            self._left -= 1
            if self._left == 0:
                self.is_over = True
                signal.raise_signal(self._number)
        return self._trace

    def __enter__(self) -> Told:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_handlers_are_restored_keeps_none_installed(number):
    """Whether the handler was the command's or already the program's: exactly one was called."""
    for line in itertools.count(1):
        came: list[int] = []

        def note(got: int, _frame: object, came: list[int] = came) -> None:
            came.append(got)

        before = {one: signal.signal(one, note) for one in SIGNALS}
        own = {one: signal.getsignal(one) for one in SIGNALS}
        wakeup = signal.set_wakeup_fd(-1)
        try:
            told = Told(_interrupts.borrow, number, line)
            interrupted = False
            try:
                with told, _interrupts.borrow():
                    _interrupts.listen(_interrupts.interrupt)
            except KeyboardInterrupt:
                interrupted = True
            assert {one: signal.getsignal(one) for one in SIGNALS} == own, f"line {line}"
            assert signal.set_wakeup_fd(-1) == -1, f"line {line}"
            assert told.is_over is (interrupted or came == [number]), f"line {line}"
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
            signal.set_wakeup_fd(wakeup)
        if not told.is_over:
            break
    assert line > 10


def test_a_signal_around_lines_that_must_not_be_cut_acts_once():
    for line in itertools.count(1):
        acted: list[int] = []
        with _interrupts.borrow():
            _interrupts.listen(acted.append)
            with Told(_interrupts.hold_back, signal.SIGTERM, line) as told, _interrupts.hold_back():
                pass
        assert acted == ([signal.SIGTERM] if told.is_over else []), f"line {line}"
        if not told.is_over:
            break
    assert line > 5


def shared_kib(pid: int | str) -> int:
    """KiB of shared memory in that process's page tables."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    line = next((line for line in status.splitlines() if line.startswith("RssShmem:")), "")
    return int(line.split()[1]) if line else 0


@pytest.mark.parametrize("create", CREATIONS.values(), ids=CREATIONS.keys())
def test_creation_that_takes_memory_is_interrupted(name: str, create: Callable[..., Any]) -> None:
    """By an exception of a signal handler, however much memory is still to be reserved."""
    mebibytes = 256
    before = shared_kib("self")
    taken = 0

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal taken
        taken = shared_kib("self") - before
        raise KeyboardInterrupt

    handler = signal.signal(signal.SIGPROF, interrupt)
    try:
        signal.setitimer(signal.ITIMER_PROF, 0.02)  # processor time: creation takes longer
        with pytest.raises(KeyboardInterrupt):
            create(name, capacity=f"{mebibytes}MiB", populate=True)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
    assert taken < mebibytes * 1024 * 3 // 4
    assert nothing_is_left(name)
    assert shared_kib("self") - before < mebibytes * 1024 // 4  # it was freed


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_pool_while_it_reserves_memory(name: str, number: int) -> None:
    outcome = run_script(
        """
        import os, sys, threading, time
        from penstock.integrations.lmcache import __main__ as command, server
        name, number = sys.argv.pop(1), int(sys.argv.pop(1))
        sys.argv[1:] = [name, "--capacity", "1GiB", "--populate"]
        create = server.Store.create

        def shared_kib():
            with open("/proc/self/status") as status:
                return next(int(row.split()[1]) for row in status if row.startswith("RssShmem"))

        def signal_itself():
            while shared_kib() <= 16 << 10:
                time.sleep(0.001)
            os.kill(os.getpid(), number)

        def create_and_be_told(*arguments, **options):
            threading.Thread(target=signal_itself, daemon=True).start()
            return create(*arguments, **options)

        server.Store.create = create_and_be_told
        command.main()
        """,
        name,
        str(int(number)),
    )
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", "")  # it never served
    assert nothing_is_left(name)


def test_an_interruptible_step_is_cut_short_and_later_signals_are_noted() -> None:
    outcome = run_script(
        """
        import os, signal
        from penstock import _interrupts
        _interrupts.listen(_interrupts.note)
        assert _interrupts.unless_told(lambda: 5) == 5
        def told():
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(100):
                pass
            raise SystemExit("not interrupted")
        assert _interrupts.unless_told(told) is None
        os.kill(os.getpid(), signal.SIGINT)  # noted
        assert _interrupts.unless_told(lambda: 5) is None
        assert _interrupts.wait() == signal.SIGTERM
        """
    )
    assert (outcome.returncode, outcome.stderr) == (0, "")
