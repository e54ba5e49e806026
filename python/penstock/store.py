"""Store: named immutable objects in shared memory. Reserve, write, commit; look up, read in place,
release; evicted when memory is needed.

There is no server: every process writes and reads by itself. Redis or Valkey may be its second
tier, for objects that do not fit one machine or are used by several. C++ does the work; this module
has creation and attachment, cold paths, and the async twins.
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Literal, TypeVar, overload

from . import _core
from ._async_block import AsyncView
from ._context import close_on_failure
from ._exit import close_at_exit
from ._repr import describe
from ._reservation import Key, Reservation, StoreRef
from ._second_tier import SecondTier, SecondTierLike
from ._threads import Countdown, attach_when_there, take_in_thread, try_until_done
from .errors import Error, InvalidArgument, NotFound, Timeout
from .handle import Handle, Name, Owner, Waiting, handle_of
from .state import StoreLook, Unwritten

__all__ = ["Key", "SecondTier", "Store", "StoreRef"]

Codec = Literal["pickle"] | None
Eviction = Literal["sieve", "fifo", "lru", "none"]
T = TypeVar("T")

CLOSE_SECONDS = 5.0  # for pending writes, if the caller sets no limit
_MISSING: Any = object()


class Store(_core.Store):
    """One participant of a store; made by ``Store.create()`` or ``Store.attach()``.

    Any thread may use it. In a forked child it attaches anew at its first use there. As a context
    manager it closes at the end. Keys are str or bytes, up to 4096 bytes; a str is its UTF-8.

    With a ``second_tier`` look-ups that miss in shared memory read through to it, and objects that
    are put are written there by its ``policy``. Calls that may ask a server release the GIL, take a
    ``timeout`` in seconds (``timeout=0`` asks shared memory alone) and end within 80 ms after
    Ctrl-C; without one the tier's own timeouts apply. In look-ups, failures of a server and
    unusable values are misses, and ``stats().second_tier`` gives the reason. At the end of a
    ``with`` block, and of the interpreter, the store warns of objects that were not written to the
    tier; garbage collection drops pending writes without a warning. Without a second tier only
    ``wait`` and ``populate`` use a ``timeout``.
    """

    __slots__ = ()

    @staticmethod
    def create(
        name: Name,
        *,
        capacity: int | str = "256MiB",
        objects: int | None = None,
        participants: int = 64,
        eviction: Eviction = "sieve",
        granule: int | str | None = None,
        persistent: bool = False,
        codec: Codec = None,
        populate: bool = False,
        lock_memory: bool = False,
        huge_pages: bool = False,
        waiting: Waiting = "balanced",
        owner: Owner | None = None,
        second_tier: SecondTierLike = None,
    ) -> Store:
        """Create a store, and take part in it.

        ``capacity`` bounds the bytes of objects with their keys and metadata; memory is reserved
        when it is first needed. There are at most about ``objects`` at a time (by default one for
        each 16 KiB). When room is needed, ``eviction`` selects the victim: ``"sieve"`` the oldest
        that was not read lately, ``"fifo"`` the oldest, ``"lru"`` the one not read for longest,
        ``"none"`` nothing, so that NoSpace is raised. Pinned, staged and retained objects are never
        evicted. Sizes are rounded up to ``granule`` bytes. A ``persistent`` store stays when the
        last participant leaves, and create() does not replace it while objects are in it:
        ``attach()``, or remove it with ``penstock gc --data``. ``populate`` takes all memory at
        once (NoSpace if there is too little) and maps it into this process, some 0.7 s for each
        GiB: Ctrl-C ends it, and other threads run. Other processes that attach map it by
        ``populate()``. ``huge_pages``, as of ``Broadcast.create()``, also takes all memory at once,
        and makes its first use fast in every process. ``codec="pickle"`` puts values that the
        typed codec does not support as pickles; readers must ask for that too. A store of that name
        left by another user is replaced only if ``owner`` names that user.
        ``waiting``, as of ``Broadcast.create()``, bounds what waits for a key may cost the
        processor.
        ``second_tier`` is a URL of Redis or Valkey, or a ``SecondTier``: that of this object alone;
        every participant names its own. The server is tried once. An unreachable server is an
        outage, which may end; refused credentials raise PermissionDenied, and no store is made.

        Raises InvalidName, InvalidArgument, AlreadyExists, NoSpace or PermissionDenied.
        """
        store = Store(
            name,
            capacity=capacity,
            objects=objects,
            participants=participants,
            eviction=eviction,
            granule=granule,
            persistent=persistent,
            codec=codec,
            populate=populate,
            lock_memory=lock_memory,
            huge_pages=huge_pages,
            waiting=waiting,
            owner=owner,
            second_tier=SecondTier.of(second_tier),
        )
        close_at_exit(store, Store._leave)
        return store

    @staticmethod
    def attach(
        name: Name | Handle,
        *,
        codec: Codec = None,
        timeout: float | None = 0,
        owner: Owner | None = None,
        populate: bool = False,
        second_tier: SecondTierLike = None,
    ) -> Store:
        """Attach by name, or by the handle of a process that is attached.

        Waits until ``timeout`` for the name to appear. ``populate`` maps the store's memory into
        this process at once, however long that takes: see ``populate()``.

        Another user's store is refused at once, by PermissionDenied, unless ``owner`` names that
        user; with ``codec="pickle"`` even then, because its pickles would run that user's code.
        ``second_tier`` is as in ``create()``; give all machines that share objects the same one.

        Raises NotFound, Busy (no free slot), Incompatible, Corrupt or PermissionDenied.
        """
        handle = handle_of(name)
        store = Store(
            handle.name,
            instance=handle.instance,
            codec=codec,
            timeout=timeout,
            owner=owner,
            second_tier=SecondTier.of(second_tier),
        )
        close_at_exit(store, Store._leave)
        if populate:
            with close_on_failure(store):
                store.populate()
        return store

    @staticmethod
    async def attach_async(
        name: Name | Handle,
        *,
        codec: Codec = None,
        timeout: float | None = 0,
        owner: Owner | None = None,
        populate: bool = False,
        second_tier: SecondTierLike = None,
    ) -> Store:
        """``attach`` for tasks. A task that is cancelled has attached to nothing."""

        countdown = Countdown(timeout)

        def attach(timeout: float | None = 0) -> Store:
            return Store.attach(
                name, codec=codec, timeout=timeout, owner=owner, second_tier=second_tier
            )

        if second_tier is None:
            store = await attach_when_there("store", name, attach, countdown, owner)
        else:  # its server may hang
            store = await take_in_thread(lambda: attach(countdown.left()), Store.close)
        if populate:
            with close_on_failure(store):
                await store.populate_async()
        return store

    async def populate_async(self, timeout: float | None = None) -> None:
        """``populate`` for tasks. Memory mapped before a task was cancelled stays mapped."""
        await take_in_thread(lambda: self.populate(timeout), lambda _: None)

    @property
    def handle(self) -> Handle:
        """A handle with which another process attaches; can be pickled."""
        return Handle(self.name, self._instance)

    # --- putting ---------------------------------------------------------------------------------

    def reserve(
        self,
        key: Key,
        nbytes: int | str | None = None,
        *,
        shape: Any = None,
        dtype: Any = None,
        meta: Any = None,
        weight: int = 0,
        expires_after: float | None = None,
        alignment: int | str | None = None,
    ) -> Reservation:
        """Room for an object that is not visible before its commit.

        ``with store.reserve(key, shape=(2, 3), dtype="float16") as array:`` gives an array that
        becomes the object. It is committed at the end of the block, even if something still refers
        to it, and discarded on an exception. Afterwards the array may still be read: writes raise,
        or change a private copy. ``shape`` and ``dtype`` are all that ``numpy.empty`` takes (except
        objects); a torch dtype gives a tensor. With ``nbytes`` it is a writable buffer. ``meta`` is
        any typed value, stored beside the object. Other objects are evicted where that is needed;
        ``weight`` makes the eviction pass the object that many more times. After ``expires_after``
        seconds the commit is refused (Expired) and the key is free; the memory stays the writer's
        until the end of the block. ``alignment`` is that of the object's address, up to 2 MiB.

        Raises AlreadyExists, Busy (the key is being written; ``error.rank`` is the writer's slot),
        NoSpace, TooLarge or InvalidArgument.
        """
        options = {
            "meta": meta,
            "weight": weight,
            "expires_after": expires_after,
            "alignment": alignment,
        }
        if (nbytes is None) == (shape is None):
            raise InvalidArgument("a reservation takes nbytes, or shape and dtype")
        if nbytes is not None:
            return Reservation(self._reserve_bytes(key, nbytes, **options))
        return Reservation.of_tensor(self, key, shape, dtype, options)

    def reserve_many(
        self,
        keys: Iterable[Key],
        nbytes: int | str | Iterable[int | str],
        *,
        prefix: bool = False,
        **options: Any,
    ) -> list[Reservation | Error]:
        """A reservation for each key, or the error that explains its failure.

        ``prefix`` stops at the first failure, which is then the last item of the list. Each
        reservation is to be committed (``commit_many``) or aborted.
        """
        keys = list(keys)
        sizes = [nbytes] * len(keys) if isinstance(nbytes, int | str) else list(nbytes)
        outcomes: list[Reservation | Error] = []
        for key, size in zip(keys, sizes, strict=True):
            outcomes.append(self._try_reserve(key, size, options))
            if prefix and isinstance(outcomes[-1], Error):
                break
        return outcomes

    def _try_reserve(
        self, key: Key, nbytes: int | str, options: dict[str, Any]
    ) -> Reservation | Error:
        try:
            return self.reserve(key, nbytes, **options)
        except Error as error:
            return error.with_traceback(None)  # a traceback would keep the other reservations alive

    def commit_many(self, reservations: Iterable[Reservation | Error]) -> list[bool]:
        """Commits each; True where that raised nothing. Items that are errors give False.

        With ``"write_through"`` False may also mean that only the second tier lacks the object.
        """
        return [_commits(reservation) for reservation in reservations]

    # --- looking up ------------------------------------------------------------------------------

    @overload
    def get(self, key: Key, *, timeout: float | None = None) -> _core.StoreView: ...
    @overload
    def get(self, key: Key, default: T, *, timeout: float | None = None) -> _core.StoreView | T: ...
    def get(self, key: Key, default: Any = _MISSING, *, timeout: float | None = None) -> Any:
        """The object, in place: ``with store.get(key) as obj``.

        Arrays are read-only views of shared memory, which is mapped read-only: a write through a
        tensor, which does not know that, ends the process by SIGSEGV. The object is pinned, and not
        evicted, until the block has ended and the last array made of it is gone. The view has
        ``meta``, ``nbytes``, ``ref`` and ``offset``, and is true.

        Raises NotFound if there is no such object; or returns ``default`` itself, which makes
        look-up and pin one step: ``if (view := store.get(key, default=None)) is not None:``, then
        ``with view as obj``. For one block in both cases pass a block:
        ``with store.get(key, default=nullcontext()) as obj`` (of contextlib) has None if there is
        no object.
        """
        view = self._get(key, timeout)
        return self._miss(key, default) if view is None else view

    def get_copy(self, key: Key, default: Any = _MISSING, *, timeout: float | None = None) -> Any:
        """A private copy of the object: its arrays are writable. NotFound, or ``default``."""
        found = self._get_copy(key, _MISSING, timeout)
        return self._miss(key, default) if found is _MISSING else found

    def _miss(self, key: Key, default: Any) -> Any:
        if default is _MISSING:
            raise NotFound(f"there is no {key!r} in the store '{self.name}'")
        return default

    def get_ref(self, ref: StoreRef) -> _core.StoreView:
        """The object that has this ``ref``; never a later object of its key."""
        view = self._get_ref(*ref)
        if view is None:
            raise NotFound(f"the object {ref} is not in the store '{self.name}' any more")
        return view

    @contextmanager
    def get_many(
        self, keys: Iterable[Key], *, prefix: bool = False, timeout: float | None = None
    ) -> Iterator[list[Any]]:
        """The objects, in place; None for missing ones.

        With ``prefix`` the list ends before the first missing one: its length is how many of the
        first keys are present. ``timeout`` is for all of them.
        """
        countdown = Countdown(timeout)
        with ExitStack() as stack:
            found: list[Any] = []
            for key in keys:
                view = self._get(key, countdown.left())
                if view is None and prefix:
                    break
                found.append(None if view is None else stack.enter_context(view))
            yield found
            found.clear()  # the block may have kept the list, but not its items

    def prefix_length(self, keys: Iterable[Key], *, timeout: float | None = None) -> int:
        """How many of the first keys are present, as far as a server answers within ``timeout``."""
        countdown = Countdown(timeout)
        count = 0
        for key in keys:
            if not self._contains(key, countdown.left()):
                break
            count += 1
        return count

    def meta(self, key: Key, *, timeout: float | None = None) -> Any:
        """The metadata beside the object, or None. NotFound, and ``timeout``, as of ``get``."""
        return self.get(key, timeout=timeout).meta

    def look(self, key: Key, *, timeout: float | None = None) -> StoreLook:
        """The state of the key: resident, being written (and by which participant), in the second
        tier alone, or none of these; as far as a server answers within ``timeout``."""
        return StoreLook(*self._look(key, timeout))

    def wait(self, key: Key, timeout: float | None = None) -> _core.StoreView:
        """Waits until the object is resident, then as ``get``. A second tier is asked again after
        pauses that grow from 10 ms to 1 s."""
        return self._wait(key, timeout)

    # --- the end ---------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> Unwritten:
        """Wait until all objects put before are in the second tier or dropped.

        Returns how many still wait after ``timeout`` seconds, and how many were dropped since the
        last report: ``is_nothing()`` if none, and without a second tier.
        """
        return Unwritten(**self._flush(timeout))

    def close(self, timeout: float | None = CLOSE_SECONDS) -> Unwritten:
        """``flush``, then drop pending writes, and leave. Views and reservations stay valid until
        they end; a later commit reaches shared memory alone, and raises Closed or Cancelled if the
        second tier was to have the object.

        Objects that are not in the second tier are counted in ``dropped``. Other threads that wait
        for a server get Cancelled or Closed. Ctrl-C ends the wait as the end of ``timeout`` does.
        Idempotent.
        """
        return Unwritten(**self._close(timeout))

    def _leave(self) -> None:
        if unwritten := self.close():
            self._warn_of(unwritten)

    def _warn_of(self, unwritten: Unwritten) -> None:
        warnings.warn(
            f"the second tier has not got {unwritten.dropped} objects "
            f"({unwritten.dropped_bytes} bytes) that were put into '{self.name}'; "
            "close(timeout) waits as long as you say, and tells",
            RuntimeWarning,
            stacklevel=4,
        )

    # --- for tasks: calls that may ask a server run in a thread ----------------------------------

    def wait_async(self, key: Key, timeout: float | None = None) -> AsyncView[_core.StoreView]:
        """``wait`` for tasks: ``async with store.wait_async(key) as obj``, or ``await`` its view.

        A task that is cancelled while it waits has pinned nothing.
        """
        countdown = Countdown(timeout)
        return AsyncView(
            lambda: try_until_done(
                lambda: self._wait(key, 0),
                lambda cancel: self._wait(key, countdown.left(), cancel).release(),
                countdown,
            )
        )

    @overload
    def get_async(
        self, key: Key, *, timeout: float | None = None
    ) -> AsyncView[_core.StoreView]: ...
    @overload
    def get_async(
        self, key: Key, default: T, *, timeout: float | None = None
    ) -> AsyncView[_core.StoreView | T]: ...
    def get_async(
        self, key: Key, default: Any = _MISSING, *, timeout: float | None = None
    ) -> AsyncView[Any]:
        """``get`` for tasks: ``async with store.get_async(key) as obj``, or ``await`` its view.

        Awaited, it is ``default`` itself if there is no such object; ``async with`` gives the block
        that. A task that is cancelled while it waits has pinned nothing.
        """
        countdown = Countdown(timeout)

        async def ask() -> Any:
            try:
                return self.get(key, default, timeout=0)  # no server is asked
            except Timeout:
                return await take_in_thread(
                    lambda: self.get(key, default, timeout=countdown.left()), _let_go
                )

        return AsyncView(ask)

    async def get_copy_async(
        self, key: Key, default: Any = _MISSING, *, timeout: float | None = None
    ) -> Any:
        """``get_copy`` for tasks."""
        return await _in_thread(lambda left: self.get_copy(key, default, timeout=left()), timeout)

    @asynccontextmanager
    async def get_many_async(
        self, keys: Iterable[Key], *, prefix: bool = False, timeout: float | None = None
    ) -> AsyncIterator[list[Any]]:
        """``get_many`` for tasks: ``async with store.get_many_async(keys) as found``."""
        countdown = Countdown(timeout)
        async with AsyncExitStack() as stack:
            found: list[Any] = []
            for key in keys:
                view = await self.get_async(key, None, timeout=countdown.left())
                if view is None and prefix:
                    break
                found.append(None if view is None else stack.enter_context(view))
            yield found
            found.clear()

    async def put_async(
        self,
        key: Key,
        obj: Any,
        *,
        meta: Any = None,
        weight: int = 0,
        expires_after: float | None = None,
        timeout: float | None = None,
    ) -> bool:
        """``put`` for tasks; ``obj`` must not change meanwhile.

        A task that is cancelled leaves the object in the first tier, or never put it: the next
        ``put`` says which.
        """
        options: dict[str, Any] = {"meta": meta, "weight": weight, "expires_after": expires_after}
        return await _in_thread(lambda left: self.put(key, obj, **options, timeout=left()), timeout)

    async def put_bytes_async(
        self,
        key: Key,
        data: Any,
        *,
        meta: Any = None,
        weight: int = 0,
        expires_after: float | None = None,
        timeout: float | None = None,
    ) -> bool:
        """``put_bytes`` for tasks; otherwise as ``put_async``."""
        options: dict[str, Any] = {"meta": meta, "weight": weight, "expires_after": expires_after}
        return await _in_thread(
            lambda left: self.put_bytes(key, data, **options, timeout=left()), timeout
        )

    def reserve_async(
        self, key: Key, nbytes: int | str | None = None, **options: Any
    ) -> Reservation:
        """``reserve`` for tasks, with its options: ``async with store.reserve_async(…) as room``.

        The end of the block commits, and waits where ``policy`` says so. A task that is cancelled
        inside the block has put nothing; one that is cancelled at its end leaves the object in the
        first tier.
        """
        return self.reserve(key, nbytes, **options)

    async def contains_async(self, key: Key, *, timeout: float | None = None) -> bool:
        """``key in store`` for tasks."""
        return await _in_thread(lambda left: self._contains(key, left()), timeout)

    async def prefix_length_async(
        self, keys: Iterable[Key], *, timeout: float | None = None
    ) -> int:
        """``prefix_length`` for tasks."""
        return await _in_thread(lambda left: self.prefix_length(keys, timeout=left()), timeout)

    async def keys_async(self, timeout: float | None = None) -> list[str | bytes]:
        """``keys`` for tasks."""
        return await _in_thread(lambda left: self.keys(left()), timeout)

    async def meta_async(self, key: Key, *, timeout: float | None = None) -> Any:
        """``meta`` for tasks."""
        return await _in_thread(lambda left: self.meta(key, timeout=left()), timeout)

    async def look_async(self, key: Key, *, timeout: float | None = None) -> StoreLook:
        """``look`` for tasks."""
        return await _in_thread(lambda left: self.look(key, timeout=left()), timeout)

    async def touch_async(self, key: Key, timeout: float | None = None) -> bool:
        """``touch`` for tasks."""
        return await _in_thread(lambda left: self.touch(key, left()), timeout)

    async def delete_async(self, key: Key, timeout: float | None = None) -> bool:
        """``delete`` for tasks. A task that is cancelled may have deleted it."""
        return await _in_thread(lambda left: self.delete(key, left()), timeout)

    async def flush_async(self, timeout: float | None = None) -> Unwritten:
        """``flush`` for tasks. The report of a cancelled task is part of the next one."""
        countdown = Countdown(timeout)
        return await take_in_thread(
            lambda: self.flush(countdown.left()),
            lambda report: self._owe(report.dropped, report.dropped_bytes),
        )

    async def close_async(self, timeout: float | None = CLOSE_SECONDS) -> Unwritten:
        """``close`` for tasks. A task that is cancelled while it waits has closed nothing."""
        if not self.closed and not self._is_foreign:
            report = await self.flush_async(timeout)
            self._owe(report.dropped, report.dropped_bytes)
        # In a thread: close() joins the tier's threads, one of which may wait for the resolver.
        return await _in_thread(lambda _: self.close(0), 0)

    async def __aenter__(self) -> Store:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if unwritten := await self.close_async():
            self._warn_of(unwritten)

    def __exit__(self, *_: object) -> None:
        self._leave()

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return describe(self, lambda: repr(self.name))


def _commits(reservation: Reservation | Error) -> bool:
    if isinstance(reservation, Error):
        return False
    try:
        reservation.commit()
    except Error:
        return False
    return True


async def _in_thread(call: Callable[[Callable[[], float | None]], T], timeout: float | None) -> T:
    """``call(left)`` in a thread; ``left()`` is the rest of the timeout. Cancelled: not undone."""
    countdown = Countdown(timeout)
    return await take_in_thread(lambda: call(countdown.left), lambda _: None)


def _let_go(found: object) -> None:
    if isinstance(found, _core.StoreView):
        found.release()
