"""The processes of `penstock demo --store`: workers that look up chunks of real data in the store,
put those that are missing, and compare every byte of those found; and one that holds as much memory
as it may and waits to be killed."""

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

PIECE: Final = 32 << 10  #: bytes of each held reservation

_CHUNK: Final = 64 << 10  # bytes on average
_HELD: Final = 4  # objects that a worker reads at a time
_FEWEST: Final = 256  # little data is repeated: more than fits into the store
_POPULAR: Final = 0.7  # share of look-ups for a tenth of the chunks
_PINNED: Final = 5


class _Chunks:
    """The data in numbered chunks of different lengths."""

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
    """A worker: looks up, compares, and puts missing chunks, until `stop` exists."""
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
                    held.append(found)  # still read after the block
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
        pass  # another process is writing it
    except NoSpace:
        account["refused"] += 1
    except FileExistsError:
        pass  # another process has just written it


def _write(ledger: Path, account: dict[str, int]) -> None:
    """Written whole or not at all: the process may be killed at any moment."""
    fresh = ledger.with_suffix(".new")
    fresh.write_text(json.dumps(account))
    fresh.replace(ledger)


def hold_all_it_can(name: str, nbytes: int, ready: Path) -> None:
    """Reserve so much memory, pin some objects, report that, and wait."""
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
