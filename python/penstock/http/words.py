"""What a body is refused with: the sentence names the field, and what it is instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["NAMES", "Invalid", "kind_of"]

NAMES: Final[Mapping[type, str]] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    dict: "an object",
}


class Invalid(ValueError):
    """The body is not what the route takes; the sentence names the field."""


def kind_of(value: Any) -> str:
    """What a JSON value is."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, list):
        return "a list"
    return NAMES.get(type(value), type(value).__name__)
