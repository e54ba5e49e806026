"""The figures to reach, each with its target, this run's value, and whether it is enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from results import Record, Results, ratio
from wording import count, nanoseconds, size, times

KIB, MIB = 1 << 10, 1 << 20
RATES = "turn_messages_per_s"
TURNS = "turn_p50_ns"


@dataclass(frozen=True)
class Figure:
    """One line of the result. ``value`` is compared with the target."""

    what: str
    target: str
    reached: str
    value: float | None
    result: str  # "ok", "short", or "not measured"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def _judge(
    what: str,
    target: str,
    value: float | None,
    is_enough: Callable[[float], bool],
    reached: Callable[[float], str],
) -> Figure:
    if value is None:
        return Figure(what, target, "", None, "not measured")
    return Figure(what, target, reached(value), value, "ok" if is_enough(value) else "short")


def _p50(record: Record | None) -> str:
    return nanoseconds(record["p50_ns"]) if record else ""


def _beside(
    what: str,
    target: str,
    above: Record | None,
    below: Record | None,
    is_enough: Callable[[float], bool],
    turns: str = TURNS,
) -> Figure:
    """The ratio of two contenders, turn by turn."""
    show = _p50 if turns == TURNS else _rate
    return _judge(
        what,
        target,
        ratio(above, below, turns),
        is_enough,
        lambda value: f"{times(value)} ({show(above)} to {show(below)})",
    )


def _rate(record: Record | None) -> str:
    return f"{count(record['messages_per_s'])}/s" if record else ""


def _latency(results: Results) -> Iterator[Figure]:
    for message_size, most in ((64, 1.3), (KIB, 2.5)):
        place = {"size": message_size, "readers": 1}
        yield _beside(
            f"{size(message_size)}, two processes, one way p50",
            f"≤ {most} × a bare cache-line ping-pong",
            results.one("latency", who="penstock", **place),
            results.one("latency", who="bare ping-pong", **place),
            lambda value, most=most: value <= most,
        )
    for message_size in (4 * KIB, 16 * KIB, 256 * KIB, MIB):
        place = {"size": message_size, "readers": 1}
        in_place = results.one("latency", who="penstock, in place", **place)
        yield _beside(
            f"{size(message_size)}, two processes, in place, one way p50",
            "≤ 1.1 × a bare shared buffer",
            in_place or results.one("latency", who="penstock", **place),
            results.one("latency", who="bare shared buffer", **place),
            lambda value: value <= 1.1,
        )


def _several_readers(results: Results) -> Iterator[Figure]:
    """Beside the peer that is ahead of the others."""
    for readers in (2, 4, 8):
        for message_size in (64, KIB):
            place = {"size": message_size, "readers": readers}
            own = results.one("latency", who="penstock", **place)
            peers = [
                record
                for record in results.all("latency", **place)
                if not record["who"].startswith(("penstock", "bare"))
            ]
            best = min(peers, key=lambda peer: peer["p50_ns"], default=None)
            yield _beside(
                f"{size(message_size)}, {readers} readers, to {best['who'] if best else 'a peer'}",
                "≥ 1 × as fast as the best peer",
                best,
                own,
                lambda value: value >= 1,
            )


def _python_large(results: Results) -> Iterator[Figure]:
    for message_size in (256 * KIB, MIB):
        place = {"size": message_size, "readers": 1}
        yield _beside(
            f"Python, {size(message_size)} in place, one way p50",
            "≤ 0.9 × iceoryx2's, polling",
            results.one("python_latency", who="penstock, view", **place),
            results.one("python_latency", who="iceoryx2, polling", **place),
            lambda value: value <= 0.9,
        )
    for message_size in (16 * MIB, 64 * MIB):
        place = {"size": message_size, "readers": 1}
        yield _beside(
            f"Python, {size(message_size)} received as one's own, one way p50",
            "≤ 1.25 × a view",
            results.one("python_latency", who="penstock", **place),
            results.one("python_latency", who="penstock, view", **place),
            lambda value: value <= 1.25,
        )
    for message_size in (16 * KIB, 64 * KIB, 256 * KIB):
        place = {"size": message_size}
        yield _beside(
            f"Python, {size(message_size)} in place through a ring of 64 MiB",
            "≤ 1.1 × one of 1 MiB",
            results.one("python_capacity", who="ring of 64 MiB", **place),
            results.one("python_capacity", who="ring of 1 MiB", **place),
            lambda value: value <= 1.1,
        )


def _throughput(results: Results) -> Figure:
    own = results.one("throughput", who="penstock", size=64, readers=1)
    return _judge(
        "64 B throughput, one reader",
        "≥ 30 M messages/s",
        own and own["messages_per_s"],
        lambda value: value >= 30e6,
        lambda value: f"{count(value)}/s (best turn {count(max(own['turn_messages_per_s']))}/s)",
    )


def _queue_throughput(results: Results) -> Iterator[Figure]:
    for message_size, whom, least in ((64, "bare ring", 0.4), (16 * KIB, "penstock", 0.7)):
        place = {"size": message_size, "readers": 1}
        yield _beside(
            f"Queue, {size(message_size)}, one to one",
            f"≥ {least} × the rate of a {'Broadcast' if whom == 'penstock' else whom}",
            results.one("throughput", who="penstock queue", **place),
            results.one("throughput", who=whom, **place),
            lambda value, least=least: value >= least,
            RATES,
        )


def _python_queue(results: Results) -> Iterator[Figure]:
    for peer, least in (("faster-fifo", 3), ("multiprocessing.Queue", 20)):
        for producers in (1, 4):
            place = {"tokens": 4096, "producers": producers}
            own = results.one("python_queue", who="penstock, views", **place)
            other = results.one("python_queue", who=peer, **place)
            yield _judge(
                f"Queue, Python, 4096 tokens, producers: {producers}, to {peer}",
                f"≥ {least} × its rate",
                ratio(own, other, "turn_messages_per_s"),
                lambda value, least=least: value >= least,
                lambda value, own=own: f"{times(value)} ({count(own['messages_per_s'])}/s)",
            )


def _copied(results: Results) -> Iterator[Figure]:
    """What gathers and scatters, beside a plain copy of the same bytes."""
    batch = "next_batch, arrays of the caller"
    for bench, who, what, least in (
        ("python_batches", batch, "next_batch, 64 sequences of 4096 tokens", 0.8),
        ("python_kv", "store", "KV pool, store of 64 MiB", 0.8),
        ("python_kv", "retrieve", "KV pool, retrieve of 64 MiB", 0.85),
    ):
        yield _beside(
            what,
            f"≥ {least} × the rate of a plain copy",
            results.one(bench, who="plain copy"),
            results.one(bench, who=who),
            lambda value, least=least: value >= least,
        )


def _second_tier(results: Results, peer: str) -> Figure:
    """Of all sizes and operations, the one that is furthest behind."""
    behind = [
        (ratio(results.one("tier", who=peer, **place), own, TURNS), place)
        for own in results.all("tier", who="penstock")
        for place in ({"size": own["size"], "operation": own["operation"]},)
    ]
    value, place = min(
        ((value, place) for value, place in behind if value is not None),
        key=lambda one: one[0],
        default=(None, {}),
    )
    return _judge(
        "second tier, C++, the worst of put and get",
        f"≥ 0.95 × the rate of {peer}",
        value,
        lambda value: value >= 0.95,
        lambda value: f"{times(value)} ({place['operation']} of {size(place['size'])})",
    )


def _writer_cost(results: Results) -> Figure:
    one = results.one("writer_cost", mode="pure", readers=1)
    eight = results.one("writer_cost", mode="pure", readers=8)
    return _judge(
        "the writer's cost with 8 readers that keep up",
        "that with 1, ± 20 %",
        ratio(eight, one, "turn_processor_ns"),
        lambda value: 0.8 <= value <= 1.2,
        lambda value: (
            f"{times(value)} ({nanoseconds(eight['processor_ns'])} "
            f"to {nanoseconds(one['processor_ns'])})"
        ),
    )


def _copies(results: Results) -> Iterator[Figure]:
    place = {"size": 16 * MIB}
    plain = results.one("copy", who="plain copy, same memory", **place)
    copied = results.one("copy", who="penstock copy", **place)
    loaned = results.one("copy", who="penstock loan", **place)
    yield _judge(
        "16 MiB by copy",
        "≥ 0.9 × a plain copy into the same warm memory",
        ratio(plain, copied, TURNS),
        lambda value: value >= 0.9,
        lambda value: f"{times(value)} ({_p50(copied)} to {_p50(plain)})",
    )
    yield _judge(
        "16 MiB by loan",
        "no copy at all",
        ratio(loaned, plain, TURNS),
        lambda value: value <= 0.1,
        lambda value: f"{value:.1%} of a copy's time ({_p50(loaned)})",
    )


def _store(results: Results) -> Iterator[Figure]:
    large = 64 * MIB
    for bench, language, most in (("store_get", "C++", 200), ("python_store_get", "Python", 2000)):
        own = results.one(bench, size=large)
        yield _judge(
            f"Store, get and release of {size(large)} ({language}), p50",
            f"≤ {nanoseconds(most)}",
            own and own["p50_ns"],
            lambda value, most=most: value <= most,
            nanoseconds,
        )
    for put_size in (16 * MIB, large):
        own = results.one("store_put", who="penstock put", size=put_size)
        plain = results.one("store_put", who="plain copy, same memory", size=put_size)
        yield _judge(
            f"Store, put of {size(put_size)}",
            "≥ 0.9 × a plain copy into the same warm memory",
            ratio(plain, own, TURNS),
            lambda value: value >= 0.9,
            lambda value, own=own, plain=plain: f"{times(value)} ({_p50(own)} to {_p50(plain)})",
        )
    for who in ("reserve and commit", "reserve and commit, evicting"):
        pair = results.one("store_pair", who=who, size=2 * MIB)
        yield _judge(
            f"Store, {who}, 2 MiB, p50",
            "≤ 3 µs",
            pair and pair["p50_ns"],
            lambda value: value <= 3000,
            nanoseconds,
        )


def _waiting(results: Results) -> Iterator[Figure]:
    for bench, language in (("parked", "C++"), ("python_parked", "Python")):
        parked = results.one(bench)
        yield _judge(
            f"a parked reader ({language}), the worst of eight",
            "≤ 0.005 % of a processor",
            parked and parked["worst_share"],
            lambda value: value <= 0.000_05,
            lambda value: f"{value:.4%}",
        )
    own = results.one("wake", who="penstock")
    bare = results.one("wake", who="bare futex")
    yield _judge(
        "waking a parked reader, p50",
        "≤ 1.3 × a bare futex wake",
        ratio(own, bare, TURNS),
        lambda value: value <= 1.3,
        lambda value: f"{times(value)} ({_p50(own)} to {_p50(bare)})",
    )


def _pause(results: Results) -> Iterator[Figure]:
    own = results.one("python_pause", who="penstock", kind="idle")
    yield _judge(
        "64 B there and back, Python, not pinned, after a pause of a second, p50",
        "≤ 3 µs",
        own and own["p50_ns"],
        lambda value: value <= 3000,
        nanoseconds,
    )
    own = results.one("python_pause", who="penstock", kind="beside busy loops")
    peer = results.one("python_pause", who="kickmsg", kind="beside busy loops")
    for what, key, most in (("p50", TURNS, 0.9), ("p99", "turn_p99_ns", 1.0)):
        yield _judge(
            f"the same beside a busy loop on each processor, {what}",
            f"≤ {most} × kickmsg's, asleep",
            ratio(own, peer, key),
            lambda value, most=most: value <= most,
            times,
        )


def _memory(results: Results) -> Figure:
    memory = results.one("memory")
    return _judge(
        "memory of a default Broadcast",
        "≤ 8 MiB",
        memory and memory["used_bytes"],
        lambda value: value <= 8 * MIB,
        lambda value: size(int(value)),
    )


def _objects(results: Results) -> Iterator[Figure]:
    kind = "small dict"
    own = results.one("python_object", who="penstock", kind=kind)
    for peer in ("multiprocessing.Queue", "zeromq ipc"):
        other = results.one("python_object", who=peer, kind=kind)
        yield _judge(
            f"small Python object, round trip, against {peer}",
            "≥ 10 × faster",
            ratio(other, own, TURNS),
            lambda value: value >= 10,
            lambda value, other=other: f"{times(value)} ({_p50(own)} to {_p50(other)})",
        )


def _recovery(results: Results) -> Iterator[Figure]:
    for bench, language in (("recovery", "C++"), ("python_recovery", "Python")):
        for record in results.all(bench):
            yield _judge(
                f"{record['what']} ({language}), the longest",
                "≤ 10 ms, p50 ≤ 2 ms",
                record["max_ns"],
                lambda value, record=record: value <= 10e6 and record["p50_ns"] <= 2e6,
                lambda value, record=record: (
                    f"{nanoseconds(value)} (p50 {_p50(record)}, {record['count']} times)"
                ),
            )


def judge(results: Results) -> list[Figure]:
    """Every figure measured so far, in the order of the design's table."""
    return [
        *_latency(results),
        *_several_readers(results),
        *_python_large(results),
        _throughput(results),
        *_queue_throughput(results),
        *_python_queue(results),
        *_copied(results),
        _writer_cost(results),
        *_copies(results),
        *_store(results),
        *_waiting(results),
        *_pause(results),
        _memory(results),
        *_objects(results),
        *_recovery(results),
        _second_tier(results, "plain commands"),
        _second_tier(results, "hiredis"),
    ]
