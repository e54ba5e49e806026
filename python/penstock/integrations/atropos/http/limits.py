"""Limits for all requests together: bytes, bodies, connections and time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from math import inf
from time import monotonic

from ....errors import InvalidArgument

__all__ = ["Admission", "Busy", "Limits", "Ticket", "TooBig", "TooLong", "TooSlow"]


# Seconds without a request with a body after which a new one counts as a single one. Requests that
# had to wait for the event loop come sooner.
_CALM = 0.005


class TooLong(Exception):
    """A step within ``Ticket.at_most()`` would cost more than its limit."""


class TooBig(ValueError):
    """The unpacked body has more bytes than the server accepts."""


class TooSlow(ValueError):
    """The body did not arrive in time."""


class Busy(RuntimeError):
    """Other requests use what this one needs; a later attempt may succeed."""


@dataclass(frozen=True)
class Limits:
    """Bounds of what clients can make the server hold.

    A body costs its decoded bytes: as they arrive, and as they are unpacked if they are gzip. Each
    group costs 2 KiB in addition, and each value outside the columns of numbers (messages,
    overrides, images, …) 64 bytes. A request takes at most six times its cost in memory.
    """

    body_bytes: int = 256 << 20  #: cost of one body; more is answered with 413
    total_bytes: int = 512 << 20  #: cost of all bodies in progress; more is answered with 503
    requests: int = 256  #: requests with a body in progress; more are answered with 503
    #: open connections, as far as ``ulimit -n`` allows; more are answered with 503
    connections: int = 1000
    header_timeout: float = 10.0  #: seconds for the head of a request, and for idling before it
    body_timeout: float = 30.0  #: seconds for a body, and one more for each MiB of it; then 408
    answer_timeout: float = 30.0  #: seconds during which a client may read nothing of its answer

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not value > 0:
                raise InvalidArgument(f"{one.name} is {value!r}: give more than 0")


class Admission:
    """Accounts of the requests in progress. Any thread."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()  # guards the next three
        self._bytes = 0
        self._requests = 0
        self._ended = -_CALM  # end of the last request, in monotonic time

    @contextmanager
    def enter(self) -> Iterator[Ticket]:
        """Admits a request with a body until the end of the block. Raises Busy."""
        with self._lock:
            if self._requests >= self._limits.requests:
                raise Busy(f"{self._requests} requests are under way: try again")
            is_calm = self._requests == 0 and monotonic() - self._ended >= _CALM
            self._requests += 1
        ticket = Ticket(self, is_calm)
        try:
            yield ticket
        finally:
            with self._lock:
                self._requests -= 1
                self._bytes -= ticket.cost
                self._ended = monotonic()

    def _charge(self, ticket: Ticket, cost: int) -> None:
        limits = self._limits
        most = min(limits.body_bytes, limits.total_bytes)
        with self._lock:
            if ticket.cost + cost > most:
                raise TooBig(f"the body has more than {most} bytes, unpacked and with its values")
            if self._bytes + cost > limits.total_bytes:
                raise Busy(
                    f"bodies under way take {self._bytes} bytes of {limits.total_bytes}: try again"
                )
            self._bytes += cost
            ticket.cost += cost


class Ticket:
    """The cost of one request so far."""

    __slots__ = ("_admission", "_end", "_is_calm", "cost")

    def __init__(self, admission: Admission, is_calm: bool) -> None:
        self._admission = admission
        self._is_calm = is_calm
        self._end: float = inf  # its limit for the current step
        self.cost = 0

    @property
    def is_alone(self) -> bool:
        """Whether no other request with a body is in progress, or was shortly before this one."""
        return self._is_calm and self._admission._requests == 1

    def charge(self, cost: int) -> None:
        """To be called before the memory is taken. Raises TooBig and Busy."""
        if self.cost + cost > self._end:
            raise TooLong
        self._admission._charge(self, cost)

    @contextmanager
    def at_most(self, cost: int) -> Iterator[None]:
        """Limits the cost of the block: raises TooLong beyond it, and refunds what it was
        charged."""
        before = self.cost
        self._end = before + cost
        try:
            yield
        except TooLong:
            self._admission._charge(self, before - self.cost)
            raise
        finally:
            self._end = inf
