"""PoolClient and LMCache's own worker classes over one cache: each retrieves its own chunks bit for
bit, with equal results.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("lmcache", reason="needs lmcache: ./dev makes build/lmcache")
torch = pytest.importorskip("torch")

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench" / "python"))

from bench_lmcache import CHUNK, Cache, Case, LMCache, Penstock  # noqa: E402
from lmcache_servers import lmcache_server  # noqa: E402


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with lmcache_server(f"test-{os.getpid()}", 1, CHUNK) as server:
        yield server.address


@pytest.mark.timeout(600)  # the server's imports take minutes on a busy machine
@pytest.mark.parametrize("chunks", [1, 3])
def test_both_retrieve_what_they_stored(address: str, chunks: int) -> None:
    case = Case(f"test-{chunks}", chunks, layers=3, heads=2, dim=16)
    cache = Cache(case)
    sides = [LMCache(case, cache, address), Penstock(f"test-{os.getpid()}", cache, populate=False)]
    try:
        tokens = list(range(chunks * CHUNK))
        came = []
        for side in sides:
            cache.wipe()
            assert side.store(tokens)
            assert side.lookup(tokens)
            assert side.retrieve(tokens)
            assert cache.is_equal()
            came.append([layer[:, cache.target].clone() for layer in cache.layers.values()])
        assert all(torch.equal(one, other) for one, other in zip(*came, strict=True))
    finally:
        for side in sides:
            side.close()
