"""TieredStore: a Store with Redis or Valkey behind it, for objects that do not fit one machine or
are used by several.

Objects in the first tier are found there without asking a server; others are fetched once for the
whole machine. C++ does the work; here are creation and cold paths.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Literal, NoReturn, TypeVar, overload

from . import _core
from ._async_block import AsyncView
from ._exit import close_at_exit
from ._objects import MISSING, Key, get, get_copy, reserve
from ._repr import describe
from ._reservation import Reservation
from ._threads import Countdown, take_in_thread
from .errors import InvalidType
from .state import TierStats, Unwritten
from .store import Store

__all__ = ["AsyncReservation", "TieredStore"]

Policy = Literal["write_back", "write_through", "read_only"]
WhenFull = Literal["drop", "wait"]
T = TypeVar("T")

CLOSE_SECONDS = 5.0  # for pending writes, if the caller sets no limit


class TieredStore(_core.TieredStore):
    """One participant of a store, and of the second tier behind it.

    ``TieredStore(store, "redis://cache:6379")`` takes ``store`` over: it becomes ``first``, still
    serves the first tier alone, and is closed together with this object; its own ``close()`` has no
    effect. If the constructor fails the store is unchanged.

    Any thread may use it; it has threads of its own. In a forked child every call raises
    WrongProcess: make one there, of a Store that is attached there. As a context manager, and when
    the interpreter ends, it closes as ``close()`` does and warns of objects that were not written.
    Garbage-collected without that, it gives up pending writes without a warning.

    Calls that may ask a server let other threads run, and end within 80 ms after Ctrl-C. A request
    takes ``connect_timeout`` and ``request_timeout`` at most, a whole object ``request_timeout``
    for each begun ``part`` of it, and one more.

    Any fault of a server or of its values is a miss: ``get`` and ``get_copy`` raise NotFound for
    it, or return the default, and ``stats()`` gives the reason.
    """

    __slots__ = ()

    def __init__(
        self,
        store: Store,
        urls: str | Iterable[str],
        *,
        cluster: bool = False,
        prefix: str = "penstock:",
        policy: Policy = "write_back",
        connect_timeout: float = 1.0,
        request_timeout: float = 2.0,
        retry_first: float = 0.05,
        retry_most: float = 5.0,
        max_inflight: int | str = "256MiB",
        when_full: WhenFull = "drop",
        full_timeout: float = 1.0,
        writers: int = 1,
        part: int | str = "64MiB",
        ttl: float | None = None,
        delete_corrupt: bool = False,
    ) -> None:
        """Take the store over, and try the server once. All times are seconds.

        ``urls`` is ``redis://[user:password@]host[:port][/db]`` or
        ``unix:[//user:password@]/path[?db=N]``, or with ``cluster`` several of them. ``prefix``
        stands before every key there; the same in all processes that share objects.

        ``policy`` is ``"write_back"``: what is put is written by threads, ``writers`` of them;
        ``"write_through"``: put and commit return when the second tier has it too, or raise;
        ``"read_only"``: nothing is written or removed there. What waits to be written stays pinned
        in the first tier, at most ``max_inflight`` bytes and never more than half of it; beyond
        that ``when_full`` says whether the second tier does without (``"drop"``, which is counted)
        or put waits for room (``"wait"``, for at most ``full_timeout``, and not while a server is
        away).

        A request and its answer, a ``part`` of an object at most (4 KiB to 512 MiB), take at most
        ``request_timeout``; a server that failed is tried again after ``retry_first``, then ever
        more seldom up to ``retry_most``. ``ttl`` is how long the second tier keeps an object.
        ``delete_corrupt`` deletes there what is found damaged.

        A server that is not there is an outage, which may end, and no error. Raises InvalidArgument
        (also where the package was built without hiredis), PermissionDenied (it does not accept the
        password), Busy (another thread uses the store, or it is another's first tier), Closed or
        TypeError.
        """
        if not isinstance(store, Store):
            raise InvalidType(f"the first tier must be a penstock.Store, not {store!r}")
        super().__init__(
            store,
            _list_of(urls),
            cluster=cluster,
            prefix=prefix,
            policy=policy,
            connect_timeout=connect_timeout,
            request_timeout=request_timeout,
            retry_first=retry_first,
            retry_most=retry_most,
            max_inflight=max_inflight,
            when_full=when_full,
            full_timeout=full_timeout,
            writers=writers,
            part=part,
            ttl=ttl,
            delete_corrupt=delete_corrupt,
        )
        close_at_exit(self, TieredStore._leave)

    reserve = reserve
    get = get
    get_copy = get_copy

    def flush(self, timeout: float | None = None) -> Unwritten:
        """Wait until everything put before is written, or given up.

        Returns what still waits after ``timeout`` seconds, and what was dropped since the last
        report: ``is_nothing()`` if there is nothing.
        """
        return Unwritten(**self._flush(timeout))

    def close(self, timeout: float | None = CLOSE_SECONDS) -> Unwritten:
        """``flush``, then give up pending writes, and leave both tiers.

        Objects that are not in the second tier are counted in ``dropped``. Other threads that wait
        for a server get Cancelled or Closed. Ctrl-C ends the wait as the end of ``timeout`` does.
        Idempotent.
        """
        return Unwritten(**self._close(timeout))

    # --- for tasks: calls that may ask a server run in a thread
    # -------------------------------------

    @overload
    def get_async(self, key: Key) -> AsyncView[_core.StoreView]: ...
    @overload
    def get_async(self, key: Key, default: T) -> AsyncView[_core.StoreView | T]: ...
    def get_async(self, key: Key, default: Any = MISSING) -> AsyncView[Any]:
        """``get`` for tasks: ``async with tiered.get_async(key) as obj``, or ``await`` its view.

        Awaited, it is ``default`` itself if there is no such object; ``async with`` gives the block
        that. A task that is cancelled while it waits has pinned nothing.
        """

        async def ask() -> Any:
            if key in self.first:  # no server is asked
                view = self.first._get(key)
                if view is not None:
                    return view
            return await take_in_thread(lambda: self.get(key, default), _let_go)

        return AsyncView(ask)

    async def get_copy_async(self, key: Key, default: Any = MISSING) -> Any:
        """``get_copy`` for tasks."""
        return await take_in_thread(lambda: self.get_copy(key, default), _leave_it)

    async def put_async(
        self,
        key: Key,
        obj: Any,
        *,
        meta: Any = None,
        weight: int = 0,
        expires_after: float | None = None,
    ) -> bool:
        """``put`` for tasks; ``obj`` must not change meanwhile.

        A task that is cancelled leaves the object in the first tier, or never put it: the next
        ``put`` says which.
        """
        return await take_in_thread(
            lambda: self.put(key, obj, meta=meta, weight=weight, expires_after=expires_after),
            _leave_it,
        )

    async def put_bytes_async(
        self,
        key: Key,
        data: Any,
        *,
        meta: Any = None,
        weight: int = 0,
        expires_after: float | None = None,
    ) -> bool:
        """``put_bytes`` for tasks; otherwise as ``put_async``."""
        return await take_in_thread(
            lambda: self.put_bytes(
                key, data, meta=meta, weight=weight, expires_after=expires_after
            ),
            _leave_it,
        )

    def reserve_async(
        self, key: Key, nbytes: int | str | None = None, **options: Any
    ) -> AsyncReservation:
        """``reserve`` for tasks, with its options: ``async with tiered.reserve_async(…) as room``.

        The end of the block commits, and waits where ``policy`` says so. A task that is cancelled
        inside the block has put nothing; one that is cancelled at its end leaves the object in the
        first tier.
        """
        return AsyncReservation(self.reserve(key, nbytes, **options))

    async def contains_async(self, key: Key) -> bool:
        """``key in tiered`` for tasks."""
        return await take_in_thread(lambda: key in self, _leave_it)

    async def delete_async(self, key: Key) -> bool:
        """``delete`` for tasks. A task that is cancelled may have deleted it."""
        return await take_in_thread(lambda: self.delete(key), _leave_it)

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
        return self.close(0)

    async def __aenter__(self) -> TieredStore:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _warn_of(self, await self.close_async())

    def stats(self) -> TierStats:
        """Counters of this object since it was made; ``first.stats()`` is of the first tier."""
        return TierStats(**self._stats())

    def _leave(self) -> None:
        _warn_of(self, self.close())

    def __enter__(self) -> TieredStore:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()

    def __repr__(self) -> str:
        return describe(self, lambda: repr(self.name))

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a tiered store stays in its process; give others store.first.handle, and the URL"
        )


class AsyncReservation:
    """Result of ``TieredStore.reserve_async()``: use ``async with``.

    Its end commits, and waits for a server if ``policy`` says so; an exception aborts.
    """

    def __init__(self, reservation: Reservation) -> None:
        """Made by ``TieredStore.reserve_async()``."""
        self._reservation = reservation

    async def __aenter__(self) -> Any:
        return self._reservation.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is not None:
            self._reservation.__exit__(exc_type, exc, traceback)
            return
        await take_in_thread(lambda: self._reservation.__exit__(None, None, None), _leave_it)


def _let_go(found: object) -> None:
    if isinstance(found, _core.StoreView):
        found.release()


def _leave_it(_: object) -> None:
    """No effect: there is nothing to undo."""


def _warn_of(store: TieredStore, unwritten: Unwritten) -> None:
    if unwritten:
        warnings.warn(
            f"the second tier has not got {unwritten.dropped} objects "
            f"({unwritten.dropped_bytes} bytes) that were put into '{store.name}'; "
            "close(timeout) waits as long as you say, and tells",
            RuntimeWarning,
            stacklevel=4,
        )


def _list_of(urls: str | Iterable[str]) -> list[str]:
    if isinstance(urls, str):
        return [urls]
    try:
        given = list(urls)
    except TypeError:
        given = []
    if not given or not all(isinstance(url, str) for url in given):
        raise InvalidType(f"urls must be a URL, or a list of them, not {urls!r}")
    return given
