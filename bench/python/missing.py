"""Contenders that cannot take part, and how that is told."""

from __future__ import annotations

import sys


class Missing(Exception):
    """Why a contender cannot take part."""


def leave_out(name: str, reason: object) -> None:
    print(f"left out: {name}: {reason}", file=sys.stderr)
