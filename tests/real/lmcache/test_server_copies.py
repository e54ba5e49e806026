"""LMCache's `lmcache_driven` mode on `penstock lmcache serve`: the server copies between a worker's
KV cache and the pool."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("lmcache", reason="lmcache is not installed in this environment")

from server_workers import BLOCK, BLOCKS, Peer, ServedWorker, Server, tokens_of, wait_until
from server_workers import worker as copying_worker

import penstock

pytestmark = [pytest.mark.timeout(400), pytest.mark.usefixtures("all_imported")]


@pytest.fixture
def served(server: Server) -> Iterator[Peer]:
    with Peer(ServedWorker, server.address) as peer:
        assert peer.call("register") == "LMCacheDrivenTransferContext"
        yield peer
        peer.call("unregister")


def test_the_server_retrieves_its_own_chunks_to_the_bit(served: Peer) -> None:
    tokens = tokens_of(1, chunks=3)
    stored = served.call("chunks", 1, 3)
    assert served.call("store", tokens, 1) is True
    assert served.call("lookup", tokens) == 3
    assert served.call("retrieve", tokens, 6) is True
    assert served.call("chunks", 6, 3) == stored


def test_workers_that_copy_and_such_that_do_not_share_their_chunks(
    server: Server, served: Peer
) -> None:
    with copying_worker(server) as other:
        for number, (one, two) in enumerate([(served, other), (other, served)]):
            tokens = tokens_of(2 + number, chunks=2)
            stored = one.call("chunks", 1, 2)
            assert one.call("store", tokens, 1) is True
            assert two.call("lookup", tokens, f"l{number}") == 2
            assert two.call("retrieve", tokens, 4) is True
            assert two.call("chunks", 4, 2) == stored


def test_the_first_tokens_are_not_written_where_they_are_to_be_skipped(served: Peer) -> None:
    tokens = tokens_of(4)
    assert served.call("store", tokens, 1) is True
    before = served.call("chunks", 2)
    assert served.call("retrieve", tokens, 2, skip=BLOCK) is True
    after, stored = served.call("chunks", 2), served.call("chunks", 1)
    assert after not in (before, stored)


@pytest.mark.parametrize("blocks", [[4, 5], [*range(4, 4 + BLOCKS - 1), 10_000], [4, 5, -1, 6]])
def test_a_block_table_that_is_short_or_wrong_stores_nothing(
    blocks: list[int], served: Peer
) -> None:
    assert served.call("store_blocks", tokens_of(5), blocks) is False
    assert served.call("lookup", tokens_of(5)) == 0


def test_a_chunk_of_null_blocks_is_not_stored(served: Peer) -> None:
    served.call("store_blocks", tokens_of(6), [0] * BLOCKS)
    assert served.call("lookup", tokens_of(6)) == 0


def test_a_load_of_an_incomplete_prefix_is_refused(served: Peer) -> None:
    assert served.call("store", tokens_of(7), 1) is True
    assert served.call("retrieve", tokens_of(7, chunks=2), 4) is False


def test_an_unregistered_worker_is_refused(served: Peer) -> None:
    served.call("unregister")
    assert served.call("store", tokens_of(8), 1) is False
    assert served.call("retrieve", tokens_of(8), 1) is False
    assert served.call("register") == "LMCacheDrivenTransferContext"
    assert served.call("store", tokens_of(8), 1) is True


def test_a_dead_worker_is_known_by_the_kernel(server: Server, name: str) -> None:
    with copying_worker(server) as other:
        with Peer(ServedWorker, server.address) as dying:
            dying.call("register")
            assert dying.call("store", tokens_of(9), 1) is True
            instance = dying.call("instance")
            assert other.call("request", "ping", instance) is True
            dying.kill()
        wait_until("it is unregistered", lambda: not other.call("request", "ping", instance))
        assert other.call("lookup", tokens_of(9)) == 1, "its chunk is the pool's"
    with penstock.Store.attach(name) as store:
        assert store.stats().staged == 1, "the server's life, and none of a chunk"
