"""``async with`` for blocks whose twin takes ``with``: views, batches, loans, objects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from ._core import StoreView
from .errors import Busy

__all__ = ["AsyncBlock", "AsyncView", "Entered", "enter"]

T = TypeVar("T")
V = TypeVar("V")


class Block(Protocol):
    """A context manager of the extension."""

    def __enter__(self) -> Any: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> object: ...


class Entered(Generic[T]):
    """An entered block and its value."""

    __slots__ = ("block", "value")

    def __init__(self, block: Block, value: T) -> None:
        """Made by ``enter()``."""
        self.block = block
        self.value = value


def enter(block: Block) -> Entered[Any]:
    """Enters the block."""
    return Entered(block, block.__enter__())


class AsyncBlock(Generic[T]):
    """Result of the async twin of a block: ``async with reader.recv_view_async() as obj``.

    The task waits where the block begins; the end of the block acts as that of ``with``. Can be
    entered once. A task that is cancelled while it waits has taken nothing.
    """

    __slots__ = ("_begin", "_entered", "_was_entered")

    def __init__(self, begin: Callable[[], Awaitable[Entered[T]]]) -> None:
        """Made by methods whose names end in ``_async``."""
        self._begin = begin
        self._entered: Entered[T] | None = None
        self._was_entered = False

    async def __aenter__(self) -> T:
        if self._was_entered:
            raise Busy("this block was entered before, and can be once; ask for another one")
        self._was_entered = True
        self._entered = await self._begin()
        return self._entered.value

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        entered, self._entered = self._entered, None
        if entered is not None:
            entered.block.__exit__(exc_type, exc, traceback)


class AsyncView(Coroutine[Any, Any, V], Generic[V]):
    """A pending look-up of a store: ``async with`` it, or ``await`` it for the view.

    Also a coroutine, for ``asyncio.create_task()``. ``async with store.wait_async(key) as obj``
    equals ``with await store.wait_async(key) as obj``.
    """

    __slots__ = ("_ask", "_asking", "_view")

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, V]]) -> None:
        """Made by methods whose names end in ``_async``."""
        self._ask = ask
        self._asking: Coroutine[Any, Any, V] | None = None
        self._view: StoreView | None = None

    def __await__(self) -> Generator[Any, Any, V]:
        return self._coroutine().__await__()

    def _coroutine(self) -> Coroutine[Any, Any, V]:
        if self._asking is None:
            self._asking = self._ask()
        return self._asking

    def send(self, value: Any, /) -> Any:
        """As of any coroutine; for event loops."""
        return self._coroutine().send(value)

    def throw(self, *error: Any) -> Any:
        """As of any coroutine; for event loops."""
        return self._coroutine().throw(*error)

    def close(self) -> None:
        """As of any coroutine; for event loops."""
        if self._asking is not None:
            self._asking.close()

    async def __aenter__(self) -> Any:
        found = await self
        if not isinstance(found, StoreView):
            return found  # the default of a look-up that found nothing
        self._view = found
        return found.__enter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        view, self._view = self._view, None
        if view is not None:
            view.__exit__(exc_type, exc, traceback)
