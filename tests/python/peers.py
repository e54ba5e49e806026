"""Other processes for tests: each holds named handles and obeys commands, so that a test decides
what each does and when, and no process guesses at another's pace."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import pytest

import penstock

WITHIN = 30.0  # seconds, for anything that is immediate on an idle machine


class Peer:
    """A child process. ``peer.call("r.recv", timeout=1)`` calls a method of its object ``r``."""

    def __init__(self, method: str = "forkserver") -> None:
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload(["penstock", "peers"])
        self._commands, theirs = context.Pipe()
        self._process = context.Process(target=_obey, args=(theirs,))
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def start(self, what: str, *args: Any, **kwargs: Any) -> None:
        """Start a command that may take long; ``result()`` gives its outcome."""
        self._commands.send((what, args, kwargs))

    def result(self, within: float = WITHIN) -> Any:
        assert self._commands.poll(within), f"the peer had no answer for {within} s"
        try:
            outcome, error = self._commands.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(WITHIN)
            raise AssertionError(f"the peer died: {self._process.exitcode}") from None
        if error is not None:
            raise error
        return outcome

    def call(self, what: str, *args: Any, **kwargs: Any) -> Any:
        self.start(what, *args, **kwargs)
        return self.result()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait until every process sees it dead."""
        self._process.kill()
        self._process.join(WITHIN)
        assert self._process.exitcode == -signal.SIGKILL

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """SIGSTOP for the length of the block."""
        self.signal(signal.SIGSTOP)
        eventually(lambda: state_of(self.pid) == "T")
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def end(self) -> None:
        """In good order if it listens, otherwise by force."""
        if self._process.is_alive():
            with contextlib.suppress(OSError):
                self._commands.send(None)
            self._process.join(5)
            self._process.kill()
            self._process.join(WITHIN)
        self._commands.close()


def _obey(commands: Connection) -> None:
    """The child's side: runs commands until it is told to end."""
    objects: dict[str, Any] = {}
    while True:
        try:
            command = commands.recv()
        except EOFError:
            return  # the test died
        if command is None:
            return
        what, args, kwargs = command
        try:
            outcome, error = _run(objects, what, args, kwargs), None
        except BaseException as raised:
            outcome, error = None, raised
        try:
            commands.send((outcome, error))
        except Exception as unsendable:
            commands.send((None, AssertionError(f"can't send the outcome: {unsendable}")))


def _run(objects: dict[str, Any], what: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if what == "create":
        key, *rest = args
        objects[key] = penstock.Broadcast.create(*rest, **kwargs)
        return objects[key].handle
    if what == "attach":
        key, *rest = args
        objects[key] = penstock.Broadcast.attach(*rest, **kwargs)
        return None
    if what == "make":  # names the result of a call: "Queue.attach" of penstock, or "q.get_many"
        key, path, *rest = args
        owner, method = path.split(".")
        source = objects.get(owner) or getattr(penstock, owner)
        objects[key] = getattr(source, method)(*rest, **kwargs)
        return None
    if what == "do":  # "module:function", called with the objects and the arguments
        module, function = args[0].split(":")
        return getattr(importlib.import_module(module), function)(objects, *args[1:], **kwargs)
    key, method = what.split(".")
    return getattr(objects[key], method)(*args, **kwargs)


# Functions for "do".


def get(objects: dict[str, Any], key: str, attribute: str) -> Any:
    return getattr(objects[key], attribute)


def drop(objects: dict[str, Any], key: str) -> None:
    del objects[key]


def recv_many(objects: dict[str, Any], key: str, count: int, timeout: float) -> list[Any]:
    return [objects[key].recv(timeout=timeout) for _ in range(count)]


def echo(objects: dict[str, Any], source: str, sink: str, count: int, timeout: float) -> None:
    for _ in range(count):
        objects[sink].send(objects[source].recv(timeout=timeout), timeout=timeout)


def eventually(is_so: Callable[[], Any], within: float = WITHIN) -> Any:
    """Return the first true value of ``is_so()``; fail the test if there is none in time."""
    end = time.monotonic() + within
    while True:
        value = is_so()
        if value:
            return value
        assert time.monotonic() < end, "the condition never came true"
        time.sleep(0.002)


def threads_here() -> int:
    """The threads of this process, C++'s included. A joined one may be listed a moment longer."""
    return len(os.listdir("/proc/self/task"))


def state_of(pid: int) -> str:
    """The kernel's letter for a process's state: R, S, T (stopped)..., or "" if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


# Scripts in their own Python, for changes to a whole process.


def run_script(script: str, *arguments: str, prefix: tuple[str, ...] = (), **options: Any) -> Any:
    """Run a script to its end; it must end in time, and not by a signal."""
    command = [*prefix, sys.executable, "-c", textwrap.dedent(script), *arguments]
    outcome = subprocess.run(
        command, capture_output=True, text=True, timeout=WITHIN, check=False, **options
    )
    assert outcome.returncode >= 0, f"signal {-outcome.returncode}: {outcome.stderr}"
    return outcome


def _may_mount() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    probe = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/dev/shm"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


needs_a_mount = pytest.mark.skipif(
    not _may_mount(), reason="needs root, unshare(1) and the right to mount"
)


def with_own_shm(script: str, *arguments: str, mount: str) -> Any:
    """Run a script with its own tmpfs over /dev/shm, mounted with these options."""
    shell = f'mount -t tmpfs -o {mount} none /dev/shm && exec "$@"'
    return run_script(script, *arguments, prefix=("unshare", "-m", "sh", "-c", shell, "sh"))
