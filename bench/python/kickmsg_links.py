"""kickmsg: publish-subscribe through slots of a pool, whose readers sleep or poll.

A reader that is slow loses messages, so kickmsg takes part where one message is under way at a
time, and not in throughput.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Any

from link import Place, SymmetricLink, Use
from processes import has_core_each

with contextlib.suppress(ImportError):
    import kickmsg

_PATIENCE = timedelta(seconds=20)
_LARGE = 64 << 10  # from here on without copies beside the one into the slot


class KickmsgLink(SymmetricLink):
    """A channel to the readers and one back from each; readers sleep in the kernel."""

    name = "kickmsg"
    pours = False

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._forward = self._region("forward", place.readers)
        self._backward = [self._region(f"backward{rank}", 1) for rank in range(place.readers)]

    @staticmethod
    def suits(place: Place) -> bool:
        return "kickmsg" in globals()

    def _region(self, direction: str, readers: int) -> Any:
        config = kickmsg.Config()
        config.max_subscribers = readers
        config.sub_ring_capacity = 1 << (self.place.queue_length - 1).bit_length()
        config.pool_size = config.sub_ring_capacity + 2
        config.max_payload_size = self.place.size
        name = f"/{self.place.name}-{direction}"
        return kickmsg.SharedRegion.create(name, kickmsg.ChannelType.PubSub, config)

    def open_driver(self) -> None:
        self._sender = kickmsg.Publisher(self._forward)
        self._receivers = [kickmsg.Subscriber(region) for region in self._backward]

    def open_reader(self, rank: int) -> None:
        self._receivers = [kickmsg.Subscriber(self._forward)]
        self._sender = kickmsg.Publisher(self._backward[rank])

    def close(self) -> None:
        self._receivers.clear()
        del self._sender
        for region in (self._forward, *self._backward):
            region.unlink()
        del self._forward
        self._backward.clear()

    def send(self, data: bytearray | bytes) -> None:
        if len(data) < _LARGE:
            self._sender.send(bytes(data))
            return
        slot = self._sender.allocate()
        memoryview(slot)[: len(data)] = data
        slot.publish(len(data))

    def receive(self, use: Use) -> None:
        for receiver in self._receivers:
            if self.place.size < _LARGE:
                use(self._take(receiver))
            else:
                with self._take_view(receiver) as view:
                    use(memoryview(view))

    def _take(self, receiver: Any) -> Any:
        return receiver.receive(_PATIENCE)

    def _take_view(self, receiver: Any) -> Any:
        return receiver.receive_view(_PATIENCE)


class KickmsgPollingLink(KickmsgLink):
    """The same with readers that poll, so each needs a core."""

    name = "kickmsg, polling"

    @staticmethod
    def suits(place: Place) -> bool:
        return KickmsgLink.suits(place) and has_core_each(place.readers)

    def _take(self, receiver: Any) -> Any:
        while (message := receiver.try_receive()) is None:
            pass
        return message

    def _take_view(self, receiver: Any) -> Any:
        while (view := receiver.try_receive_view()) is None:
            pass
        return view
