"""Queue: many producers, many consumers; each message goes to one consumer, and to another if that
one dies before it has acknowledged it.

C++ does the work; here are creation and attachment, cold paths, and the async twins.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Literal, cast

from . import _core
from ._async_block import AsyncBlock, Entered, enter
from ._exit import close_at_exit
from ._replaced import warn_of_replaced
from ._repr import describe
from ._threads import Countdown, attach_when_there, take_in_thread, try_until_done
from .dead_letters import Chosen, DeadLetter, chosen_sequences, decode_content, letters_of
from .errors import Error, Timeout
from .handle import Handle, Name, Owner, Waiting, handle_of

__all__ = ["Queue"]

Codec = Literal["pickle"] | None
Role = Literal["any", "producer", "consumer"]
EndsWith = Literal["creator", "last_producer"]


class Queue(_core.Queue):
    """One participant of a queue; made by ``Queue.create()`` or ``Queue.attach()``.

    Any thread may use it: putting threads and getting threads don't wait for each other. In a
    forked child it attaches anew at its first use there. As a context manager it closes at the end.
    """

    __slots__ = ()

    @staticmethod
    def create(
        name: Name,
        *,
        capacity: int | str = "64MiB",
        slots: int = 4096,
        inline_bytes: int = 256,
        participants: int = 64,
        max_deliveries: int = 0,
        ends_with: EndsWith = "creator",
        codec: Codec = None,
        populate: bool = False,
        lock_memory: bool = False,
        huge_pages: bool = False,
        waiting: Waiting = "balanced",
        owner: Owner | None = None,
    ) -> Queue:
        """Create a queue, and take part in it. This handle's ``close()`` ends the stream.

        So does the ordinary exit of the process, and ``end()`` by any participant. Nothing else
        does: the stream stays open when all producers have left. With ``ends_with="last_producer"``
        the last living producer's ``close()`` ends it instead; the creator counts as a producer
        from its first put on, and may leave before. A death by a signal never ends it: then any
        process attaches and calls ``end()``.

        At most ``slots`` messages are queued or being worked on at a time, in at most ``capacity``
        bytes; messages of up to ``inline_bytes`` take none of it. ``participants`` processes or
        handles may be attached at once. A message that was delivered ``max_deliveries`` times
        without being acknowledged becomes a dead letter (0: never; up to 62), see
        ``dead_letters()``; its last delivery before that is of this message alone, see
        ``get_many()``. ``codec="pickle"`` puts values that the typed codec does not support as
        pickles; consumers must ask for that too.

        Memory for messages is reserved when they need it, and given back when the queue is idle.
        ``populate`` takes all of it at once and for good (NoSpace if there is too little) and maps
        it into this process, some 0.7 s for each GiB, which Ctrl-C ends; ``lock_memory`` keeps it
        from being swapped out. ``huge_pages``, as of ``Broadcast.create()``, also takes all of it.

        ``waiting``, as of ``Broadcast.create()``, bounds what the waits for messages and for room
        may cost the processor.

        A queue of that name without a living participant is replaced. If it held messages, they are
        lost, and a RuntimeWarning says how many; ``attach()`` keeps them. Another user's is
        replaced only if ``owner`` names that user.

        Raises InvalidName, InvalidArgument, AlreadyExists, NoSpace or PermissionDenied.
        """
        queue = Queue(
            name,
            capacity=capacity,
            slots=slots,
            inline_bytes=inline_bytes,
            participants=participants,
            max_deliveries=max_deliveries,
            ends_with=ends_with,
            codec=codec,
            populate=populate,
            lock_memory=lock_memory,
            huge_pages=huge_pages,
            waiting=waiting,
            owner=owner,
        )
        close_at_exit(queue)
        warn_of_replaced(queue.name, queue._replaced)
        return queue

    @staticmethod
    def attach(
        name: Name | Handle,
        *,
        role: Role = "any",
        codec: Codec = None,
        timeout: float | None = 0,
        owner: Owner | None = None,
    ) -> Queue:
        """Attach by name, or by the handle of a process that is attached.

        Waits until ``timeout`` for the name to appear. If the stream ends with its last producer, a
        participant with role ``"producer"`` counts as one at once, and with ``"any"`` from its
        first put on. A ``"consumer"`` maps the messages read-only and can't put.

        Another user's queue is refused at once, by PermissionDenied, unless ``owner`` names that
        user; with ``codec="pickle"`` even then, because its pickles would run that user's code.

        Raises NotFound, Busy (no free slot), Incompatible, Corrupt or PermissionDenied.
        """
        handle = handle_of(name)
        queue = Queue(
            handle.name,
            instance=handle.instance,
            role=role,
            codec=codec,
            timeout=timeout,
            owner=owner,
        )
        close_at_exit(queue)
        return queue

    @staticmethod
    async def attach_async(
        name: Name | Handle,
        *,
        role: Role = "any",
        codec: Codec = None,
        timeout: float | None = 0,
        owner: Owner | None = None,
    ) -> Queue:
        """``attach`` for tasks. A task that is cancelled has attached to nothing."""
        return await attach_when_there(
            "queue",
            name,
            lambda: Queue.attach(name, role=role, codec=codec, owner=owner),
            Countdown(timeout),
            owner,
        )

    @property
    def handle(self) -> Handle:
        """A handle with which another process attaches; can be pickled."""
        return Handle(self.name, self._instance)

    def put_many(self, objs: Iterable[Any], timeout: float | None = None) -> int:
        """Put values in order, all within ``timeout``; return how many.

        Short values of a list or tuple are put many at a time, which is faster than single puts; a
        value of any other iterable is put before the next one is requested.

        An exception has an attribute ``accepted``: how many values, from the first on, are in the
        queue all the same.
        """
        putting = _core._PutMany()
        try:
            putting.put(self, objs, timeout)
        except Error as error:
            error.accepted = putting.accepted
            raise
        return putting.accepted

    def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """The dead letters, oldest first, at most ``limit``.

        Each keeps its slot and its bytes until it is requeued or dropped; ``letter.content()`` is a
        copy of its value. Never waits and locks nothing. Raises Closed.
        """
        codec = self._codec
        return letters_of(self, limit, lambda letter, raw: decode_content(letter, raw, codec))

    def requeue_dead_letters(self, sequences: Chosen = None) -> int:
        """Deliver dead letters again; return how many. All of them, or those of these
        ``sequences``.

        They come in their old position, before messages that were put after them, with their
        deliveries counted from 0; also after the end of the stream. Sequences that are no dead
        letters (any more) are skipped: of two calls for the same one, one requeues it. Raises
        Closed.
        """
        return self._requeue_dead_letters(chosen_sequences(sequences))

    def drop_dead_letters(self, sequences: Chosen = None) -> int:
        """Delete dead letters; return how many. All of them, or those of these ``sequences``.

        Their slots and bytes become free; ``stats().dropped`` counts them. Raises Closed.
        """
        return self._drop_dead_letters(chosen_sequences(sequences))

    async def put_async(self, obj: Any, timeout: float | None = None) -> None:
        """``put`` for tasks. A task that is cancelled has put nothing."""
        await self._put_async(self._encode(obj), Countdown(timeout))

    async def put_bytes_async(self, data: Any, timeout: float | None = None) -> None:
        """``put_bytes`` for tasks. A task that is cancelled has put nothing."""
        await self._put_async(self._pin(data), Countdown(timeout))

    async def _put_async(self, message: _core._OutgoingPut, countdown: Countdown) -> None:
        await try_until_done(
            lambda: message.try_send(self),
            lambda cancel: message.wait_for_room(self, countdown.left(), cancel),
            countdown,
        )

    async def put_many_async(self, objs: Iterable[Any], timeout: float | None = None) -> int:
        """``put_many`` for tasks.

        Exceptions, including CancelledError, have an attribute ``accepted``: how many values, from
        the first on, are in the queue all the same.
        """
        countdown = Countdown(timeout)
        accepted = 0
        try:
            for obj in objs:
                await self._put_async(self._encode(obj), countdown)
                accepted += 1
        except (Error, asyncio.CancelledError) as error:
            error.accepted = accepted  # type: ignore[union-attr]
            raise
        return accepted

    async def get_async(self, timeout: float | None = None) -> Any:
        """``get`` for tasks. A task that is cancelled has taken nothing."""
        countdown = Countdown(timeout)
        return await try_until_done(
            lambda: self.get(0),
            lambda cancel: self._wait_message(countdown.left(), cancel),
            countdown,
        )

    def get_view_async(self, timeout: float | None = None) -> AsyncBlock[Any]:
        """``get_view`` for tasks: ``async with queue.get_view_async() as obj``.

        A task that is cancelled while it waits has taken nothing.
        """
        return self._block_async(self.get_view, Countdown(timeout))

    def get_many_async(
        self, max_items: int = 64, min_items: int = 1, timeout: float | None = None
    ) -> AsyncBlock[list[Any]]:
        """``get_many`` for tasks: ``async with queue.get_many_async() as batch``.

        A task that is cancelled while it waits has taken nothing.
        """
        self.get_many(max_items, min_items, 0)  # raises at once if the numbers are wrong
        return self._block_async(
            lambda timeout: self.get_many(max_items, min_items, timeout), Countdown(timeout)
        )

    def _block_async(
        self, make: Callable[[float | None], _core.Batch], countdown: Countdown
    ) -> AsyncBlock[Any]:
        async def begin() -> Entered[Any]:
            try:
                return enter(make(0))
            except Timeout:
                if countdown.left() == 0:
                    raise
            return await take_in_thread(
                lambda: enter(make(countdown.left())),
                lambda entered: cast(_core.Batch, entered.block)._untake(),
            )

        return AsyncBlock(begin)

    def __bool__(self) -> bool:
        return True  # an empty queue is true as well

    def __repr__(self) -> str:
        return describe(self, lambda: repr(self.name))
