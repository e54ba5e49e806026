"""What requests may cost together: bytes, bodies, connections and time; and who is over it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from math import inf
from time import monotonic

from ....errors import InvalidArgument

__all__ = ["Admission", "Busy", "Limits", "Ticket", "TooBig", "TooLong", "TooSlow"]


# Seconds without a request with a body, after which one that comes is thought to be alone. Requests
# that had to wait for the loop come sooner.
_CALM = 0.005


class TooLong(Exception):
    """A step within ``Ticket.at_most()`` would cost more."""


class TooBig(ValueError):
    """The body has more bytes than the server takes, unpacked."""


class TooSlow(ValueError):
    """The body did not arrive in time."""


class Busy(RuntimeError):
    """Other requests have what this one needs: later, perhaps."""


@dataclass(frozen=True)
class Limits:
    """Bounds of what clients can make the server hold.

    A body costs its decoded bytes: as they arrive, and as they are unpacked if they are gzip. Each
    group costs 2 KiB beside, and each value outside the columns of numbers (messages, overrides,
    images, …) 64 bytes. The memory that a request takes is at most six times what it costs.
    """

    body_bytes: int = 256 << 20  #: that one body may cost; more is answered with 413
    total_bytes: int = 512 << 20  #: that all bodies under way may cost; then 503
    requests: int = 256  #: with a body, under way at once; then 503
    connections: int = 1000  #: open at once, as far as ``ulimit -n`` allows; then 503 and the end
    header_timeout: float = 10.0  #: seconds for the head of a request, and for idling before it
    body_timeout: float = 30.0  #: seconds for a body, and one more for each MiB of it; then 408
    answer_timeout: float = 30.0  #: seconds that a client may read nothing of its answer

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not value > 0:
                raise InvalidArgument(f"{one.name} is {value!r}: give more than 0")


class Admission:
    """The books of what is under way. Any thread."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()  # of the next three
        self._bytes = 0
        self._requests = 0
        self._ended = -_CALM  # the last of them, in monotonic time

    @contextmanager
    def enter(self) -> Iterator[Ticket]:
        """A request with a body is under way until the end of the block. Raises Busy."""
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
    """What one request costs so far."""

    __slots__ = ("_admission", "_end", "_is_calm", "cost")

    def __init__(self, admission: Admission, is_calm: bool) -> None:
        self._admission = admission
        self._is_calm = is_calm
        self._end: float = inf  # of what it may cost for now
        self.cost = 0

    @property
    def is_alone(self) -> bool:
        """No other request with a body is under way, or was shortly before this one came."""
        return self._is_calm and self._admission._requests == 1

    def charge(self, cost: int) -> None:
        """Before the memory is taken. Raises TooBig and Busy."""
        if self.cost + cost > self._end:
            raise TooLong
        self._admission._charge(self, cost)

    @contextmanager
    def at_most(self, cost: int) -> Iterator[None]:
        """Raises TooLong where the block costs more, and takes back what it was charged."""
        before = self.cost
        self._end = before + cost
        try:
            yield
        except TooLong:
            self._admission._charge(self, before - self.cost)
            raise
        finally:
            self._end = inf
