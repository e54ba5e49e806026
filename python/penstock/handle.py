"""Handles: what one process gives another so that it can attach. Small, and can be pickled."""

from __future__ import annotations

import os
from multiprocessing import reduction
from typing import Any, Literal

from ._exit import come_first
from ._repr import never_raises
from .errors import Error, WrongProcess

__all__ = ["Handle", "Name", "Owner", "Waiting", "handle_of"]

#: Of a segment: ``[A-Za-z0-9._-]{1,200}``, ``file:/absolute/path``, or a path object, which names
#: the ``file:`` segment at that path.
Name = str | os.PathLike[str]
#: A user, by number or name, trusted to own segments besides this process's own user.
Owner = int | str
#: What waiting may cost the processor, for all participants of a segment.
Waiting = Literal["latency", "balanced", "frugal"]


class Handle:
    """Names one segment, and not a later one of the same name.

    The handle of an anonymous segment carries a descriptor instead of a name, which can be pickled
    only for processes of one family: as an argument of ``multiprocessing.Process``, or through its
    queues and pipes.
    """

    __slots__ = ("__weakref__", "_descriptor", "_identity", "instance", "name")

    def __init__(self, name: Name, instance: str, descriptor: int = -1) -> None:
        """Made by ``writer.handle``. Owns the descriptor."""
        self.name = name
        self.instance = instance
        self._descriptor = descriptor
        self._identity = _identity(descriptor)

    @classmethod
    def of_descriptor(cls, descriptor: int, instance: str) -> Handle:
        """The handle of an anonymous segment. The descriptor stays the caller's."""
        # Reopened, because the locks of participants belong to the open file description: a
        # duplicate would share them with every process that gets this handle.
        try:
            own = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Error(
                "can't open the anonymous segment a second time: /proc is not mounted, and a "
                "descriptor to give away is had through /proc/self/fd; mount it (mount -t proc "
                "proc /proc)"
            ) from None
        return cls("", instance, own)

    @property
    def is_anonymous(self) -> bool:
        """Whether the segment has no name, and the handle carries its descriptor."""
        return self._descriptor >= 0

    def fileno(self) -> int:
        """The descriptor of an anonymous segment, owned by the handle; -1 for a named one.

        Raises WrongProcess if the program has closed it, as daemons do.
        """
        if self.is_anonymous and _identity(self._descriptor) != self._identity:
            raise WrongProcess(
                "this handle of an anonymous segment is of no more use: its descriptor was closed "
                "by this process; take another one, after becoming a daemon"
            )
        return self._descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        come_first()  # a child may get it, and wait for this process to close
        if not self.is_anonymous:
            return (Handle, (self.name, self.instance))
        return (_received, (self.instance, reduction.DupFd(self.fileno())))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Handle) and self.instance == other.instance

    def __hash__(self) -> int:
        return hash(self.instance)

    @never_raises
    def __repr__(self) -> str:
        what = f" of {self.name!r}" if self.name else ", anonymous"
        return f"<penstock.Handle{what}>"

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptor", -1)
        # The program may have closed the number and use it for a file of its own.
        if descriptor >= 0 and _identity(descriptor) == self._identity:
            os.close(descriptor)


def handle_of(name: Name | Handle) -> Handle:
    """The handle given to ``attach()``; a name stands for whichever segment has it."""
    return name if isinstance(name, Handle) else Handle(name, instance="")


def _identity(descriptor: int) -> tuple[int, int] | None:
    """Identity of the file; None if there is none."""
    try:
        facts = os.fstat(descriptor)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _received(instance: str, descriptor: Any) -> Handle:
    """Unpickles the handle of an anonymous segment in the receiving process."""
    return Handle("", instance, descriptor.detach())
