"""Dead letters of a queue: inspected, requeued and dropped, from Python and by the command."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from peers import WITHIN

import penstock
from penstock import DeadLetter, Queue
from penstock.cli.main import main


class Bad(Exception):
    """A consumer's refusal of a message."""


@pytest.fixture
def queue(name):
    with Queue.create(name, slots=4, max_deliveries=1) as made:
        yield made
        if not made.closed:
            made.discard()


def fail(queue: Queue, times: int = 1) -> None:
    """Take the next message `times` times, and raise."""
    for _ in range(times):
        with pytest.raises(Bad), queue.get_view(timeout=0):
            raise Bad


def dead_letter(queue: Queue, *values: object) -> None:
    for value in values:
        queue.put(value, timeout=0)
        fail(queue)


def work_in_batches(queue: Queue, size: int, bad: object) -> list[object]:
    """Take batches until the queue is empty; a batch with the bad value fails as a whole."""
    done: list[object] = []
    for _ in range(100):
        if queue.stats().queued == 0:
            return done
        with contextlib.suppress(Bad), queue.get_many(max_items=size, timeout=0) as batch:
            if bad in batch:
                raise Bad
            done += batch
    raise AssertionError("the bad message comes for ever")


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_three_good_messages_of_a_bad_batch_are_done(name, limit):
    with Queue.create(name, slots=8, max_deliveries=limit) as queue:
        queue.put_many(["a", "b", "bad", "c"])
        assert work_in_batches(queue, 4, "bad") == ["a", "b", "c"]
        (letter,) = queue.dead_letters()
        assert (letter.content(), letter.sequence) == ("bad", 2)
        assert queue.stats().dead_letters == 1
        queue.drop_dead_letters()


@pytest.mark.parametrize("limit", [1, 2])
def test_three_good_messages_outlive_one_that_kills(name, limit, peer):
    with Queue.create(name, slots=8, max_deliveries=limit) as queue:
        queue.put_many(["a", "b", "kills", "c"])
        done = []
        for _ in range(20):
            if queue.stats().dead_letters:
                break
            consumer = peer()
            consumer.call("make", "q", "Queue.attach", queue.handle)
            while True:
                consumer.call("make", "b", "q.get_many", max_items=4, timeout=WITHIN)
                batch = consumer.call("b.__enter__")
                if "kills" in batch:
                    consumer.kill()
                    Queue.attach(name).close()  # reaps it
                    break
                consumer.call("b.__exit__", None, None, None)
                done += batch
        else:
            raise AssertionError("it kills for ever")
        assert [letter.content() for letter in queue.dead_letters()] == ["kills"]
        while queue.stats().queued:
            done.append(queue.get(timeout=0))
        assert done == ["a", "b", "c"]
        queue.drop_dead_letters()


def test_a_batch_may_be_smaller_for_one_that_must_come_alone(queue):
    queue.put_many(["x", "y"])
    with pytest.raises(Bad), queue.get_many(max_items=2, min_items=2, timeout=0):
        raise Bad
    queue.put_many(["z"])
    for value in ("x", "y"):
        with queue.get_many(max_items=3, min_items=2, timeout=0) as batch:
            assert batch == [value]
    assert queue.get(timeout=0) == "z"


@pytest.mark.parametrize("value", [{"x": np.arange(4)}, np.zeros(900), b"bytes"], ids=type)
def test_a_value_that_a_variable_refers_to_comes_again(name, value):
    """The block's own variable refers to it, in an ordinary loop."""
    with Queue.create(name, max_deliveries=3) as queue:
        queue.put_bytes(value) if isinstance(value, bytes) else queue.put(value)
        kept = []
        for _ in range(2):
            with contextlib.suppress(Bad), queue.get_view(timeout=0) as message:
                kept.append(message)
                raise Bad
        with contextlib.suppress(Bad), queue.get_many(timeout=0) as batch:
            message = batch[0]
            raise Bad
        (letter,) = queue.dead_letters()
        assert letter.deliveries == 3
        assert queue.stats().in_flight == 0
        queue.requeue_dead_letters()
        with queue.get_view(timeout=0) as message:
            pass
        stats = queue.stats()
        assert (stats.in_flight, stats.acknowledged) == (0, 1)
        queue.put(np.full(900, 7))  # would reuse the memory of the first
        for one in [*kept, message]:
            if isinstance(value, dict):
                np.testing.assert_array_equal(one["x"], value["x"])
                assert not one["x"].flags.writeable
            elif isinstance(value, bytes):
                assert bytes(one) == value
                assert one.readonly
            else:
                np.testing.assert_array_equal(one, value)
        queue.discard()


def test_arguments_that_name_no_dead_letters(queue):
    for limit in ("a", 2.5, None):
        with pytest.raises(penstock.InvalidType, match="limit"):
            queue.dead_letters(limit)
    with pytest.raises(penstock.InvalidArgument, match="limit is -1"):
        queue.dead_letters(limit=-1)
    for sequences in ("all", ["a"], 2.5, [None]):
        for verb in (queue.requeue_dead_letters, queue.drop_dead_letters):
            with pytest.raises(penstock.InvalidType, match="sequence"):
                verb(sequences)


def test_inspection_leaves_a_dead_letter(queue):
    tokens = np.arange(5000, dtype=np.int32)
    dead_letter(queue, {"tokens": tokens, "text": "x"}, None)
    queue.put_bytes(b"raw")
    fail(queue)
    first, second, third = queue.dead_letters()
    assert isinstance(first, DeadLetter)
    assert (first.sequence, first.deliveries, first.producer) == (0, 1, 0)
    assert first.nbytes > tokens.nbytes
    assert 0 <= first.age < 60
    for _ in range(2):
        value = first.content()
        assert np.array_equal(value["tokens"], tokens)
        value["tokens"][:] = 0  # a private copy
    assert second.content() is None
    assert (third.format, third.content(), third.content_bytes()) == ("bytes", b"raw", b"raw")
    assert len(first.content_bytes()) == first.nbytes
    assert [one.sequence for one in queue.dead_letters(limit=2)] == [0, 1]
    assert queue.stats().dead_letters == 3
    assert queue.drop_dead_letters(first) == 1
    with pytest.raises(penstock.NotFound, match="no dead letter"):
        first.content()


def test_requeueing_keeps_the_place(queue):
    dead_letter(queue, "a", "b", "c")
    queue.put("d")
    letters = queue.dead_letters()
    assert queue.requeue_dead_letters([letters[1], 99, -1, np.int64(1)]) == 1
    assert queue.requeue_dead_letters(0) == 1
    assert [queue.get(timeout=0) for _ in range(3)] == ["a", "b", "d"]
    assert queue.requeue_dead_letters() == 1
    fail(queue)
    assert [one.content() for one in queue.dead_letters()] == ["c"], "the count began again"
    assert queue.requeue_dead_letters([]) == 0
    assert queue.requeue_dead_letters(letter.sequence for letter in queue.dead_letters()) == 1
    assert queue.get(timeout=0) == "c"


def test_a_queue_full_of_dead_letters_names_the_remedy(queue):
    dead_letter(queue, *range(4))
    with pytest.raises(penstock.Timeout, match=r"4 of 4 slots hold dead letters") as full:
        queue.put(4, timeout=0)
    assert "drop_dead_letters()" in str(full.value)
    assert "`penstock dead" in str(full.value)
    assert "queued or taken" not in str(full.value)
    assert queue.drop_dead_letters([2]) == 1
    queue.put(4, timeout=0)
    assert queue.get(timeout=0) == 4
    assert queue.drop_dead_letters() == 3
    stats = queue.stats()
    assert (stats.dead_letters, stats.dropped, stats.held_bytes) == (0, 4, 0)


def test_pickles_are_read_only_where_that_was_asked_for(name):
    with (
        Queue.create(name, max_deliveries=1, codec="pickle") as queue,
        Queue.attach(name) as typed,
    ):
        dead_letter(queue, {1, 2})
        assert queue.dead_letters()[0].content() == {1, 2}
        with pytest.raises(penstock.Incompatible, match="pickle"):
            typed.dead_letters()[0].content()
        assert typed.dead_letters()[0].content_bytes()
        queue.drop_dead_letters()


@pytest.mark.parametrize("way", ["get", "get_many"])
def test_a_pickle_that_no_consumer_asks_for_is_in_the_way_no_longer_than_the_limit(name, way):
    with (
        Queue.create(name, max_deliveries=2, codec="pickle") as queue,
        Queue.attach(name) as typed,
    ):
        queue.put({1, 2})
        queue.put(3)
        take = typed.get if way == "get" else lambda **given: typed.get_many(**given).__enter__()
        for _ in range(2):
            with pytest.raises(penstock.Incompatible, match="max_deliveries"):
                take(timeout=0)
        assert [one.format for one in typed.dead_letters()] == ["pickle"]
        assert queue.get(timeout=0) == 3
        assert queue.requeue_dead_letters() == 1
        assert queue.get(timeout=0) == {1, 2}


def test_an_undecodable_dead_letter_shows_its_error(queue):
    queue.put_bytes(b"\xff" * 100)
    fail(queue)
    letter = queue.dead_letters()[0]
    corrupt = DeadLetter(
        sequence=letter.sequence,
        producer=letter.producer,
        deliveries=letter.deliveries,
        nbytes=letter.nbytes,
        age=letter.age,
        format="typed",
        _copy=letter._copy,
        _decode=letter._decode,
    )
    with pytest.raises(penstock.Corrupt):
        corrupt.content()
    assert corrupt.content_bytes() == b"\xff" * 100


def test_a_closed_queue_refuses_dead_letter_calls(queue):
    dead_letter(queue, 1)
    letter = queue.dead_letters()[0]
    queue.close()
    for verb in (
        queue.dead_letters,
        queue.requeue_dead_letters,
        queue.drop_dead_letters,
        letter.content,
    ):
        with pytest.raises(penstock.Closed):
            verb()
    with Queue.attach(queue.name) as heir:
        assert heir.drop_dead_letters() == 1


def test_an_operator_that_is_killed_leaves_each_of_them_somewhere(name, peer):
    for verb in ("q.requeue_dead_letters", "q.drop_dead_letters"):
        with Queue.create(name, slots=1024, max_deliveries=1) as queue:
            dead_letter(queue, *range(300))
            operator = peer()
            operator.call("make", "q", "Queue.attach", queue.handle)
            operator.start(verb)
            operator.kill()
            Queue.attach(name).close()
            left = {letter.content() for letter in queue.dead_letters(limit=300)}
            back = [queue.get(timeout=0) for _ in range(queue.stats().queued)]
            assert back == sorted(back)
            stats = queue.stats()
            assert stats.in_flight == 0
            assert left.isdisjoint(back)
            if "requeue" in verb:
                assert left | set(back) == set(range(300))
            else:
                assert not back
            queue.discard()


# --- the command -------------------------------------------------------------------------------


def dead(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["dead", *arguments])
    return code, capsys.readouterr().out


def test_the_command_shows_dead_letters(queue, capsys):
    assert dead(capsys, queue.name) == (0, f"{queue.name} has no dead letters\n")
    dead_letter(queue, {"tokens": np.zeros((3, 5), np.float32)}, "\x1b[31mred\n" + "x" * 5000)
    queue.put_bytes(b"\x00\x01")
    fail(queue)
    code, text = dead(capsys, queue.name)
    assert code == 0
    lines = text.splitlines()
    assert len(lines) == 4
    assert "<float32 3x5>" in lines[1]
    assert "\\x1b[31mred\\n" in lines[2]
    assert "\x1b" not in text
    assert max(map(len, lines)) < 200
    code, text = dead(capsys, queue.name, "--json", "--limit", "2")
    told = json.loads(text)
    assert [one["sequence"] for one in told["dead_letters"]] == [0, 1]
    assert told["dead_letters"][0]["deliveries"] == 1
    _, text = dead(capsys, queue.name, "--limit", "1")
    assert "and 2 more" in text
    assert queue.stats().dead_letters == 3


def test_the_command_requeues_and_drops_dead_letters(queue, capsys):
    dead_letter(queue, "a", "b", "c", "d")
    assert dead(capsys, queue.name, "--requeue", "1") == (
        0,
        f"requeued 1 dead letter of {queue.name}\n",
    )
    assert queue.get(timeout=0) == "b"
    code, text = dead(capsys, queue.name, "--drop", "0", "1", "7", "--json")
    assert code == 1
    assert json.loads(text) == {"name": queue.name, "dropped": 1, "missing": [1, 7]}
    assert dead(capsys, queue.name, "--requeue")[1] == f"requeued 2 dead letters of {queue.name}\n"
    assert [queue.get(timeout=0) for _ in range(2)] == ["c", "d"]


def test_the_command_works_on_an_abandoned_queue(name, capsys):
    with Queue.create(name, max_deliveries=1) as queue:
        dead_letter(queue, "left", "behind")
    assert "'left'" in dead(capsys, name)[1]
    assert dead(capsys, name, "--drop", "0")[0] == 0
    assert [one["sequence"] for one in json.loads(dead(capsys, name, "--json")[1])["dead_letters"]]
    assert dead(capsys, name, "--drop")[0] == 0
    assert main(["dead", name]) == 1, "the name went with the last of them"
    assert "NotFound" in capsys.readouterr().err


def test_the_command_reads_no_pickle(name, capsys):
    with Queue.create(name, max_deliveries=1, codec="pickle") as queue:
        dead_letter(queue, {1, 2})
        assert "pickle" in dead(capsys, name)[1]
        queue.discard()


def test_the_command_is_for_queues(name, capsys):
    with penstock.Store.create(name, capacity="1MiB"):
        assert main(["dead", name]) == 1
    assert "not a queue" in capsys.readouterr().err


def test_info_shows_dead_letters(queue, capsys):
    dead_letter(queue, "a", "b")
    assert main(["info", queue.name, "--interval", "0"]) == 0
    text = capsys.readouterr().out
    assert "2: 0, 1" in text
    assert f"penstock dead {queue.name}" in text
    assert "2 of 4 in use, 2 by dead letters" in text
