"""Dead letters: messages that a queue no longer delivers; listing, requeuing and dropping them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from . import _core
from .errors import Incompatible, InvalidArgument, InvalidType

__all__ = ["Chosen", "DeadLetter", "chosen_sequences", "decode_content", "letters_of"]

_MOST_SEQUENCE = (1 << 64) - 1


@dataclass(frozen=True)
class DeadLetter:
    """A dead letter, as it was when it was listed. Listing does not move it."""

    sequence: int  #: position in the queue's order; identifies it in requeue and drop
    producer: int  #: slot of the participant that put it
    deliveries: int  #: how often it was delivered and not acknowledged
    nbytes: int
    age: float  #: seconds since it was put
    format: Literal["typed", "bytes", "pickle"]  #: how its bytes are decoded
    _copy: Callable[[int], bytes] = field(repr=False, compare=False)
    _decode: Callable[[DeadLetter, bytes], Any] = field(repr=False, compare=False)

    def content(self) -> Any:
        """A private copy of the value; the message stays a dead letter.

        Raises NotFound (it was requeued or dropped since), Corrupt (its bytes contradict
        themselves), Incompatible (a pickle, and the handle was not made with ``codec="pickle"``)
        or Closed.
        """
        return self._decode(self, self.content_bytes())

    def content_bytes(self) -> bytes:
        """The encoded message as it is in the queue; for messages that can't be decoded.

        Raises NotFound, Corrupt or Closed.
        """
        return self._copy(self.sequence)


#: Selects dead letters: None for all, sequences, or results of ``dead_letters()``.
Chosen = Iterable[int | DeadLetter] | int | DeadLetter | None


def letters_of(
    queue: _core.Queue | _core.TrajectoryReader,
    limit: int,
    decode: Callable[[DeadLetter, bytes], Any],
) -> list[DeadLetter]:
    """Converts what ``_core`` returns to dataclasses."""
    return [
        DeadLetter(**raw, _copy=queue._dead_letter_bytes, _decode=decode)
        for raw in queue._dead_letters(_count(limit))
    ]


def _count(limit: int) -> int:
    try:
        count = operator.index(limit)
    except TypeError:
        raise InvalidType(f"limit must be an integer, not {limit!r}") from None
    if count < 0:
        raise InvalidArgument(f"limit is {count}: how many dead letters at most, 0 or more")
    return min(count, _MOST_SEQUENCE)


def _sequence_of(one: int | DeadLetter) -> int:
    if isinstance(one, DeadLetter):
        return one.sequence
    try:
        return operator.index(one)
    except TypeError:
        raise InvalidType(
            f"a dead letter is named by its sequence, an integer, or by what dead_letters() gave, "
            f"not {one!r}; None means all of them"
        ) from None


def chosen_sequences(chosen: Chosen) -> list[int] | None:
    """As ``_core`` takes them. A number that no message can have matches no dead letter."""
    if chosen is None:
        return None
    many = chosen if isinstance(chosen, Iterable) else [chosen]
    return [number for number in map(_sequence_of, many) if 0 <= number <= _MOST_SEQUENCE]


def decode_content(letter: DeadLetter, raw: bytes, codec: Literal["pickle"] | None = None) -> Any:
    """Decodes a message's bytes. Runs code only if ``codec`` allows pickles."""
    if letter.format == "bytes":
        return raw
    if letter.format == "pickle" and codec != "pickle":
        raise Incompatible(
            f"dead letter {letter.sequence} is a pickle, and reading it could run any code; if you "
            f"trust its producer, attach with codec='pickle'"
        )
    return _core.codec_decode(raw, codec="pickle" if codec == "pickle" else "typed")
