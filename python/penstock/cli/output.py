"""What the sub-commands print: aligned columns for people, one JSON object for programs.
Plain text throughout, so that it reads the same in a pipe as on a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

_COLOURS = {"ok": "32", "warn": "33", "fail": "31", "dim": "2", "bold": "1"}


def print_json(value: Any, *, to_stderr: bool = False) -> None:
    """One JSON value, indented, ended by a newline."""
    stream = sys.stderr if to_stderr else sys.stdout
    print(json.dumps(value, indent=2, ensure_ascii=False), file=stream)


def say(sentence: str) -> None:
    """A remark about what is going on; on stderr, so that it mixes with no data.

    Where stderr can't be written the remark is lost, and the command goes on.
    """
    with contextlib.suppress(OSError):
        print(f"penstock: {sentence}", file=sys.stderr, flush=True)


def colour(text: str, name: str) -> str:
    """The text in a colour where stdout is a terminal that wants one."""
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m"


def columns(rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Lines of cells set below each other; the columns named in `right` are set to the right."""
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
