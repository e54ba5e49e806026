"""How every long-running command is told to end: by Ctrl-C, SIGTERM or SIGHUP.

By handlers and not by masks: a mask holds for one thread only, and threads that a library has
started earlier would take the signal and end the process. For commands, on the main thread; where
Penstock is used as a library, the program's own handlers stay.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

__all__ = [
    "SIGNALS",
    "borrow",
    "end_undisturbed",
    "hold_back",
    "ignore",
    "interrupt",
    "is_told",
    "listen",
    "note",
    "unless_told",
    "wait",
    "wait_readable",
]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Action = Callable[[int], None]

T = TypeVar("T")

_told: list[int] = []  # every signal received
_pipe: tuple[int, int] | None = None  # written by the handler in C, on whichever thread that runs
_pipe_identity: tuple[int, int] = (0, 0)  # device and inode: a program may close it, as daemons do
_wakeup_before = -1  # the program's own wake-up descriptor, if it has one


def note(_number: int) -> None:
    """An action that only ends ``wait()``. Also used while closing, which is bounded."""


def interrupt(_number: int) -> None:
    """An action that raises KeyboardInterrupt once. Signals while handles are being closed are
    noted."""
    listen(note)
    raise KeyboardInterrupt


_action: Action = interrupt


def listen(action: Action) -> None:
    """Makes each signal call ``action`` with its number, between two steps of the program.

    An ignored signal stays ignored, as under nohup.
    """
    global _action
    _action = action
    if _pipe is None:
        _open_pipe()
    for number in SIGNALS:
        if signal.getsignal(number) not in (signal.SIG_IGN, _handle):
            signal.signal(number, _handle)


@contextmanager
def borrow() -> Iterator[None]:
    """For a command that a program calls: restores the program's handlers and wake-up descriptor at
    the end. Signals during the command were the command's; signals during the restoration are the
    program's."""
    global _action, _pipe
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    action, pipe, told = _action, _pipe, _told[:]
    late: list[int] = []
    _told.clear()
    try:
        try:
            yield
        finally:
            _action = late.append  # nothing in between may raise
    finally:
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        if pipe is None and _pipe is not None:
            signal.set_wakeup_fd(_wakeup_before)
            for descriptor in _pipe:
                if _is_pipe(descriptor):
                    os.close(descriptor)
        _action, _pipe, _told[:] = action, pipe, told
        for came in late:
            signal.raise_signal(came)


def end_undisturbed() -> None:
    """The process is ending: this module's handlers only note signals from here on."""
    global _action
    _action = note


def ignore() -> None:
    """Everything is closed: this module's handlers have no effect from here on. The interpreter is
    about to restore handlers, except those of ignored signals."""
    hook = sys.unraisablehook
    sys.unraisablehook = _say_nothing  # of a signal that comes while its handler is removed
    try:
        for number in SIGNALS:
            if signal.getsignal(number) is _handle:
                signal.signal(number, signal.SIG_IGN)
        for _ in range(2):
            pass  # lets pending signals be handled, between two steps
    finally:
        sys.unraisablehook = hook


def _say_nothing(_unraisable: object) -> None:
    pass


def is_told() -> bool:
    """Whether any signal came."""
    return bool(_told)


def wait() -> int:
    """Waits for a signal without using the processor, and returns its number. After
    ``listen(note)``."""
    while not _told:
        _poll([])
    return _told[0]


def wait_readable(descriptor: int) -> None:
    """Waits until data can be read, or the end of file; actions of signals run at once.

    A plain read could sleep on: a signal may come just before it, or on another thread.
    """
    while descriptor not in _poll([descriptor]):
        pass


@contextmanager
def hold_back() -> Iterator[None]:
    """For a few lines that must not be interrupted: signals act at the end. Does not nest."""
    action = _action
    held: list[int] = []
    listen(held.append)
    try:
        yield
    finally:
        listen(action)
        for number in held:
            action(number)


def unless_told(call: Callable[[], T]) -> T | None:
    """The result of ``call()``, which may take long; None if a signal ended it.

    For calls that leave nothing behind when they are interrupted. Afterwards signals are noted.
    """
    try:
        listen(interrupt)
        try:
            return None if _told else call()
        finally:
            listen(note)
    except KeyboardInterrupt:
        return None


def _handle(number: int, _frame: FrameType | None) -> None:
    _told.append(number)
    _action(number)


def _open_pipe() -> None:
    global _pipe, _pipe_identity, _wakeup_before
    _pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    facts = os.fstat(_pipe[0])
    _pipe_identity = (facts.st_dev, facts.st_ino)
    _wakeup_before = signal.set_wakeup_fd(_pipe[1], warn_on_full_buffer=False)


def _is_pipe(descriptor: int) -> bool:
    try:
        facts = os.fstat(descriptor)
    except OSError:
        return False
    return (facts.st_dev, facts.st_ino) == _pipe_identity


def _poll(descriptors: list[int]) -> list[int]:
    """The descriptors that can be read, as soon as there are any or a signal came."""
    assert _pipe is not None, "listen() comes first"
    poller = select.poll()
    for descriptor in [*descriptors, _pipe[0]]:
        poller.register(descriptor, select.POLLIN)
    ready = [descriptor for descriptor, _ in poller.poll()]
    if _pipe[0] in ready:
        os.read(_pipe[0], 4096)
    return ready
