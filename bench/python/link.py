"""What every contender has in common: it joins one driver with its readers, both ways.

Built before the readers are forked; ``open_driver`` and ``open_reader`` follow in their processes.
``receive`` and ``collect`` call ``use`` with each message, in place if possible. Objects are sent
in the contender's usual way: its own codec, or pickle.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

Use = Callable[[Any], None]


@dataclass(frozen=True)
class Place:
    """The conditions for a link: a free name, the largest message, the number of readers."""

    name: str
    size: int
    readers: int

    @property
    def queue_length(self) -> int:
        """As many messages as the 4 MiB of a default Broadcast hold, at least two."""
        return min(max((4 << 20) // self.size, 2), 1024)


class Link:
    """One way of moving messages."""

    name: ClassVar[str]
    # Whether it takes part in throughput: it carries messages, and loses none to a slow reader.
    pours: ClassVar[bool] = True

    def __init__(self, place: Place) -> None:
        self.place = place

    @staticmethod
    def suits(place: Place) -> bool:
        """Whether this link is installed and can take part here."""
        return True

    def open_driver(self) -> None: ...
    def open_reader(self, rank: int) -> None: ...
    def close(self) -> None: ...

    def send(self, data: bytearray) -> None:
        raise NotImplementedError

    def answer(self, data: bytearray) -> None:
        raise NotImplementedError

    def receive(self, use: Use) -> None:
        raise NotImplementedError

    def collect(self, use: Use) -> None:
        raise NotImplementedError

    def send_object(self, value: object) -> None:
        raise NotImplementedError

    def answer_object(self, value: object) -> None:
        raise NotImplementedError

    def receive_object(self, use: Use) -> None:
        raise NotImplementedError

    def collect_object(self, use: Use) -> None:
        raise NotImplementedError


class SymmetricLink(Link):
    """A link whose reader answers the way its driver sends. Objects are pickled, if a contender has
    nothing better."""

    def __init_subclass__(cls) -> None:
        # The same functions, not calls of them: both directions cost the same.
        cls.answer, cls.collect = cls.send, cls.receive  # type: ignore[method-assign]
        cls.answer_object = cls.send_object  # type: ignore[method-assign]
        cls.collect_object = cls.receive_object  # type: ignore[method-assign]

    def send_object(self, value: object) -> None:
        self.send(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))  # type: ignore[arg-type]

    def receive_object(self, use: Use) -> None:
        self.receive(lambda message: use(pickle.loads(message)))
