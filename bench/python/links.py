"""The contenders that carry messages and objects, Penstock's among them."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import pickle
import socket
import struct
from typing import Any, ClassVar

from kickmsg_links import KickmsgLink, KickmsgPollingLink
from link import Link, Place, SymmetricLink, Use
from processes import has_core_each, scratch_folder
from tachyon_link import TachyonLink

import penstock

with contextlib.suppress(ImportError):
    import zmq
with contextlib.suppress(ImportError):
    import iceoryx2

_PATIENCE = 20.0
_fork = multiprocessing.get_context("fork")


class PenstockLink(Link):
    """A default Broadcast to the readers and one back from each; messages are copied out."""

    name = "penstock"
    capacity: ClassVar[int] = 4 << 20  # the default

    def open_driver(self) -> None:
        place = self.place
        self._forward = self._create(place.name, place.readers)
        self._answers = [
            penstock.Broadcast.attach(f"{place.name}.answer{rank}", 0, timeout=_PATIENCE)
            for rank in range(place.readers)
        ]
        self._forward.wait_ready(timeout=_PATIENCE)
        self._own = [self._forward, *self._answers]

    def _create(self, name: str, readers: int) -> penstock.BroadcastWriter:
        return penstock.Broadcast.create(name, readers=readers, capacity=self.capacity)

    def open_reader(self, rank: int) -> None:
        name = self.place.name
        self._answer = self._create(f"{name}.answer{rank}", 1)
        self._messages = penstock.Broadcast.attach(name, rank, timeout=_PATIENCE)
        self._own = [self._answer, self._messages]

    def close(self) -> None:
        for end in self._own:
            end.close()

    def send(self, data: bytearray) -> None:
        self._forward.send_bytes(data)

    def answer(self, data: bytearray) -> None:
        self._answer.send_bytes(data)

    def receive(self, use: Use) -> None:
        use(self._messages.recv_bytes())

    def collect(self, use: Use) -> None:
        for answers in self._answers:
            use(answers.recv_bytes())

    def send_object(self, value: object) -> None:
        self._forward.send(value)

    def answer_object(self, value: object) -> None:
        self._answer.send(value)

    def receive_object(self, use: Use) -> None:
        use(self._messages.recv())

    def collect_object(self, use: Use) -> None:
        for answers in self._answers:
            use(answers.recv())


class PenstockViewLink(PenstockLink):
    """The same, read in place."""

    name = "penstock, view"

    def receive(self, use: Use) -> None:
        with self._messages.recv_view() as message:
            use(message)

    def collect(self, use: Use) -> None:
        for answers in self._answers:
            with answers.recv_view() as message:
                use(message)

    receive_object = receive
    collect_object = collect


class QueueLink(Link):
    """multiprocessing.Queue, one for each reader and direction."""

    name = "multiprocessing.Queue"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        length = place.queue_length // 2 or 1
        self._forward = [_fork.Queue(length) for _ in range(place.readers)]
        self._backward = [_fork.Queue(length) for _ in range(place.readers)]

    def open_reader(self, rank: int) -> None:
        self._rank = rank

    def close(self) -> None:
        for queue in (*self._forward, *self._backward):
            queue.close()

    def send(self, data: Any) -> None:
        for queue in self._forward:
            queue.put(data)

    def answer(self, data: Any) -> None:
        self._backward[self._rank].put(data)

    def receive(self, use: Use) -> None:
        use(self._forward[self._rank].get())

    def collect(self, use: Use) -> None:
        for queue in self._backward:
            use(queue.get())

    send_object = send
    answer_object = answer
    receive_object = receive
    collect_object = collect


class PipeLink(SymmetricLink):
    """multiprocessing.Pipe, one for each reader."""

    name = "multiprocessing.Pipe"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._pairs = [_fork.Pipe() for _ in range(place.readers)]

    def open_driver(self) -> None:
        self._ends = [driver for driver, _ in self._pairs]

    def open_reader(self, rank: int) -> None:
        self._ends = [self._pairs[rank][1]]

    def close(self) -> None:
        for end in self._ends:
            end.close()

    def send(self, data: bytearray) -> None:
        for end in self._ends:
            end.send_bytes(data)

    def receive(self, use: Use) -> None:
        for end in self._ends:
            use(end.recv_bytes())

    def send_object(self, value: object) -> None:
        for end in self._ends:
            end.send(value)

    def receive_object(self, use: Use) -> None:
        for end in self._ends:
            use(end.recv())


class SocketLink(SymmetricLink):
    """A Unix stream socket for each reader, an eight-byte length before every message."""

    name = "unix socket"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._pairs = [socket.socketpair() for _ in range(place.readers)]

    def open_driver(self) -> None:
        self._open([driver for driver, _ in self._pairs])

    def open_reader(self, rank: int) -> None:
        self._open([self._pairs[rank][1]])

    def _open(self, ends: list[socket.socket]) -> None:
        self._ends = ends
        self._files = [end.makefile("rb", buffering=64 << 10) for end in ends]
        self._room = memoryview(bytearray(self.place.size))

    def close(self) -> None:
        for file in self._files:
            file.close()
        for end in self._ends:
            end.close()

    def send(self, data: bytearray | bytes) -> None:
        header = struct.pack("<Q", len(data))
        for end in self._ends:
            done = end.sendmsg((header, data))
            if done < 8 + len(data):
                end.sendall(memoryview(data)[done - 8 :])

    def receive(self, use: Use) -> None:
        for file in self._files:
            (length,) = struct.unpack("<Q", file.read(8))
            message = self._room[:length]
            if file.readinto(message) != length:
                raise EOFError
            use(message)


class ZmqLink(SymmetricLink):
    """ZeroMQ over ipc://, a PAIR socket for each reader: PUB would drop where the others wait."""

    name = "zeromq ipc"
    _LARGE = 64 << 10  # from here on without copies, as its guide advises

    @staticmethod
    def suits(place: Place) -> bool:
        return "zmq" in globals()

    def open_driver(self) -> None:
        self._context = zmq.Context()
        self._sockets = [self._socket() for _ in range(self.place.readers)]
        for rank, end in enumerate(self._sockets):
            end.bind(self._address(rank))

    def open_reader(self, rank: int) -> None:
        self._context = zmq.Context()
        self._sockets = [self._socket()]
        self._sockets[0].connect(self._address(rank))

    def _socket(self) -> zmq.Socket[bytes]:
        end = self._context.socket(zmq.PAIR)
        end.set_hwm(self.place.queue_length // 2 or 1)
        end.linger = 0
        return end

    def _address(self, rank: int) -> str:
        return f"ipc://@{self.place.name}.{rank}"

    def close(self) -> None:
        for end in self._sockets:
            end.close()
        self._context.term()

    def send(self, data: bytearray) -> None:
        copy = len(data) < self._LARGE
        for end in self._sockets:
            end.send(data, copy=copy)

    def receive(self, use: Use) -> None:
        if self.place.size < self._LARGE:
            for end in self._sockets:
                use(end.recv())
        else:
            for end in self._sockets:
                use(end.recv(copy=False).buffer)

    def send_object(self, value: object) -> None:
        for end in self._sockets:
            end.send_pyobj(value)

    def receive_object(self, use: Use) -> None:
        for end in self._sockets:
            use(end.recv_pyobj())


class IceoryxLink(SymmetricLink):
    """iceoryx2 publish-subscribe, lossless; its receivers poll, so each needs a core."""

    name = "iceoryx2, polling"

    @staticmethod
    def suits(place: Place) -> bool:
        return "iceoryx2" in globals() and has_core_each(place.readers)

    def open_driver(self) -> None:
        self._node = self._make_node()
        # The creator of a service sets its limits, so the driver makes both.
        self._sender = self._publisher("forward")
        self._receivers = [
            self._subscriber(f"backward{rank}") for rank in range(self.place.readers)
        ]

    def open_reader(self, rank: int) -> None:
        self._node = self._make_node()
        self._receivers = [self._subscriber("forward")]
        self._sender = self._publisher(f"backward{rank}")

    def _make_node(self) -> Any:
        iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
        config = iceoryx2.config.default()
        config.global_cfg.prefix = iceoryx2.FileName.new(f"{self.place.name}-")
        config.global_cfg.root_path = iceoryx2.Path.new(str(scratch_folder()))
        return iceoryx2.NodeBuilder.new().config(config).create(iceoryx2.ServiceType.Ipc)

    def _service(self, direction: str) -> Any:
        return (
            self._node.service_builder(iceoryx2.ServiceName.new(direction))
            .publish_subscribe(iceoryx2.Slice[ctypes.c_uint8])
            .enable_safe_overflow(False)
            .subscriber_max_buffer_size(self.place.queue_length)
            .history_size(self.place.queue_length)
            .max_publishers(1)
            .max_subscribers(self.place.readers)
            .open_or_create()
        )

    def _publisher(self, direction: str) -> Any:
        return (
            self._service(direction)
            .publisher_builder()
            .initial_max_slice_len(self.place.size)
            .backpressure_strategy(iceoryx2.BackpressureStrategy.RetryUntilDelivered)
            .create()
        )

    def _subscriber(self, direction: str) -> Any:
        return self._service(direction).subscriber_builder().create()

    def close(self) -> None:
        self._receivers.clear()
        self._sender.delete()
        del self._node

    def send(self, data: bytearray) -> None:
        size = len(data)
        self._send((ctypes.c_char * size).from_buffer(data), size)

    def _send(self, source: Any, size: int) -> None:
        sample = self._sender.loan_slice_uninit(size)
        ctypes.memmove(sample.payload_ptr, source, size)
        sample.assume_init().send()

    def receive(self, use: Use) -> None:
        for receiver in self._receivers:
            while (sample := receiver.receive()) is None:
                pass
            use(sample.payload().as_memory_view())

    def send_object(self, value: object) -> None:
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        self._send(data, len(data))


LINKS: tuple[type[Link], ...] = (
    PenstockLink,
    PenstockViewLink,
    QueueLink,
    PipeLink,
    SocketLink,
    ZmqLink,
    IceoryxLink,
    KickmsgLink,
    KickmsgPollingLink,
    TachyonLink,
)


def build_links(place: Place, limits: tuple[type[Link], ...] = ()) -> list[Link]:
    """Every contender that is installed and suits the place, and these. Each has its own names."""
    return [
        link(Place(f"{place.name}-{index}", place.size, place.readers))
        for index, link in enumerate((*limits, *LINKS))
        if link.suits(place)
    ]
