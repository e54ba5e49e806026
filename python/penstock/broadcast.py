"""Broadcast: one writer, many readers; every reader gets every message, whole and in order.

C++ does the work; here are creation and attachment, cold paths, and the async twins.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, TypeVar

from . import _core
from ._async_block import AsyncBlock, Entered, enter
from ._exit import close_at_exit
from ._repr import describe
from ._threads import Countdown, attach_when_there, try_until_done, wait_in_thread
from .errors import Busy, InvalidType, Timeout
from .handle import Handle, Name, Owner, Waiting, handle_of
from .state import ReaderState

__all__ = ["Broadcast", "BroadcastReader", "BroadcastWriter"]

T = TypeVar("T")
Codec = Literal["pickle"] | None


class Broadcast:
    """The two ways to open a Broadcast: one process creates it, as its writer; readers attach."""

    def __init__(self, *_args: object, **_options: object) -> None:
        raise InvalidType("use Broadcast.create() in the writer and Broadcast.attach() in readers")

    @staticmethod
    def create(
        name: Name | None,
        *,
        readers: int,
        capacity: int | str = "4MiB",
        on_reader_death: Literal["raise", "drop"] = "raise",
        large: int | str = "2GiB",
        codec: Codec = None,
        huge_pages: bool = False,
        populate: bool = False,
        lock_memory: bool = False,
        numa_node: int | None = None,
        waiting: Waiting = "balanced",
        owner: Owner | None = None,
    ) -> BroadcastWriter:
        """Create a Broadcast for ``readers`` readers, and be its writer.

        A ``name`` of None makes an anonymous segment, which readers reach by ``writer.handle``.
        ``capacity`` is the memory of the ring; messages above a quarter of it take memory of their
        own while they are in transit, out of an address range of ``large`` bytes. The death of a
        reader raises PeerDied at the writer once, or with ``on_reader_death="drop"`` is only
        counted. ``codec="pickle"`` sends values that the typed codec does not support as pickles;
        readers must ask for it too.

        ``populate`` maps all of the ring into the writer at once, so that its first lap is as fast
        as later ones; readers still map pages as they read.

        ``huge_pages`` takes all of the ring in huge pages, so that one fault of any process maps
        2 MiB. It needs no privilege, but Linux 6.1 and a ring of one huge page at least; else
        InvalidArgument. Where free memory is too scattered, the rest of the ring lies in small
        pages: ``stats().huge_page_bytes`` says how much lies in huge ones. Ctrl-C ends a creation
        that takes long.

        ``waiting`` bounds the processor time that waits of all participants may cost: with
        ``"balanced"`` they spin for about as long as a wake-up takes here, while that pays off, and
        then sleep; with ``"latency"`` for up to 5 ms, so that messages a few milliseconds apart
        find a receiver awake, which takes up to a whole processor; with ``"frugal"`` never.
        ``stats()`` says what spinning has cost and won.

        A segment of that name left by another user is replaced only if ``owner`` names that user.

        Raises InvalidName, InvalidArgument, AlreadyExists, NoSpace or PermissionDenied.
        """
        writer = BroadcastWriter(
            name,
            readers=readers,
            capacity=capacity,
            on_reader_death=on_reader_death,
            large=large,
            codec=codec,
            huge_pages=huge_pages,
            populate=populate,
            lock_memory=lock_memory,
            numa_node=numa_node,
            waiting=waiting,
            owner=owner,
        )
        close_at_exit(writer)
        return writer

    @staticmethod
    def attach(
        name: Name | Handle,
        rank: int,
        *,
        codec: Codec = None,
        timeout: float | None = 0,
        owner: Owner | None = None,
    ) -> BroadcastReader:
        """Attach as the reader of ``rank``, by name or by the writer's handle.

        Waits until ``timeout`` for the name to appear. The first reader of a rank gets every
        message from the beginning; a replacement for one that closed or died starts with the next
        message sent.

        Another user's segment is refused at once, by PermissionDenied, unless ``owner`` names that
        user; with ``codec="pickle"`` even then, because its pickles would run that user's code.

        Raises NotFound, Busy (the rank has a living reader), InvalidArgument (no such rank),
        Incompatible, Corrupt, PermissionDenied, Closed or PeerDied.
        """
        handle = handle_of(name)
        reader = BroadcastReader(
            handle.name,
            instance=handle.instance,
            descriptor=handle.fileno(),
            rank=rank,
            codec=codec,
            timeout=timeout,
            owner=owner,
        )
        close_at_exit(reader)
        return reader

    @staticmethod
    async def attach_async(
        name: Name | Handle,
        rank: int,
        *,
        codec: Codec = None,
        timeout: float | None = 0,
        owner: Owner | None = None,
    ) -> BroadcastReader:
        """``attach`` for tasks. A task that is cancelled has attached to nothing."""
        return await attach_when_there(
            "broadcast",
            name,
            lambda: Broadcast.attach(name, rank, codec=codec, owner=owner),
            Countdown(timeout),
            owner,
        )


class BroadcastWriter(_core.BroadcastWriter):
    """The sending side of a Broadcast; made by ``Broadcast.create()``.

    Any thread may use it: one at a time sends, the rest wait for it as part of their timeout. In a
    forked child every call raises WrongProcess. As a context manager it closes at the end.
    """

    __slots__ = ()

    @property
    def handle(self) -> Handle:
        """A handle with which readers attach; can be pickled."""
        return _handle_of(self)

    def readers(self) -> list[ReaderState]:
        """The state of every rank. Works while another thread is sending."""
        return [ReaderState(**raw) for raw in self._readers()]

    def blocked_by(self) -> list[ReaderState]:
        """The readers for which a ``send`` of another thread waits; [] if there are none."""
        return [ReaderState(**raw) for raw in self._blocked_by()]

    async def send_async(self, obj: Any, timeout: float | None = None) -> None:
        """``send`` for tasks. A task that is cancelled has sent nothing."""
        await self._send_async(self._encode(obj), Countdown(timeout))

    async def send_bytes_async(self, data: Any, timeout: float | None = None) -> None:
        """``send_bytes`` for tasks. A task that is cancelled has sent nothing."""
        await self._send_async(self._pin(data), Countdown(timeout))

    async def _send_async(self, message: _core._Outgoing, countdown: Countdown) -> None:
        await try_until_done(
            lambda: _unless_lent(self, lambda: message.try_send(self)),
            lambda cancel: message.wait_for_room(self, countdown.left(), cancel),
            countdown,
        )

    def loan_async(self, nbytes: int | str, timeout: float | None = None) -> AsyncBlock[memoryview]:
        """``loan`` for tasks: ``async with writer.loan_async(n) as buf``.

        Until the block ends other tasks' sends wait; this task's raise Busy. A task that is
        cancelled has sent nothing.
        """
        countdown = Countdown(timeout)

        async def begin() -> Entered[memoryview]:
            return await try_until_done(
                lambda: _unless_lent(self, lambda: enter(_TaskLoan(self, nbytes))),
                lambda cancel: self._wait_room(nbytes, countdown.left(), cancel),
                countdown,
            )

        return AsyncBlock(begin)

    async def wait_ready_async(self, timeout: float | None = None) -> None:
        """``wait_ready`` for tasks."""
        countdown = Countdown(timeout)
        await wait_in_thread(lambda cancel: self._wait_ready(countdown.left(), cancel))

    def __repr__(self) -> str:
        return describe(self, lambda: repr(self.name) if self.name else "anonymous")


class BroadcastReader(_core.BroadcastReader):
    """The receiving side of one rank; made by ``Broadcast.attach()``.

    Any thread may use it: each message goes to one thread. In a forked child every call raises
    WrongProcess. As a context manager it closes at the end.
    """

    __slots__ = ()

    @property
    def handle(self) -> Handle:
        """A handle with which other readers attach; can be pickled."""
        return _handle_of(self)

    async def recv_async(self, timeout: float | None = None) -> Any:
        """``recv`` for tasks. A task that is cancelled has taken nothing."""
        return await self._take_async(self.recv, Countdown(timeout))

    async def recv_bytes_async(self, timeout: float | None = None) -> bytes:
        """``recv_bytes`` for tasks. A task that is cancelled has taken nothing."""
        return await self._take_async(self.recv_bytes, Countdown(timeout))

    async def recv_bytes_into_async(self, buffer: Any, timeout: float | None = None) -> int:
        """``recv_bytes_into`` for tasks. A task that is cancelled has taken nothing."""
        return await self._take_async(
            lambda timeout: self.recv_bytes_into(buffer, timeout), Countdown(timeout)
        )

    def recv_view_async(self, timeout: float | None = None) -> AsyncBlock[Any]:
        """``recv_view`` for tasks: ``async with reader.recv_view_async() as obj``.

        A task that is cancelled while it waits has taken nothing.
        """
        countdown = Countdown(timeout)
        return AsyncBlock(
            lambda: self._take_async(lambda timeout: enter(self.recv_view(timeout)), countdown)
        )

    async def _take_async(self, take: Callable[[float], T], countdown: Countdown) -> T:
        return await try_until_done(
            lambda: take(0),
            lambda cancel: self._wait_message(countdown.left(), cancel),
            countdown,
        )

    def __repr__(self) -> str:
        return describe(
            self, lambda: f"{repr(self.name) if self.name else 'anonymous'}, rank {self.rank}"
        )


# The task that has a writer's loan open: other tasks wait, as other threads would.
_lent: weakref.WeakKeyDictionary[BroadcastWriter, asyncio.Task[Any] | None] = (
    weakref.WeakKeyDictionary()
)


def _handle_of(side: _core.BroadcastWriter | _core.BroadcastReader) -> Handle:
    if side.name:
        return Handle(side.name, side._instance)
    return Handle.of_descriptor(side._descriptor(), side._instance)


class _TaskLoan:
    """A loan opened by a task on its event loop's thread, which it shares with other tasks."""

    def __init__(self, writer: BroadcastWriter, nbytes: int | str) -> None:
        self._writer = writer
        self._loan = writer.loan(nbytes, 0)

    def __enter__(self) -> memoryview:
        room = self._loan.__enter__()
        _lent[self._writer] = asyncio.current_task()
        return room

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        _lent.pop(self._writer, None)
        self._loan.__exit__(exc_type, exc, traceback)


def _unless_lent(writer: BroadcastWriter, attempt: Callable[[], T]) -> T:
    """``attempt()``; raises Timeout, as in another thread, while another task has a loan open."""
    try:
        return attempt()
    except Busy as busy:
        if _lent.get(writer, asyncio.current_task()) is asyncio.current_task():
            raise
        raise Timeout(str(busy)) from None
