"""tachyon (tachyon-ipc): a ring for each reader and direction, found by a Unix socket."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

from link import Place, SymmetricLink, Use
from processes import has_core_each, scratch_folder

with contextlib.suppress(ImportError):
    import tachyon

_PATIENCE = 20.0
_GIVEN_BACK = 32  # messages: a reader gives their room back together
_LARGEST = 1 << 20  # a ring of larger ones would have to hold gigabytes
_HEADER = 64


class TachyonLink(SymmetricLink):
    """Readers spin, and sleep after a while; each reader listens, and the driver connects."""

    name = "tachyon"

    @staticmethod
    def suits(place: Place) -> bool:
        return "tachyon" in globals() and place.size <= _LARGEST

    @property
    def _capacity(self) -> int:
        messages = max(self.place.queue_length, 2 * _GIVEN_BACK)
        return 1 << (messages * (self.place.size + _HEADER) - 1).bit_length()

    def _address(self, direction: str, rank: int) -> str:
        return str(scratch_folder() / f"{self.place.name}.{direction}{rank}")

    def open_driver(self) -> None:
        ranks = range(self.place.readers)
        ends = [(self._connect("forward", rank), self._connect("backward", rank)) for rank in ranks]
        self._senders = [forward for forward, _ in ends]
        self._receivers = [backward for _, backward in ends]
        self._poll()

    def open_reader(self, rank: int) -> None:
        self._receivers = [tachyon.Bus.listen(self._address("forward", rank), self._capacity)]
        self._senders = [tachyon.Bus.listen(self._address("backward", rank), self._capacity)]
        self._poll()

    def _connect(self, direction: str, rank: int) -> Any:
        address = Path(self._address(direction, rank))
        end = time.monotonic() + _PATIENCE
        while not address.is_socket() and time.monotonic() < end:
            time.sleep(0.001)
        return tachyon.Bus.connect(str(address))

    def _poll(self) -> None:
        """As its own benchmark does: the sender does not ask whether the reader sleeps."""
        if has_core_each(self.place.readers):
            for receiver in self._receivers:
                receiver.set_polling_mode(1)

    def close(self) -> None:
        for bus in (*self._receivers, *self._senders):
            bus.__exit__(None, None, None)

    def send(self, data: bytearray | bytes) -> None:
        for sender in self._senders:
            while True:
                try:
                    sender.send(data)
                    break
                except tachyon.PeerDeadError:
                    raise
                except tachyon.TachyonError:  # full
                    os.sched_yield()

    def receive(self, use: Use) -> None:
        for receiver in self._receivers:
            with receiver.recv_zero_copy() as message, memoryview(message) as view:
                use(view)
