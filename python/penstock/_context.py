"""The end of a `with` block, for every handle: the extension's classes take no mixins."""

from __future__ import annotations

from types import TracebackType

from ._exit import Closeable

__all__ = ["close_on_exit"]


def close_on_exit(
    handle: Closeable,
    exc_type: type[BaseException] | None,
    exc: BaseException | None,
    traceback: TracebackType | None,
) -> None:
    """Closes it, whatever happened in the block. Made to be a class's ``__exit__``."""
    handle.close()
