"""The L2 adapter from its users' view: full stores, servers that die, concurrent servers, names of
every kind, and invalid parameters. LMCache's own tests are in test_l2_contract.py, whole servers in
test_l2_server.py."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from l2_calls import WITHIN, Calls, key_of, memory_of
from lmcache.v1.distributed.internal_api import L2AdapterListener
from lmcache.v1.distributed.l2_adapters.config import get_l2_adapter_config_class
from lmcache.v1.distributed.l2_adapters.factory import create_l2_adapter_from_registry
from peers import Peer, eventually
from redis_server import RedisServer, why_no_server

import penstock
from penstock import inspect
from penstock.integrations.lmcache.l2_keys import key_text

pytestmark = [pytest.mark.timeout(400), pytest.mark.usefixtures("all_imported")]

DOCS = Path(__file__).resolve().parents[3] / "docs" / "lmcache.md"
KIB = 1 << 10
CAPACITY = 1024 * KIB
CHUNK = 100 * KIB  # nine fit


@pytest.fixture
def tier(name: str) -> Iterator[str]:
    yield name
    remove(name)


def remove(name: str) -> None:
    with contextlib.suppress(penstock.NotFound):
        eventually(lambda: inspect.remove_if_abandoned(name, data=True))


def calls(tier: str, **params: Any) -> Calls:
    return Calls(name=tier, **{"capacity": CAPACITY, **params})


def data_of(number: int, nbytes: int = CHUNK) -> bytes:
    return bytes([number % 251]) * nbytes


def peer_with_tier(peer: Callable[..., Peer], tier: str) -> Peer:
    one = peer()
    one.call("do", "l2_calls:open_tier", name=tier, capacity=CAPACITY)
    return one


# ---- a full store


def test_unlocked_chunks_make_room(tier: str) -> None:
    with calls(tier) as one:
        for number in range(30):
            assert one.store({key_of(number): data_of(number)})
        assert one.load(key_of(29), CHUNK) == data_of(29)
        assert one.load(key_of(0), CHUNK) is None
        assert 0 < one.adapter.get_usage().total_bytes_used <= CAPACITY


def test_a_store_of_locked_chunks_takes_no_more_until_they_are_unlocked(
    tier: str, caplog: pytest.LogCaptureFixture
) -> None:
    with calls(tier) as one:
        keys = [key_of(number) for number in range(9)]
        assert one.store({key: data_of(at) for at, key in enumerate(keys)})
        assert all(one.look_up(*keys))
        with caplog.at_level(logging.WARNING):
            assert not one.store({key_of(100): data_of(100, 4 * CHUNK)})
        assert "did not take all of a batch" in caplog.text
        assert one.load(keys[0], CHUNK) == data_of(0)
        one.unlock(*keys)
        assert one.store({key_of(100): data_of(100, 4 * CHUNK)})


def test_a_chunk_larger_than_the_store_is_refused_and_the_others_stay(tier: str) -> None:
    with calls(tier) as one:
        batch = {key_of(1): data_of(1), key_of(2): data_of(2, 2 * CAPACITY), key_of(3): data_of(3)}
        assert not one.store(batch)
        assert one.load(key_of(1), CHUNK) == data_of(1)
        assert one.load(key_of(3), CHUNK) == data_of(3)
        assert one.look_up(*batch) == [True, False, True]


def test_a_chunk_of_another_size_is_not_loaded(tier: str) -> None:
    """As from a server whose KV cache has another dtype."""
    with calls(tier) as one:
        assert one.store({key_of(1): data_of(1)})
        assert one.load(key_of(1), CHUNK // 2) is None
        assert one.load(key_of(1), 2 * CHUNK) is None
        assert one.load(key_of(1), CHUNK) == data_of(1)


# ---- dying and concurrent servers


def test_locks_of_a_killed_server_are_released(tier: str, peer: Callable[..., Peer]) -> None:
    with calls(tier) as one:
        assert one.store({key_of(number): data_of(number) for number in range(9)})
        other = peer_with_tier(peer, tier)
        assert all(other.call("tier.look_up", *(key_of(number) for number in range(9))))
        assert not one.store({key_of(100): data_of(100, 4 * CHUNK)})
        other.kill()
        eventually(lambda: one.store({key_of(100): data_of(100, 4 * CHUNK)}))
        assert one.adapter.report_status()["locked_object_count"] == 0


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_chunk_that_another_process_is_storing_is_waited_for(
    tier: str, peer: Callable[..., Peer], is_killed: bool
) -> None:
    with calls(tier) as one:
        other = peer()
        other.call("make", "store", "Store.attach", tier)
        other.call("make", "hold", "store.reserve", key_text(key_of(1)), nbytes=CHUNK)
        outcome: list[bool] = []
        storing = threading.Thread(
            target=lambda: outcome.append(one.store({key_of(1): data_of(1)}))
        )
        storing.start()
        assert one.look_up(key_of(1)) == [False]  # look-ups don't wait for it
        if is_killed:
            other.kill()
        else:
            other.call("hold.commit")
        storing.join(WITHIN)
        assert outcome == [True]
        # Its own chunk if the other's was never stored, otherwise the first.
        assert one.load(key_of(1), CHUNK) == (data_of(1) if is_killed else bytes(CHUNK))


def test_a_server_that_closes_leaves_no_chunk_half_written(tier: str) -> None:
    one = calls(tier, capacity=64 * CAPACITY)
    keys = [key_of(number) for number in range(200)]
    objects = [memory_of(data_of(number)) for number in range(200)]
    for begin in range(0, 200, 20):
        one.adapter.submit_store_task(keys[begin : begin + 20], objects[begin : begin + 20])
    one.close()
    with calls(tier) as next_one:
        for number, key in enumerate(keys):
            if next_one.look_up(key) == [True]:
                assert next_one.load(key, CHUNK) == data_of(number)
        assert next_one.store({key: data_of(number) for number, key in enumerate(keys)})


def test_a_deletion_that_a_closing_server_drops_is_not_waited_for(
    tier: str, peer: Callable[..., Peer]
) -> None:
    one = calls(tier, threads=1)
    other = peer()
    other.call("make", "store", "Store.attach", tier)
    other.call("make", "hold", "store.reserve", key_text(key_of(1)), nbytes=CHUNK)
    one.adapter.submit_store_task([key_of(1)], [memory_of(data_of(1))])

    # Deletions go before stores: repeat them until the only thread waits for that key.
    def delete_on() -> None:
        while not one.adapter.closed:
            one.delete([key_of(2)])

    deleting = threading.Thread(target=delete_on)
    deleting.start()

    def is_one_waiting() -> bool:
        pending = set(one.adapter._pending)
        deleting.join(0.1)
        return len(pending) == 2 and pending == set(one.adapter._pending)

    eventually(is_one_waiting, within=WITHIN)
    one.close()
    deleting.join(20)  # not the half minute that a deletion may last
    assert not deleting.is_alive()


class Listener(L2AdapterListener):
    def __init__(self) -> None:
        self.there: dict[Any, int] = {}

    def on_l2_keys_stored(self, keys: list[Any], sizes: list[int]) -> None:
        self.there.update(zip(keys, sizes, strict=True))

    def on_l2_keys_accessed(self, keys: list[Any]) -> None:
        assert set(keys) <= set(self.there)

    def on_l2_keys_deleted(self, keys: list[Any]) -> None:
        for key in keys:
            del self.there[key]


def test_usage_listings_and_listeners_are_those_of_the_whole_tier(
    tier: str, peer: Callable[..., Peer]
) -> None:
    with calls(tier) as one:
        listener = Listener()
        one.adapter.register_listener(listener)
        other = peer_with_tier(peer, tier)
        for number in range(30):
            assert other.call("tier.store", {key_of(number): data_of(number)})
        assert one.store({key_of(100): data_of(100)})
        used = one.adapter.get_usage().total_bytes_used
        listed = one.adapter.list_l2_keys()
        assert {entry.key.chunk_hash_hex for entry in listed.entries} == {
            key.chunk_hash.hex() for key in listener.there
        }
        assert used == sum(listener.there.values()) == CHUNK * len(listed.entries)
        other.call("tier.delete", list(listener.there))
        assert one.adapter.get_usage().total_bytes_used == 0
        assert listener.there == {}
        assert one.adapter.list_l2_keys().entries == ()


# ---- names


def test_chunks_of_other_models_ranks_groups_and_salts_are_apart(tier: str) -> None:
    keys = [
        key_of(1, model="org/模型-8B ü"),
        key_of(1, model="org/模型-8B u"),
        key_of(1, model="org/模型-8B ü", kv_rank=0x01000100),
        key_of(1, model="org/模型-8B ü", object_group_id=1),
        key_of(1, model="org/模型-8B ü", object_group_id=17),
        key_of(1, model="org/模型-8B ü", cache_salt="benutzer ß"),
        key_of(1, model="org/模型-8B ü", object_group_id=1, cache_salt="benutzer ß"),
    ]
    with calls(tier) as one:
        assert one.store({key: data_of(at, KIB) for at, key in enumerate(keys)})
        for at, key in enumerate(keys):
            assert one.load(key, KIB) == data_of(at, KIB)
        assert one.look_up(key_of(1)) == [False]
        listed = one.adapter.list_l2_keys(model_name="org/模型-8B ü").entries
        assert {entry.key for entry in listed} == {
            key.to_encoded_object_key() for key in keys if key != keys[1]
        }
        assert one.adapter.get_usage().bytes_by_cache_salt["benutzer ß"] == 2 * KIB
        one.adapter.delete(keys[:1])
        assert one.look_up(*keys) == [False] + [True] * 6


def test_pages_of_a_listing_have_each_chunk_once(tier: str) -> None:
    with calls(tier) as one:
        keys = [key_of(number, object_group_id=number % 3) for number in range(25)]
        assert one.store({key: data_of(1, KIB) for key in keys})
        found = []
        cursor = None
        while True:
            page = one.adapter.list_l2_keys(page_size=4, cursor=cursor)
            assert len(page.entries) <= 4
            found += [entry.key for entry in page.entries]
            cursor = page.next_page_token
            if cursor is None:
                break
        assert sorted(found, key=str) == sorted((k.to_encoded_object_key() for k in keys), key=str)


def test_a_chunk_removed_during_a_listing_is_in_no_list_or_usage(
    tier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with calls(tier) as one:
        assert one.store({key_of(number): data_of(number, KIB) for number in range(3)})
        texts = [key_text(key_of(number)) for number in range(3)]
        with penstock.Store.attach(tier) as other:
            other.delete(texts[1])
            other.put_bytes(key_text(key_of(3)), bytes(KIB))
        gone = [*texts, key_text(key_of(3)), key_text(key_of(4))]  # as they were before
        monkeypatch.setattr(one.adapter, "_texts", lambda: gone)
        listed = [entry.key.chunk_hash_hex for entry in one.adapter.list_l2_keys().entries]
        assert listed == [key_of(number).chunk_hash.hex() for number in (0, 2, 3)]
        listener = Listener()
        one.adapter.register_listener(listener)
        one.adapter.get_usage()
        assert listener.there == {key_of(3): KIB}


# ---- the tier itself


def test_a_tier_with_another_capacity_is_kept_and_reported(
    tier: str, caplog: pytest.LogCaptureFixture
) -> None:
    with calls(tier), caplog.at_level(logging.WARNING), calls(tier, capacity="64MiB") as other:
        assert other.adapter.report_status()["max_capacity_bytes"] == CAPACITY
        assert f"penstock gc --data {tier}" in caplog.text
        assert not inspect.remove_if_abandoned(tier, data=True)  # in use
    assert inspect.remove_if_abandoned(tier, data=True)
    with calls(tier, capacity="64MiB") as anew:
        assert anew.adapter.report_status()["max_capacity_bytes"] == 64 * CAPACITY


def test_a_server_goes_on_when_the_file_of_its_tier_is_removed(tier: str) -> None:
    with calls(tier) as one:
        assert one.store({key_of(1): data_of(1)})
        Path("/dev/shm", f"penstock.{tier}").unlink()
        assert one.load(key_of(1), CHUNK) == data_of(1)
        assert one.store({key_of(2): data_of(2)})
        with calls(tier) as anew:
            assert anew.look_up(key_of(1)) == [False]


@pytest.mark.skipif(bool(why_no_server), reason=why_no_server)
def test_a_chunk_that_expires_behind_the_store_is_a_miss(tier: str, tmp_path: Path) -> None:
    redis = RedisServer(tmp_path)
    other = f"{tier}-other"
    behind = {"url": redis.url, "policy": "write_through", "ttl": 600}
    try:
        with calls(tier, second_tier=behind) as one, calls(other, second_tier=behind) as two:
            assert one.store({key_of(1): data_of(1), key_of(2): data_of(2)})
            assert two.look_up(key_of(1), key_of(2)) == [True, True]
            redis.say("FLUSHALL")  # as if they had expired
            assert two.load(key_of(1), CHUNK) is None
            two.unlock(key_of(1), key_of(2))
            assert two.look_up(key_of(2)) == [False]
            assert one.load(key_of(1), CHUNK) == data_of(1)
    finally:
        redis.kill()
        remove(other)


# ---- parameters


# Each with the text of its refusal; "x" stands for the tier.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "name is missing"),
    ({"name": 5}, "name must be a non-empty string"),
    ({"name": "a/b"}, "it holds '/'"),
    ({"name": "x", "capacity": "64Gigs"}, "capacity: '64Gigs' is no size"),
    ({"name": "x", "capacity": True}, "capacity: True is no size"),
    ({"name": "x", "capacity": 0}, "capacity: 0 is no size"),
    ({"name": "x", "threads": 0}, "threads is 0: give 1 to 256"),
    ({"name": "x", "threads": True}, "threads is True"),
    ({"name": "x", "eviction": "lfu"}, "eviction is 'lfu': give one of sieve"),
    ({"name": "x", "populate": "yes"}, "populate must be true or false, not 'yes'"),
    ({"name": "x", "participants": 0}, "participants must be 1 to 1023"),
    ({"name": "x", "objects": "many"}, "objects must be an int"),
    ({"name": "x", "owner": "no-such-user"}, "there is no user 'no-such-user'"),
    ({"name": "x", "capacityy": 1}, "unknown: capacityy; there are capacity"),
    ({"name": "x", "second_tier": {}}, "second_tier has no url"),
    ({"name": "x", "second_tier": 5}, "takes a URL"),
    ({"name": "x", "second_tier": "http://a"}, "begins with neither redis://"),
    ({"name": "x", "second_tier": {"url": "redis://a", "polcy": 1}}, "unknown: polcy; there"),
]


@pytest.mark.parametrize("kind", ["plugin", "native_plugin"])
def test_impossible_values_are_refused_with_a_reason(tier: str, kind: str) -> None:
    for params, sentence in REFUSED:
        given = {**params, "name": tier} if params.get("name") == "x" else params
        with pytest.raises(ValueError, match=re.escape(sentence)) as raised:
            create({"type": kind, **PLACES[kind], "adapter_params": given})
        assert isinstance(raised.value, penstock.Error)
        assert tier not in {segment.name for segment in inspect.list_segments()}


PLACES = {
    "plugin": {
        "module_path": "penstock.integrations.lmcache.l2",
        "class_name": "PenstockL2Adapter",
    },
    "native_plugin": {
        "module_path": "penstock.integrations.lmcache.native",
        "class_name": "PenstockConnector",
    },
}


def create(spec: dict[str, Any]) -> Any:
    # A look-up by type alone would import the adapters of all other systems.
    importlib.import_module(f"lmcache.v1.distributed.l2_adapters.{spec['type']}_l2_adapter")
    config = get_l2_adapter_config_class(spec["type"]).from_dict(spec)
    return create_l2_adapter_from_registry(config)


def adapters_in_docs() -> list[dict[str, Any]]:
    """Each ``--l2-adapter`` line in the docs, parsed as by a shell and LMCache."""
    decoder = json.JSONDecoder()
    text = DOCS.read_text()
    starts = re.finditer(r'\{\s*"type": "(native_)?plugin"', text)
    return [decoder.raw_decode(text, found.start())[0] for found in starts]


def test_the_lines_of_the_docs_are_taken(tier: str) -> None:
    specs = adapters_in_docs()
    assert {spec["type"] for spec in specs} == {"plugin", "native_plugin"}
    for spec in specs:
        spec["adapter_params"] |= {"name": tier, "capacity": "1MiB"}  # for this machine
        create(spec).close()
