"""LMCache's own worker classes, unmodified, on `penstock lmcache serve`."""

from __future__ import annotations

import os
import pickle
import signal

import pytest
import torch

pytest.importorskip("lmcache", reason="lmcache is not installed in this environment")

from server_workers import CHUNK, Peer, PickleWorker, Server, overlap, tokens_of, wait_until, worker

import penstock

pytestmark = [pytest.mark.timeout(400), pytest.mark.usefixtures("all_imported")]


def test_one_workers_chunks_are_retrieved_by_another_to_the_bit(server: Server) -> None:
    tokens = tokens_of(1, chunks=3)
    with worker(server) as first, worker(server) as second:
        assert first.call("lookup", tokens) == 0
        stored = first.call("chunks", 0, 3)
        assert first.call("store", tokens, 0) is True
        assert second.call("lookup", tokens) == 3
        second.call("wipe")
        assert second.call("retrieve", tokens, 5) is True
        assert second.call("chunks", 5, 3) == stored


def test_chunks_outlive_the_worker_that_stored_them(server: Server) -> None:
    tokens = tokens_of(2)
    with worker(server) as first:
        assert first.call("store", tokens, 0) is True
        stored = first.call("chunks", 0)
    with worker(server) as second:
        assert second.call("retrieve", tokens, 1) is True
        assert second.call("chunks", 1) == stored


def test_a_worker_killed_in_mid_store_publishes_nothing(server: Server) -> None:
    tokens = tokens_of(3)
    with worker(server) as other:
        with worker(server) as dying:
            assert len(dying.call("prepare_store", tokens)) == 1
            dying.call("fill", 666.0)
            assert other.call("lookup", tokens) == 0
            dying.kill()
        assert other.call("lookup", tokens, "again") == 0
        assert other.call("store", tokens, 0) is True, "the dead one's chunk is free at once"
        stored = other.call("chunks", 0)
        assert other.call("retrieve", tokens, 1) is True
        assert other.call("chunks", 1) == stored


def test_a_chunk_that_another_is_storing_is_not_reported_as_stored(server: Server) -> None:
    tokens = tokens_of(4)
    with worker(server) as first, worker(server) as second:
        first.call("prepare_store", tokens)
        assert second.call("store", tokens, 0) is False
        first.call("fill", 4.0)
        assert first.call("commit_store") is True
        assert second.call("store", tokens, 0) is True, "it is there"


def test_a_commit_without_a_prepare_stores_nothing(server: Server) -> None:
    tokens = tokens_of(5)
    with worker(server) as peer:
        peer.call("prepare_store", tokens)
        peer.call("fill", 5.0)
        assert peer.call("commit_store") is True
        assert peer.call("commit_store") is False
        assert peer.call("lookup", tokens) == 1


def test_a_stopped_workers_slot_is_not_used_before_it_has_ended(server: Server, name: str) -> None:
    tokens = tokens_of(6)
    with worker(server) as late, worker(server) as other:
        (offset,) = late.call("prepare_store", tokens)
        late.signal(signal.SIGSTOP)
        # Meanwhile more than the whole pool is written.
        for number in range(40):
            many = tokens_of(100 + number, chunks=16)
            other.call("store", many, 0, f"fill{number}")
            taken = other.call("prepare_store", tokens_of(200 + number), f"probe{number}")
            assert not overlap(offset, taken)
            other.call("commit_store")
        late.signal(signal.SIGCONT)
        late.call("fill", 6.0)
        assert late.call("commit_store") is True
        assert other.call("prepare_retrieve", tokens) == [6.0]
        assert other.call("commit_retrieve") is True


def test_a_worker_that_unregisters_in_mid_store_can_still_write(server: Server) -> None:
    tokens = tokens_of(7)
    with worker(server) as other, worker(server) as leaving:
        (offset,) = leaving.call("prepare_store", tokens)
        leaving.call("unregister")
        assert not overlap(offset, other.call("prepare_store", tokens)), (
            "its chunk is free, and not its slot"
        )
        other.call("fill", 7.0)
        assert other.call("commit_store") is True
        leaving.call("fill", 666.0)
        assert leaving.call("commit_store") is False
        assert other.call("prepare_retrieve", tokens) == [7.0]


def test_two_retrieves_of_one_prefix_have_their_own_leases(server: Server) -> None:
    tokens = tokens_of(8)
    with worker(server) as peer:
        assert peer.call("store", tokens, 0) is True
        assert peer.call("prepare_retrieve", tokens, "a") is not None
        (value,) = peer.call("values", 0)
        assert peer.call("prepare_retrieve", tokens, "b") == [value]
        assert peer.call("commit_retrieve", 0) is True
        assert peer.call("commit_retrieve", 0) is False
        for number in range(40):
            peer.call("store", tokens_of(300 + number, chunks=16), 0, f"fill{number}")
        assert peer.call("values", 1) == [value], "b still reads what it was given"
        assert peer.call("commit_retrieve", 1) is True


def test_a_thousand_requests_that_never_end_fill_no_pool(server: Server) -> None:
    with worker(server) as peer:
        for number in range(1000):
            tokens = tokens_of(1000 + number, chunks=2)
            assert peer.call("store", tokens, 0, f"r{number}") is True
            assert peer.call("lookup", tokens, f"r{number}") == 2


def test_chunks_of_a_lookup_stay_until_the_request_ends(name: str) -> None:
    tokens = tokens_of(9)
    options = ("--capacity", "1MiB", "--chunk-tokens", str(CHUNK))
    with Server(name, *options) as server, worker(server) as peer:
        assert peer.call("store", tokens, 0) is True
        assert peer.call("lookup", tokens, "kept") == 1
        with penstock.Store.attach(name) as store:
            assert store.stats().in_use == 1
            peer.call("request", "end_session", "kept")
            peer.call("request", "end_session", "s")
            assert store.stats().in_use == 0


def test_a_lookup_is_true_for_every_rank(server: Server) -> None:
    tokens = tokens_of(10, chunks=2)
    with worker(server) as peer:
        assert peer.call("store", tokens, 0, world_size=1) is True
        assert peer.call("lookup", tokens, "two", world_size=2) == 0


def test_answers_to_an_unregistered_worker(server: Server) -> None:
    tokens = tokens_of(11)
    with worker(server) as peer:
        assert peer.call("store", tokens, 0) is True
        peer.call("unregister")
        assert peer.call("retrieve", tokens, 0) is False
        assert peer.call("store", tokens_of(12), 0) is False
        assert peer.call("request", "ping", 12345) is False
        assert peer.call("request", "ping", 12345) is True, "well, so that it registers anew"
        assert peer.call("request", "ping", None) is True


def test_plain_requests(server: Server) -> None:
    with worker(server) as peer:
        assert peer.call("request", "get_chunk_size") == CHUNK
        assert peer.call("request", "get_experimental") == []
        assert peer.call("request", "noop") == "OK"
        assert peer.call("request", "query_prefetch_status", "never") == 0
        assert peer.call("store", tokens_of(13), 0) is True
        assert peer.call("lookup", tokens_of(13), "cleared") == 1
        peer.call("request", "clear", True)
        assert peer.call("lookup", tokens_of(13), "cleared2") == 0


def test_a_worker_that_cannot_open_the_pool_sends_its_chunks(server: Server) -> None:
    tokens = tokens_of(14, chunks=2)
    with Peer(PickleWorker, server.address) as first, worker(server) as second:
        assert first.call("register") == "EngineDrivenContextPickle"
        stored = first.call("chunks", 0, 2)
        assert first.call("store", tokens, 0) is True
        assert second.call("retrieve", tokens, 3) is True
        assert second.call("chunks", 3, 2) == stored
        first.call("wipe")
        assert first.call("retrieve", tokens, 1) is True
        assert first.call("chunks", 1, 2) == stored


def test_a_server_that_dies_leaves_a_persistent_pool_in_which_no_slot_is_reused(name: str) -> None:
    options = ("--capacity", "1MiB", "--chunk-tokens", str(CHUNK), "--persistent")
    kept, torn = tokens_of(15), tokens_of(16)
    with Server(name, *options) as server, worker(server) as late:
        assert late.call("store", kept, 0) is True
        stored = late.call("chunks", 0)
        (offset,) = late.call("prepare_store", torn)
        server.kill()
        with Server(name, *options) as heir:
            with worker(heir) as other:
                assert other.call("lookup", torn) == 0
                assert other.call("lookup", kept) == 1
                for number in range(40):
                    taken = other.call("prepare_store", tokens_of(400 + number))
                    assert not overlap(offset, taken)
                    other.call("commit_store")
                late.call("fill", 666.0)
                assert other.call("retrieve", kept, 3) is True
                assert other.call("chunks", 3) == stored
            with penstock.Store.attach(name) as store:
                retained = store.stats().retained
                late.kill()
                wait_until(
                    "its writer is dead, and the slot may be used again",
                    lambda: store.stats().retained == retained - 1,
                )
            assert heir.end() == 0
    os.unlink(f"/dev/shm/penstock.{name}")


def test_chunks_that_are_no_tensors_of_the_layout_are_answered_false(server: Server) -> None:
    tokens = tokens_of(17)
    huge = torch.zeros(1).expand(1 << 45)  # 128 TiB in a few bytes
    bad = [b"garbage", b"\x80", b"\x80\x04]q\x00.", *map(pickle.dumps, (None, [1], [huge]))]
    with Peer(PickleWorker, server.address) as peer:
        peer.call("register")
        for data in (*bad, pickle.dumps([torch.zeros(())]), pickle.dumps([torch.zeros(3)])):
            assert peer.call("commit_bytes", tokens, data) is False, data
        assert peer.call("lookup", tokens) == 0
        assert peer.call("store", tokens, 0) is True
