"""Batches on a store by threads without Python: copies in and out, locks that pin, and the effects
of a fork, a close and a death. LMCache's own tests of its interface are in tests/real/lmcache."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from peers import eventually, state_of

import penstock
from penstock import _core
from penstock.integrations.lmcache.native import PenstockConnector

WITHIN = 30.0  # seconds
Connector = _core.StoreConnector


@pytest.fixture
def store(name: str) -> Iterator[penstock.Store]:
    with penstock.Store.create(name, capacity="8MiB") as made:
        yield made


@pytest.fixture
def connector(store: penstock.Store) -> Iterator[Connector]:
    made = Connector(store)
    yield made
    made.close()


def outcome(connector: Connector, number: int) -> tuple[bool, str, list[bool]]:
    """The outcome of the only batch under way."""
    assert select.select([connector.event_fd()], [], [], WITHIN)[0], "no outcome in time"
    ((found, ok, error, done),) = connector.drain_completions()
    assert found == number
    return ok, error, done


def test_a_value_that_was_set_is_got(connector: Connector) -> None:
    values = [os.urandom(size) for size in (0, 1, 4096, 1 << 20)]
    keys = [f"key-{at}" for at in range(len(values))]
    done = outcome(connector, connector.submit_batch_set(keys, values))
    assert done == (True, "", [True] * 4)
    into = [bytearray(len(value)) for value in values]
    assert outcome(connector, connector.submit_batch_get(keys, into))[2] == [True] * 4
    assert into == values


def test_the_first_of_a_key_stays_and_a_second_is_no_failure(connector: Connector) -> None:
    outcome(connector, connector.submit_batch_set(["key"], [b"first"]))
    assert outcome(connector, connector.submit_batch_set(["key"], [b"other"])) == (
        True,
        "",
        [False],
    )
    into = bytearray(5)
    outcome(connector, connector.submit_batch_get(["key"], [into]))
    assert into == b"first"


def test_a_miss_is_no_failure_and_another_size_is_one(connector: Connector) -> None:
    outcome(connector, connector.submit_batch_set(["key"], [b"12345"]))
    into = [bytearray(4), bytearray(5)]
    ok, error, done = outcome(connector, connector.submit_batch_get(["key", "none"], into))
    assert (ok, done) == (False, [False, False])
    assert "5 bytes" in error
    assert "4" in error
    assert into == [bytes(4), bytes(5)]
    assert outcome(connector, connector.submit_batch_get(["none"], [into[1]])) == (
        True,
        "",
        [False],
    )


def test_looks_and_deletions(connector: Connector, store: penstock.Store) -> None:
    store.put_bytes("there", b"x")
    keys = ["there", "none"]
    assert outcome(connector, connector.submit_batch_exists(keys)) == (True, "", [True, False])
    assert outcome(connector, connector.submit_batch_delete(keys)) == (True, "", [True, False])
    assert outcome(connector, connector.submit_batch_exists(keys)) == (True, "", [False, False])


def test_an_empty_batch_is_done_at_once(connector: Connector) -> None:
    assert outcome(connector, connector.submit_batch_get([], [])) == (True, "", [])


def test_a_lock_pins_until_it_is_unlocked_as_often(
    connector: Connector, store: penstock.Store
) -> None:
    store.put_bytes("key", b"x")
    for _ in range(2):
        assert outcome(connector, connector.submit_batch_lock(["key", "none"]))[2] == [True, False]
    assert store.stats().in_use == 1
    connector.unlock(["key"])
    assert store.stats().in_use == 1
    connector.unlock(["key", "none"])
    assert store.stats().in_use == 0
    connector.unlock(["key"])  # once more: no effect


def test_a_locked_key_is_readable_after_its_deletion(
    connector: Connector, store: penstock.Store
) -> None:
    store.put_bytes("key", b"value")
    outcome(connector, connector.submit_batch_lock(["key"]))
    assert store.delete("key")
    into = bytearray(5)
    assert outcome(connector, connector.submit_batch_get(["key"], [into]))[2] == [True]
    assert into == b"value"
    connector.unlock(["key"])
    assert outcome(connector, connector.submit_batch_get(["key"], [into]))[2] == [False]


def test_more_than_max_pending_waits_and_goes_on(store: penstock.Store) -> None:
    connector = Connector(store, threads=1, max_pending=4)
    numbers = [
        connector.submit_batch_set([f"{at}-{one}" for one in range(3)], [b"x"] * 3)
        for at in range(40)
    ]
    drained: list[int] = []

    def drain() -> bool:
        drained.extend(number for number, *_ in connector.drain_completions())
        return len(drained) == len(numbers)

    eventually(drain, within=WITHIN)
    assert sorted(drained) == numbers
    connector.close()


def test_a_key_that_another_writes_is_waited_for(
    connector: Connector, store: penstock.Store
) -> None:
    room = store.reserve("key", 5)
    number = connector.submit_batch_set(["key"], [b"ours!"])
    with room as memory:
        memory[:] = b"other"
    assert outcome(connector, number) == (True, "", [False])
    assert store.get_copy("key") == b"other"


def test_close_drops_queued_batches_and_releases_locks(
    connector: Connector, store: penstock.Store
) -> None:
    store.put_bytes("key", b"x")
    outcome(connector, connector.submit_batch_lock(["key"]))
    memory = bytearray(1 << 20)
    for at in range(50):
        connector.submit_batch_set([f"k{at}"], [memory])
    connector.close()
    connector.close()
    assert store.stats().in_use == 0
    memory.append(0)  # fails while a view of the bytearray exists
    with pytest.raises(penstock.Closed):
        connector.submit_batch_exists(["key"])
    with pytest.raises(penstock.Closed):
        connector.drain_completions()


def test_wrong_arguments_are_refused_in_words(connector: Connector, store: penstock.Store) -> None:
    with pytest.raises(penstock.InvalidArgument, match="2 keys and 1 buffers"):
        connector.submit_batch_get(["a", "b"], [bytearray(1)])
    with pytest.raises(BufferError):
        connector.submit_batch_get(["a"], [b"read-only"])
    with pytest.raises(penstock.InvalidArgument, match="threads is 0"):
        Connector(store, threads=0)


WAITS_FOR_ROOM = """
import sys, threading
import penstock
from penstock import _core
store = penstock.Store.create(sys.argv[1], capacity="1MiB")
room = store.reserve("staged", 1)
connector = _core.StoreConnector(store, threads=1, max_pending=1)
connector.submit_batch_set(["staged"], [b"x"])
try:
    print("full", flush=True)
    connector.submit_batch_exists(["key"])
except KeyboardInterrupt:
    connector.close()
    room.abort()
    print("interrupted", flush=True)
"""


def test_ctrl_c_ends_the_wait_for_room(name: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITS_FOR_ROOM, name], stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "full\n"
        eventually(lambda: state_of(program.pid) == "S", within=WITHIN)
        program.send_signal(signal.SIGINT)
        assert program.stdout.readline() == "interrupted\n"
        assert program.wait(WITHIN) == 0


def test_a_store_that_was_closed_is_no_miss(connector: Connector, store: penstock.Store) -> None:
    store.put_bytes("key", b"x")
    store.close()
    for submit in (connector.submit_batch_exists, connector.submit_batch_lock):
        ok, error, done = outcome(connector, submit(["key"]))
        assert (ok, done) == (False, [False])
        assert "closed" in error


def test_a_forked_child_is_refused_and_ends_in_good_order(connector: Connector) -> None:
    child = os.fork()
    if child == 0:
        try:
            connector.submit_batch_exists(["key"])
        except penstock.WrongProcess:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert outcome(connector, connector.submit_batch_exists(["key"]))[2] == [False]


def test_a_program_that_never_closes_it_ends(name: str) -> None:
    program = (
        "from penstock.integrations.lmcache.native import PenstockConnector\n"
        f"connector = PenstockConnector({name!r}, capacity='4MiB', threads=4)\n"
        "memory = bytearray(1 << 20)\n"
        "for at in range(100): connector.submit_batch_set([str(at)], [memory])\n"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], timeout=WITHIN, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
    finally:
        penstock.inspect.remove_if_abandoned(name, data=True)


HOLDER = """
import select, sys
from penstock.integrations.lmcache.native import PenstockConnector
connector = PenstockConnector(sys.argv[1], capacity="8MiB")
connector.submit_batch_lock(["key"])
select.select([connector.event_fd()], [], [])
print(connector.drain_completions()[0][2:], flush=True)
sys.stdin.read()
"""


def test_death_releases_its_locks_and_leaves_the_objects(name: str) -> None:
    ours = PenstockConnector(name, capacity="8MiB")
    outcome(ours, ours.submit_batch_set(["key"], [b"value"]))
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other, penstock.Store.attach(name) as store:
        assert other.stdout is not None
        assert other.stdout.readline() == b"('', [True])\n"
        assert store.stats().in_use == 1
        other.kill()

        def is_released() -> bool:
            store.reap_dead()
            return store.stats().in_use == 0

        eventually(is_released, within=WITHIN)
        assert store.get_copy("key") == b"value"
    ours.close()
    assert penstock.inspect.remove_if_abandoned(name, data=True)


def test_the_store_of_a_connector_stays_with_its_objects(name: str) -> None:
    first = PenstockConnector(name, capacity="8MiB")
    outcome(first, first.submit_batch_set(["key"], [b"value"]))
    first.close()
    second = PenstockConnector(name, capacity="8MiB")
    try:
        assert outcome(second, second.submit_batch_exists(["key"]))[2] == [True]
    finally:
        second.close()
        assert penstock.inspect.remove_if_abandoned(name, data=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"capacity": "64GB?"}, "capacity"),
        ({"capacity": -1}, "capacity"),
        ({"threads": 0}, "threads"),
        ({"capacty": "1GiB"}, "unknown: capacty"),
    ],
)
def test_options_that_can_not_be_meant(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PenstockConnector(name, **options)
