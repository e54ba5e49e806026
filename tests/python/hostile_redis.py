"""A server that speaks Redis' protocol and gives chosen answers, on a Unix socket; and values with
correct checksums, whatever else is wrong with them."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import xxhash

Words = list[bytes]
#: Bytes to send, and pauses in seconds; at its end the connection may be closed.
Answer = Sequence[bytes | float]
HANG_UP = -1.0

MAGIC = b"PSTKOBJ\n"
HEADER = struct.Struct("<8sIBxxxQQQ16s")
INLINE_MOST = 64 << 10
BYTES, TYPED, PICKLE, TENSOR = range(4)


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(value), value)


NIL, OK, PONG = b"$-1\r\n", b"+OK\r\n", b"+PONG\r\n"


def checksum_of(data: bytes) -> bytes:
    return xxhash.xxh3_128_digest(data)[::-1]


def head_of(
    key: bytes,
    data: bytes,
    meta: bytes = b"",
    layout: int = BYTES,
    *,
    version: int | None = None,
    nbytes: int | None = None,
    part_bytes: int = 0,
    checksum: bytes | None = None,
) -> bytes:
    """The value under ``o:<key>``, with the data behind it where it has no parts, and its seal
    behind that where it is large."""
    is_sealed = not part_bytes and len(data) > INLINE_MOST
    if checksum is None:
        checksum = checksum_of(data)
    header = HEADER.pack(
        MAGIC,
        1 + is_sealed if version is None else version,
        layout,
        len(data) if nbytes is None else nbytes,
        part_bytes,
        len(meta),
        bytes(16) if is_sealed else checksum,
    )
    check = xxhash.xxh3_64_intdigest(header + meta + key)
    head = header + struct.pack("<Q", check) + meta
    return head + (b"" if part_bytes else data) + (checksum if is_sealed else b"")


def parts_of(key: bytes, data: bytes, part_bytes: int) -> dict[bytes, bytes]:
    """The parts by their names, without the prefix."""
    checksum = checksum_of(data)[::-1].hex().encode()
    return {
        b"p:%s:%d:%d:%s" % (checksum, part_bytes, number, key): data[at : at + part_bytes]
        for number, at in enumerate(range(0, len(data), part_bytes))
    }


class HostileRedis:
    """Serves until it is closed. ``answer`` is called for every request but PING."""

    def __init__(self, folder: Path, answer: Callable[[Words], Answer]) -> None:
        self.answer = answer
        self._path = str(folder / "hostile")
        self.url = f"unix:{self._path}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self._path)
        self._listener.listen(64)
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        # Both wake their waiters.
        for one in [self._listener, *self._connections]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for thread in self._threads[1:]:
            thread.join()
        for one in [self._listener, *self._connections]:
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), connection.makefile("rb") as requests:
            while True:
                words = read_request(requests)
                for piece in [PONG] if words[0] == b"PING" else self.answer(words):
                    if isinstance(piece, bytes):
                        connection.sendall(piece)
                    elif piece == HANG_UP:
                        connection.shutdown(socket.SHUT_RDWR)
                        return
                    else:
                        time.sleep(piece)  # the delay of this server


def read_request(requests: object) -> Words:
    line = requests.readline()  # type: ignore[attr-defined]
    if not line:
        raise EOFError
    words = []
    for _ in range(int(line[1:])):
        size = int(requests.readline()[1:])  # type: ignore[attr-defined]
        words.append(requests.read(size + 2)[:-2])  # type: ignore[attr-defined]
    return words


class Shelf:
    """The contents of an honest server: names without the prefix, and their values."""

    def __init__(self, prefix: bytes = b"penstock:") -> None:
        self._prefix = prefix
        self.values: dict[bytes, bytes] = {}

    def answer(self, words: Words) -> Answer:
        command = words[0].upper()
        names = [word.removeprefix(self._prefix) for word in words[1:]]
        if command == b"GET":
            found = self.values.get(names[0])
            return [NIL if found is None else bulk(found)]
        if command == b"GETRANGE":
            first, last = int(words[2]), int(words[3])
            return [bulk(self.values.get(names[0], b"")[first : last + 1])]
        if command == b"SET":
            self.values[names[0]] = words[2]
            return [OK]
        if command == b"PSETEX":
            self.values[names[0]] = words[3]
            return [OK]
        if command == b"EXISTS":
            return [b":%d\r\n" % sum(name in self.values for name in names)]
        if command == b"UNLINK":
            gone = [self.values.pop(name, None) for name in names]
            return [b":%d\r\n" % sum(value is not None for value in gone)]
        return [b"-ERR unknown command\r\n"]
