"""The exceptions of Penstock, each derived from the built-in that a Python programmer would catch.

Every message is a sentence that says what was asked, what stands in the way, and what to do.
"""

from __future__ import annotations

from typing import Literal

__all__ = [
    "AlreadyExists",
    "Busy",
    "Cancelled",
    "Closed",
    "Corrupt",
    "Error",
    "Expired",
    "Incompatible",
    "InvalidArgument",
    "InvalidName",
    "NoSpace",
    "NotFound",
    "PeerDied",
    "PermissionDenied",
    "Timeout",
    "TooLarge",
    "UnsupportedType",
    "WrongProcess",
]


class Error(Exception):
    """Base of everything that Penstock raises on purpose; raised itself only for unexpected
    failures."""

    accepted: int  #: only of ``Queue.put_many``: how many messages are in the queue all the same


class Timeout(Error, TimeoutError):
    """The time is over; nothing was sent or taken."""


class Closed(Error, EOFError):
    """The stream has ended and everything was received, or this handle is closed: see ``by``.

    A handle that was closed by this process says so in every call; it still knows its name.
    """

    #: "self": this handle, view, loan or batch itself was closed
    by: Literal["peer", "self"] = "peer"


class PeerDied(Error, ConnectionError):
    """A process on the other side is dead, by the kernel's lock; the message names it.

    A writer gets it once for each dead reader, and nothing was sent: it may send again at once. A
    reader gets it after it has received everything that the dead writer had sent. Attributes are
    None where they are not known (the message says why), and if the error is about a server of a
    second tier that can't be reached. Where the message names several dead readers, the attributes
    are those of the first.
    """

    rank: int | None = None  #: of the dead reader; None when the writer died
    pid: int | None = None  #: in its own PID namespace
    exit_code: int | None = None  #: of a process that exited without closing its handle
    signal: int | None = None  #: of a process that was killed by this signal


class NotFound(Error, FileNotFoundError):
    """There is no such segment (any more), no such directory, or no such key in a store."""


class AlreadyExists(Error, FileExistsError):
    """A living process has a segment of that name, which the message names; or an abandoned one of
    that name holds data that is not replaced; or the key exists."""


class NoSpace(Error, MemoryError):
    """The memory could not be reserved: how much was asked for, how much is free, what to do."""


class TooLarge(Error, ValueError):
    """It can never fit, however long the call waits: a message, or a buffer too small for one."""


class Incompatible(Error, RuntimeError):
    """Another version, kind or geometry, another codec, or no Penstock segment at all."""


class Corrupt(Error, RuntimeError):
    """The bytes contradict themselves: a stray write, or damage."""


class Cancelled(Error, RuntimeError):
    """The wait was ended from another thread; nothing was sent or taken."""


class InvalidName(Error, ValueError):
    """Names are ``[A-Za-z0-9._-]{1,200}``, or ``file:`` and a path, or a path object."""


class InvalidArgument(Error, ValueError):
    """A size, rank, timeout or option that is not possible."""


class InvalidType(InvalidArgument, TypeError):
    """An argument of the wrong type: ``InvalidArgument`` and ``TypeError`` alike."""


class InvalidNameType(InvalidName, TypeError):
    """A name that is no str and no path: ``InvalidName`` and ``TypeError`` alike."""


class PermissionDenied(Error, PermissionError):
    """The segment belongs to another user, or its directory may not be written."""


class Busy(Error, RuntimeError):
    """A rank has a living reader, a loan is open, too many messages are held, or the key is being
    written."""

    rank: int | None = None  #: that is taken, or writing; None when it is about something else


class Expired(Error, RuntimeError):
    """A reservation or a reference that is no longer valid; nothing was committed."""


class UnsupportedType(Error, TypeError):
    """The value contains something that the typed codec does not support; ``codec="pickle"``
    might."""


class WrongProcess(Error, RuntimeError):
    """The handle can't be used here: it came by ``fork`` and belongs to the parent, or this process
    has closed its descriptor, as daemons do. Attach anew, after that."""
