"""A value as one line for a terminal: short whatever its size, and without characters that a
terminal obeys."""

from __future__ import annotations

import reprlib
from typing import Any

import numpy as np

from penstock.cli import output

_WIDTH = 100  # characters


def render(value: Any) -> str:
    """Shows arrays by dtype, shape and first items, and errors by their sentence."""
    text = _error(value) if isinstance(value, BaseException) else _Short().repr(value)
    shown = output.printable(text)
    return shown if len(shown) <= _WIDTH else shown[: _WIDTH - 3] + "..."


def _error(error: BaseException) -> str:
    return f"({type(error).__name__}: {error})"


class _Short(reprlib.Repr):
    """A few items of each container, a few characters of each text."""

    _ITEMS = 4

    def __init__(self) -> None:
        super().__init__()
        self.maxdict = self.maxlist = self.maxtuple = self._ITEMS
        self.maxlevel = 3
        self.maxstring = self.maxother = self.maxlong = 40

    def repr1(self, x: Any, level: int) -> str:
        if isinstance(x, bytes):
            return self._bytes(x)
        if isinstance(x, np.ndarray) or type(x).__module__.partition(".")[0] == "torch":
            return self._array(x)
        return super().repr1(x, level)

    def _bytes(self, data: bytes) -> str:
        more = "" if len(data) <= self.maxstring else f"... {len(data)} bytes"
        return f"{data[: self.maxstring]!r}{more}"

    def _array(self, array: Any) -> str:
        dtype = str(array.dtype).removeprefix("torch.")
        shape = "x".join(map(str, array.shape)) or "scalar"
        return f"<{dtype} {shape}>"
