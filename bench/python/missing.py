"""Contenders that cannot take part, and how that is reported."""

from __future__ import annotations

import sys


class Missing(Exception):
    """The reason why a contender cannot take part."""


def leave_out(name: str, reason: object) -> None:
    print(f"left out: {name}: {reason}", file=sys.stderr)
