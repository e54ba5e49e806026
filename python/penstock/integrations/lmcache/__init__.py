"""A pool of KV-cache chunks in shared memory, with the two-phase verbs of LMCache, over a Store.

    server = PoolServer.open("kv", capacity="64GiB")                  # in one process

    client = PoolClient.attach("kv")                                  # in each worker
    client.register(context, kv_caches)
    client.store(tokens, blocks)                                      # gather, synchronise, commit
    client.retrieve(tokens, blocks, skip_first_n_tokens=cached)       # pin, scatter, release

or in two phases, with ``prepare_store``, ``commit_store``, ``abort_store``, ``prepare_retrieve``
and ``commit_retrieve``. What differs is what was wrong: workers need no server on the way, what the
dead held is free at once and what the living hold never runs out, and every chunk has a status that
says what became of it.
"""

from __future__ import annotations

from .client import PoolClient
from .formats import KVCaches, KVFormat
from .gather import Blocks, PagedKV
from .keys import Namespace, chunk_hashes
from .layout import CHUNK_TOKENS, EngineContext, ObjectGroup
from .server import PoolServer
from .status import ChunkStatus, RetrieveResult, StoreResult
from .tickets import RetrieveTicket, StoreTicket

__all__ = [
    "CHUNK_TOKENS",
    "Blocks",
    "ChunkStatus",
    "EngineContext",
    "KVCaches",
    "KVFormat",
    "Namespace",
    "ObjectGroup",
    "PagedKV",
    "PoolClient",
    "PoolServer",
    "RetrieveResult",
    "RetrieveTicket",
    "StoreResult",
    "StoreTicket",
    "chunk_hashes",
]
