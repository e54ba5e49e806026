"""Wording of refusals: the sentence names the field, and what it is instead."""

from __future__ import annotations

from ....trajectories.loose import NAMES, kind_of

__all__ = ["NAMES", "Invalid", "kind_of"]


class Invalid(ValueError):
    """The body is not what the route accepts; the sentence names the field."""
