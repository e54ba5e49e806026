"""The end of a `with` block, for every handle: the extension's classes can't have mixins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from ._exit import Closeable

__all__ = ["close_on_exit", "close_on_failure"]


def close_on_exit(
    handle: Closeable,
    exc_type: type[BaseException] | None,
    exc: BaseException | None,
    traceback: TracebackType | None,
) -> None:
    """Closes the handle, whether or not the block raised. Serves as a class's ``__exit__``."""
    handle.close()


@contextmanager
def close_on_failure(handle: Closeable) -> Iterator[None]:
    """Closes the handle if a later step of its creation raises."""
    try:
        yield
    except BaseException:
        handle.close()
        raise
