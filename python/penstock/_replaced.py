"""Warns of messages that were lost with an abandoned queue that create() has replaced."""

from __future__ import annotations

import warnings

__all__ = ["warn_of_replaced"]


def warn_of_replaced(name: str, kept: str) -> None:
    """Issues a RuntimeWarning at the caller of ``create()`` if ``kept`` says that there was
    data."""
    if kept:
        warnings.warn(
            f"the queue {name!r} takes the place of one that nobody was attached to any more and "
            f"that kept {kept}, which are lost; attach() would have kept them",
            RuntimeWarning,
            stacklevel=3,
        )
