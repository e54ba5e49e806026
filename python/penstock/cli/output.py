"""Output of the sub-commands: aligned columns for people, one JSON object for programs. The text is
plain, so that it reads the same in a pipe as on a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from penstock import _core

_COLOURS = {"ok": "32", "warn": "33", "fail": "31", "dim": "2", "bold": "1"}


T = TypeVar("T")


def printable(value: T) -> T:
    """A text without characters that a terminal obeys or does not show; for a dataclass, list or
    tuple, the same value with all its texts so. Text of other processes passes through this, once,
    before it is laid out."""
    if isinstance(value, str):
        return cast("T", _core.printable(value))
    if isinstance(value, list):
        return cast("T", [printable(one) for one in value])
    if isinstance(value, tuple):
        return cast("T", tuple(printable(one) for one in value))
    if is_dataclass(value) and not isinstance(value, type):
        changed = {field.name: printable(getattr(value, field.name)) for field in fields(value)}
        return cast("T", replace(value, **changed))
    return value


def print_json(value: Any, *, to_stderr: bool = False) -> None:
    """Prints one JSON value, indented, ended by a newline.

    Texts are complete; characters that a terminal obeys are escaped in JSON's way.
    """
    stream = sys.stderr if to_stderr else sys.stdout
    print(_UNUSUAL.sub(_escaped, json.dumps(value, indent=2, ensure_ascii=False)), file=stream)


_UNUSUAL = re.compile(r"[^ -~\n]")


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def say(sentence: str) -> None:
    """Prints a progress remark on stderr, so that it does not mix with data.

    If stderr can't be written the remark is lost, and the command goes on.
    """
    with contextlib.suppress(OSError):
        print(f"penstock: {printable(sentence)}", file=sys.stderr, flush=True)


def colour(text: str, name: str) -> str:
    """The text in a colour if stdout is a terminal that supports it."""
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m"


def columns(rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Aligns cells in columns; the columns named in `right` are right-aligned."""
    table = [list(row) for row in rows]
    to_right = set(right)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]

    def line(row: Sequence[str]) -> str:
        cells = (
            cell.rjust(width) if place in to_right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return [line(row) for row in table]
