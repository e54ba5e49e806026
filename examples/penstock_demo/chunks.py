"""The processes of `penstock demo --store`: workers that want chunks of real data, find them in the
store or put them there, and compare every byte of what they find; and one that holds as much as it
may and waits to be killed."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from penstock._reservation import Reservation
from penstock.errors import Busy, NoSpace
from penstock.store import Store
from penstock_demo.corpus import Corpus, read_corpus

__all__ = ["PIECE", "hold_all_it_can", "want_chunks"]

PIECE: Final = 32 << 10  #: bytes of what is reserved to be held

_CHUNK: Final = 64 << 10  # bytes on the average
_HELD: Final = 4  # objects that a worker reads for a while
_FEWEST: Final = 256  # of little data the same bytes again: more than fits into the store
_POPULAR: Final = 0.7  # of the looks go to a tenth of the chunks
_PINNED: Final = 5


class _Chunks:
    """The data in chunks of different lengths, by number."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self.count = max(len(corpus.data) // _CHUNK, _FEWEST)

    def key(self, number: int) -> str:
        return f"chunk:{number}"

    def content(self, number: int) -> Any:
        length = _CHUNK // 2 + number * 7919 % _CHUNK
        return self._corpus.passage(number * _CHUNK, length)

    def choose(self, chance: random.Random) -> int:
        popular = chance.random() < _POPULAR
        return chance.randrange(self.count // 10 if popular else self.count)


def want_chunks(
    name: str, rank: int, life: int, path: Path | None, ledger: Path, stop: Path
) -> None:
    """A worker: looks, compares, puts what is missing, until `stop` is there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    chunks = _Chunks(read_corpus(path))
    chance = random.Random(rank * 1000 + life)
    account = dict.fromkeys(("hits", "wrong", "puts", "refused", "bytes"), 0)
    held: list[Any] = []
    with Store.attach(name, timeout=30) as store:
        written = time.monotonic()
        while not stop.exists():
            number = chunks.choose(chance)
            content = chunks.content(number)
            view = store.get(chunks.key(number), default=None)
            if view is None:
                _put(store, chunks.key(number), content, account)
            else:
                with view as found:
                    account["hits"] += 1
                    account["bytes"] += found.nbytes
                    account["wrong"] += not np.array_equal(found, content)
                    held.append(found)  # read on, after the block
                del found
            del view
            del held[:-_HELD]
            if time.monotonic() - written > 0.1:
                _write(ledger, account)
                written = time.monotonic()
        held.clear()
        _write(ledger, account)


def _put(store: Store, key: str, content: Any, account: dict[str, int]) -> None:
    try:
        with store.reserve(key, shape=content.shape, dtype="uint8") as room:
            room[...] = content
        account["puts"] += 1
    except Busy:
        pass  # another process is just writing it
    except NoSpace:
        account["refused"] += 1
    except FileExistsError:
        pass  # another process has just written it


def _write(ledger: Path, account: dict[str, int]) -> None:
    """Whole or not at all: its writer may be killed at any moment."""
    fresh = ledger.with_suffix(".new")
    fresh.write_text(json.dumps(account))
    fresh.replace(ledger)


def hold_all_it_can(name: str, nbytes: int, ready: Path) -> None:
    """Reserves so many bytes, pins some objects, says so, and does nothing more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Store.attach(name, timeout=30) as store:
        pinned = [(view, view.__enter__()) for view in _some_views(store)]
        keys = [f"held:{number}" for number in range(nbytes // PIECE)]
        held = store.reserve_many(keys, PIECE)
        ready.write_text(f"{len(pinned)} {sum(isinstance(one, Reservation) for one in held)}")
        signal.pause()


def _some_views(store: Store) -> list[Any]:
    views = (store.get(key, default=None) for key in store.keys()[:_PINNED])
    return [view for view in views if view is not None]
