"""The figures to reach, each with its target, this run's value, and whether it is enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from results import Record, Results, ratio
from wording import count, nanoseconds, size, times

MIB = 1 << 20
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


def _latency(results: Results) -> Iterator[Figure]:
    for message_size, most in ((64, 1.5), (1024, 2.5)):
        place = {"size": message_size, "readers": 1}
        own = results.one("latency", who="penstock", **place)
        bare = results.one("latency", who="bare ping-pong", **place)
        yield _judge(
            f"{size(message_size)}, two processes, one way p50",
            f"≤ {most} × a bare cache-line ping-pong",
            ratio(own, bare, TURNS),
            lambda value, most=most: value <= most,
            lambda value, own=own, bare=bare: f"{times(value)} ({_p50(own)} to {_p50(bare)})",
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


def _queue_throughput(results: Results) -> Figure:
    own = results.one("throughput", who="penstock queue", size=64, readers=1)
    return _judge(
        "Queue, 64 B, one to one",
        "≥ 20 M messages/s",
        own and own["messages_per_s"],
        lambda value: value >= 20e6,
        lambda value: f"{count(value)}/s (best turn {count(max(own['turn_messages_per_s']))}/s)",
    )


def _python_queue(results: Results) -> Iterator[Figure]:
    for peer, least in (("faster-fifo", 3), ("multiprocessing.Queue", 10)):
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


def _batches(results: Results) -> Figure:
    plain = results.one("python_batches", who="plain copy")
    own = results.one("python_batches", who="next_batch, arrays of the caller")
    return _judge(
        "next_batch, 64 sequences of 4096 tokens, into the caller's arrays",
        "≥ 0.5 × a plain copy of the same bytes",
        ratio(plain, own, TURNS),
        lambda value: value >= 0.5,
        lambda value: f"{times(value)} ({_p50(own)} to {_p50(plain)})",
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
            "< 0.1 % of a processor",
            parked and parked["worst_share"],
            lambda value: value < 0.001,
            lambda value: f"{value:.3%}",
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


def _pause(results: Results) -> Figure:
    own = results.one("python_pause", who="penstock", kind="idle")
    return _judge(
        "64 B there and back, Python, not pinned, after a pause of a second, p50",
        "≤ 3 µs",
        own and own["p50_ns"],
        lambda value: value <= 3000,
        nanoseconds,
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
                "≤ 100 ms",
                record["max_ns"],
                lambda value: value <= 100e6,
                lambda value, record=record: (
                    f"{nanoseconds(value)} (p50 {_p50(record)}, {record['count']} times)"
                ),
            )


def judge(results: Results) -> list[Figure]:
    """Every figure measured so far, in the order of the design's table."""
    return [
        *_latency(results),
        _throughput(results),
        _queue_throughput(results),
        *_python_queue(results),
        _batches(results),
        _writer_cost(results),
        *_copies(results),
        *_store(results),
        *_waiting(results),
        _pause(results),
        _memory(results),
        *_objects(results),
        *_recovery(results),
    ]
