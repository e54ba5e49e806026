"""Store: named immutable objects in shared memory. Reserve, write, commit; look up, read in place,
release; evicted when memory is needed.

There is no server: every process writes and reads by itself. C++ does the work; here are creation
and attachment, cold paths, and the async twin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

from . import _core
from ._async_block import AsyncView
from ._context import close_on_failure
from ._exit import close_at_exit
from ._objects import Key, StoreRef, get, get_copy, reserve
from ._repr import describe
from ._reservation import Reservation
from ._threads import Countdown, attach_when_there, take_in_thread, try_until_done
from .errors import Error, NotFound
from .handle import Handle, Name, Owner, handle_of
from .state import StoreLook

__all__ = ["Store", "StoreRef"]

Codec = Literal["pickle"] | None
Eviction = Literal["sieve", "fifo", "lru", "none"]


class Store(_core.Store):
    """One participant of a store; made by ``Store.create()`` or ``Store.attach()``.

    Any thread may use it. In a forked child it attaches anew at its first use there. As a context
    manager it closes at the end. Keys are str or bytes, up to 4096 bytes; a str is its UTF-8.
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
        owner: Owner | None = None,
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
        ``populate()``. ``codec="pickle"`` puts values that the typed codec does not support as
        pickles; readers must ask for that too. A store of that name left by another user is
        replaced only if ``owner`` names that user.

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
            owner=owner,
        )
        close_at_exit(store)
        return store

    @staticmethod
    def attach(
        name: Name | Handle,
        *,
        codec: Codec = None,
        timeout: float | None = 0,
        owner: Owner | None = None,
        populate: bool = False,
    ) -> Store:
        """Attach by name, or by the handle of a process that is attached.

        Waits until ``timeout`` for the name to appear. ``populate`` maps the store's memory into
        this process at once, however long that takes: see ``populate()``.

        Another user's store is refused at once, by PermissionDenied, unless ``owner`` names that
        user; with ``codec="pickle"`` even then, because its pickles would run that user's code.

        Raises NotFound, Busy (no free slot), Incompatible, Corrupt or PermissionDenied.
        """
        handle = handle_of(name)
        store = Store(
            handle.name, instance=handle.instance, codec=codec, timeout=timeout, owner=owner
        )
        close_at_exit(store)
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
    ) -> Store:
        """``attach`` for tasks. A task that is cancelled has attached to nothing."""
        store = await attach_when_there(
            "store",
            name,
            lambda: Store.attach(name, codec=codec, owner=owner),
            Countdown(timeout),
            owner,
        )
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

    reserve = reserve

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
        """Commits each; True for objects that are visible now. Items that are errors give False."""
        return [_commits(reservation) for reservation in reservations]

    get = get
    get_copy = get_copy

    def get_ref(self, ref: StoreRef) -> _core.StoreView:
        """The object that has this ``ref``; never a later object of its key."""
        view = self._get_ref(*ref)
        if view is None:
            raise NotFound(f"the object {ref} is not in the store '{self.name}' any more")
        return view

    @contextmanager
    def get_many(self, keys: Iterable[Key], *, prefix: bool = False) -> Iterator[list[Any]]:
        """The objects, in place; None for missing ones.

        With ``prefix`` the list ends before the first missing one: its length is how many of the
        first keys are resident.
        """
        with ExitStack() as stack:
            found: list[Any] = []
            for key in keys:
                view = self._get(key)
                if view is None and prefix:
                    break
                found.append(None if view is None else stack.enter_context(view))
            yield found
            found.clear()  # the block may have kept the list, but not its items

    def prefix_length(self, keys: Iterable[Key]) -> int:
        """How many of the first keys are resident."""
        count = 0
        for key in keys:
            if key not in self:
                break
            count += 1
        return count

    def meta(self, key: Key) -> Any:
        """The metadata stored beside the object, or None. NotFound if there is no object."""
        return self.get(key).meta

    def look(self, key: Key) -> StoreLook:
        """The state of the key: resident, being written (and by which participant), or neither."""
        return StoreLook(*self._look(key))

    def wait(self, key: Key, timeout: float | None = None) -> _core.StoreView:
        """Waits until the object is resident, then as ``get``."""
        return self._wait(key, timeout)

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
