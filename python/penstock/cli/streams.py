"""stdin, stdout and stderr of a command as the shell left them: closed, full, or a broken pipe. The
number of a closed stream must not be reused for a file, and a failed write becomes a sentence."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO

from penstock.cli import exits, output


class Closed(io.TextIOBase):
    """Stands for a stream that was closed before the command began."""

    def __init__(self, name: str) -> None:
        self._sentence = f"{name} is closed: there is nowhere to write to"
        self._has_lost = False

    def write(self, _text: str) -> int:
        self._has_lost = True
        raise OSError(errno.EBADF, self._sentence)

    def flush(self) -> None:
        """Flushes the stream; also raises if an earlier failure to write was ignored."""
        if not self._has_lost:
            return
        self._has_lost = False
        raise OSError(errno.EBADF, self._sentence)


def secure() -> None:
    """To be called first in a command. Opens the numbers 0 to 2 if they are closed, so that no
    segment gets one of them: any write to stderr by number would go into it."""
    for descriptor in (0, 1, 2):
        if not _is_open(descriptor):
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    if sys.stdout is None:
        sys.stdout = Closed("stdout")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  until the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # "?" where the encoding has no "✓"


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def require_stdout() -> None:
    """For a command that prints its answer: checks stdout before it does anything."""
    if isinstance(sys.stdout, Closed):
        sys.stdout.write("")


def require_stdin() -> None:
    """For a command that reads its input: checks stdin."""
    if sys.stdin is None:
        raise OSError(errno.EBADF, "stdin is closed: there is nothing to read")


def settle(code: int) -> int:
    """At the end of a command: writes buffered output, and returns the exit code that applies
    then."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _forget(sys.stdout)
        code = exits.BROKEN_PIPE
    except OSError as error:
        if not isinstance(sys.stdout, Closed):
            _forget(sys.stdout)
        # otherwise an earlier failure was reported already
        if code in (exits.OK, exits.INTERRUPTED):
            output.say(f"could not write to stdout: {error.strerror}")
            code = exits.ERROR
    try:
        sys.stderr.flush()
    except OSError:
        _forget(sys.stderr)
    return code


def _forget(stream: TextIO) -> None:
    """Keeps the interpreter's final flush from failing a second time."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
