"""The data that the demo sends: the bytes of a file, or of all files of a directory, concatenated.
By default the sources of Python's standard library, which every machine has."""

from __future__ import annotations

import os
import stat
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

MOST_BYTES = 256 << 20  # sent of a larger PATH, repeatedly


class NothingToSend(OSError):
    """PATH has no readable bytes."""


@dataclass(frozen=True)
class Corpus:
    """The data, and its origin."""

    data: Bytes
    files: int
    source: Path
    clipped: bool

    def passage(self, start: int, length: int) -> Bytes:
        """`length` bytes from any position; the last byte is followed by the first."""
        start %= len(self.data)
        if start + length <= len(self.data):
            return self.data[start : start + length]
        return np.resize(np.roll(self.data, -start), length)


def read_corpus(path: Path | None = None) -> Corpus:
    """Read PATH. Raises OSError, with a message, where there is nothing to read."""
    source = path or Path(sysconfig.get_paths()["stdlib"])
    paths = _python_sources(source) if path is None else _regular_files(source)
    collected = bytearray()
    files = 0
    for file in paths:
        content = _read(file, MOST_BYTES - len(collected))
        collected += content
        files += bool(content)
        if len(collected) >= MOST_BYTES:
            break
    if not collected:
        raise NothingToSend(f"{source} holds no readable bytes: give the demo another PATH")
    data = np.frombuffer(bytes(collected), dtype=np.uint8)
    return Corpus(data, files, source, clipped=len(collected) >= MOST_BYTES)


def _python_sources(root: Path) -> Iterator[Path]:
    for file in _regular_files(root):
        if file.suffix == ".py" and "site-packages" not in file.parts:
            yield file


def _regular_files(path: Path) -> Iterator[Path]:
    """PATH itself, or every regular file below it in the order of their names."""
    mode = path.stat().st_mode  # a missing PATH raises an error with a message
    if stat.S_ISREG(mode):
        yield path
    elif not stat.S_ISDIR(mode):
        raise NothingToSend(f"{path} is neither a file nor a directory")
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            if file.is_file():  # no pipes, devices, or files just removed
                yield file


def _read(file: Path, most: int) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(most)
    except OSError:
        return b""  # not readable by us
