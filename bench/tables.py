"""The tables that a run prints: figures, and for each peer its ratio to Penstock's."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from figures import Figure
from results import MOMENT, Record, Results, ratio
from wording import count, nanoseconds, size, times

TURNS = "turn_p50_ns"
RATES = "turn_messages_per_s"
QUANTILES = ("p50", "p99", "p99.9", "p99.99", "max", "samples")
PING_PONG = "bare ping-pong"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    return table


def _quantiles(record: Record) -> list[str]:
    """p99.9 only with a thousand samples or more, p99.99 with ten thousand."""
    return [
        nanoseconds(record["p50_ns"]),
        nanoseconds(record["p99_ns"]),
        nanoseconds(record["p999_ns"]) if record["count"] >= 1_000 else "–",
        nanoseconds(record["p9999_ns"]) if record["count"] >= 10_000 else "–",
        nanoseconds(record["max_ns"]),
        count(record["count"]),
    ]


def _p50(record: Record | None) -> str:
    return nanoseconds(record["p50_ns"]) if record else ""


def _moment(record: Record) -> str:
    """The bare ping-pong in the turns of a record."""
    return nanoseconds(record["moment_ns"]) if record.get("turn_moment_ns") else ""


def _places(results: Results, bench: str) -> Iterator[dict[str, int]]:
    for message_size in results.values(bench, "size"):
        for readers in results.values(bench, "readers"):
            yield {"size": message_size, "readers": readers}


def latency_table(results: Results, bench: str, title: str) -> Table:
    """Penstock's quantiles by size and readers, and their distance from the bare limits."""
    limits = [who for who in results.contenders(bench) if who.startswith("bare")]
    columns = [*QUANTILES, PING_PONG, *(f"to {who}" for who in limits)]
    table = _table(title, "message", "readers", *columns)
    for place in _places(results, bench):
        own = results.one(bench, who="penstock", **place)
        if own is None:
            continue
        table.add_row(
            size(place["size"]),
            str(place["readers"]),
            *_quantiles(own),
            _p50(results.one(bench, who=PING_PONG, **place)),
            *(times(ratio(own, results.one(bench, who=who, **place), TURNS)) for who in limits),
        )
    return table


def peer_latency_table(results: Results, bench: str, title: str) -> Table:
    """p50 of every contender that carries messages, and its ratio to Penstock's."""
    everyone = results.contenders(bench)
    others = [who for who in everyone if who != "penstock" and not who.startswith("bare")]
    table = _table(title, "message", "readers", "penstock", *others)
    for place in _places(results, bench):
        own = results.one(bench, who="penstock", **place)
        if own is None:
            continue
        cells = []
        for who in others:
            other = results.one(bench, who=who, **place)
            cells.append(
                f"{nanoseconds(other['p50_ns'])} ({times(ratio(other, own, TURNS))})"
                if other
                else ""
            )
        table.add_row(
            size(place["size"]), str(place["readers"]), nanoseconds(own["p50_ns"]), *cells
        )
    return table


def throughput_table(results: Results, bench: str, title: str) -> Table:
    """Messages a second to each reader, and Penstock's ratio to each peer's."""
    others = [who for who in results.contenders(bench) if who != "penstock"]
    table = _table(title, "message", "readers", "penstock", "bytes", PING_PONG, *others)
    for place in _places(results, bench):
        own = results.one(bench, who="penstock", **place)
        if own is None:
            continue
        cells = []
        for who in others:
            other = results.one(bench, who=who, **place)
            cells.append(
                f"{count(other['messages_per_s'])}/s ({times(ratio(own, other, RATES))})"
                if other
                else ""
            )
        table.add_row(
            size(place["size"]),
            str(place["readers"]),
            f"{count(own['messages_per_s'])}/s",
            f"{own['bytes_per_s'] / 1e9:.3g} GB/s",
            _moment(own),
            *cells,
        )
    return table


def writer_table(results: Results) -> Table:
    table = _table(
        "What a 64 B send costs the writer, when it never waits", "readers", "pure", "live"
    )
    for readers in results.values("writer_cost", "readers"):
        cells = []
        for mode in ("pure", "live"):
            record = results.one("writer_cost", readers=readers, mode=mode)
            cells.append(nanoseconds(record["processor_ns"]) if record else "")
        table.add_row(str(readers), *cells)
    return table


def copy_table(results: Results) -> Table:
    contenders = results.contenders("copy")
    table = _table("Large messages, the sender's time", "message", *contenders)
    for message_size in results.values("copy", "size"):
        row = [results.one("copy", size=message_size, who=who) for who in contenders]
        table.add_row(
            size(message_size),
            *(
                f"{nanoseconds(cell['p50_ns'])} ({message_size / cell['p50_ns']:.3g} GB/s)"
                if cell
                else ""
                for cell in row
            ),
        )
    return table


def waiting_table(results: Results) -> Table:
    table = _table("Waking a parked reader", "", *QUANTILES, "to bare")
    bare = results.one("wake", who="bare futex")
    for record in results.all("wake"):
        table.add_row(record["who"], *_quantiles(record), times(ratio(record, bare, TURNS)))
    return table


def _producers_table(
    results: Results, bench: str, title: str, own_name: str, unit: str, more: dict[str, str]
) -> Table:
    """Messages a second, and Penstock's ratio to each peer's; ``more`` of Penstock's figures."""
    rate, turns = f"{unit}_per_s", f"turn_{unit}_per_s"
    others = [who for who in results.contenders(bench) if who != own_name]
    table = _table(title, "tokens", "producers", own_name, *more, *others)
    for tokens in results.values(bench, "tokens"):
        for producers in results.values(bench, "producers"):
            place = {"tokens": tokens, "producers": producers}
            own = results.one(bench, who=own_name, **place)
            if own is None:
                continue
            cells = [f"{count(own[key])}/s" for key in (rate, *more.values())]
            for who in others:
                other = results.one(bench, who=who, **place)
                cells.append(
                    f"{count(other[rate])}/s ({times(ratio(own, other, turns))})" if other else ""
                )
            table.add_row(str(tokens), str(producers), *cells)
    return table


def queue_table(results: Results) -> Table:
    """Penstock with ``get_many``."""
    title = "Python, arrays of int32 through a queue"
    return _producers_table(results, "python_queue", title, "penstock, views", "messages", {})


def trajectories_table(results: Results) -> Table:
    """Penstock with ``next_batch`` into the caller's arrays."""
    title = "Python, groups of 4 sequences to a trainer, groups"
    more = {"tokens/s": "tokens_per_s"}
    return _producers_table(results, "python_trajectories", title, "penstock", "groups", more)


def batches_table(results: Results) -> Table:
    table = _table(
        "Python, a batch of 64 sequences of 4096 tokens in four columns",
        "",
        *QUANTILES,
        *("bytes", "of a plain copy's rate"),
    )
    plain = results.one("python_batches", who="plain copy")
    for record in results.all("python_batches"):
        rate = f"{record['nbytes'] / record['p50_ns']:.3g} GB/s"
        part = times(ratio(plain, record, TURNS))
        table.add_row(record["who"], *_quantiles(record), rate, part)
    return table


def kv_table(results: Results) -> Table:
    """Bytes a second, for operations that move them."""
    table = _table(
        "Python, the KV pool, four chunks of 256 tokens (64 MiB)",
        "",
        *QUANTILES,
        *("bytes", "of a plain copy's rate"),
    )
    plain = results.one("python_kv", who="plain copy")
    for record in results.all("python_kv"):
        cells = ["", ""]
        if record["who"] not in ("lookup", "store, cached before"):
            rate = f"{record['nbytes'] / record['p50_ns']:.3g} GB/s"
            cells = [rate, times(ratio(plain, record, TURNS))]
        table.add_row(record["who"], *_quantiles(record), *cells)
    return table


def http_table(results: Results) -> Table:
    """Each figure over HTTP, and shared memory's ratio to it."""
    table = _table(
        "Python, groups of 4 sequences over HTTP, 4 groups a batch",
        "",
        *("tokens", "groups posted", "batches taken"),
    )
    own_name = "shared memory"
    for record in results.all("python_http"):
        own = results.one("python_http", who=own_name, tokens=record["tokens"])
        cells = []
        for unit in ("groups", "batches"):
            rate = f"{count(record[f'{unit}_per_s'])}/s"
            more = times(ratio(own, record, f"turn_{unit}_per_s"))
            cells.append(rate if record["who"] == own_name else f"{rate} ({more})")
        table.add_row(record["who"], str(record["tokens"]), *cells)
    return table


def store_get_table(results: Results) -> Table:
    title = "Store, looking an object up and letting it go"
    table = _table(title, "", "object", *QUANTILES)
    for bench, language in (("store_get", "C++"), ("python_store_get", "Python")):
        for record in results.all(bench):
            table.add_row(language, size(record["size"]), *_quantiles(record))
    return table


def store_put_table(results: Results) -> Table:
    own_name, plain_name = "penstock put", "plain copy, same memory"
    table = _table("Store, C++ put", "object", own_name, plain_name, "of a plain copy's rate")
    for object_size in results.values("store_put", "size"):
        own = results.one("store_put", who=own_name, size=object_size)
        plain = results.one("store_put", who=plain_name, size=object_size)
        cells = [
            f"{nanoseconds(cell['p50_ns'])} ({object_size / cell['p50_ns']:.3g} GB/s)"
            if cell
            else ""
            for cell in (own, plain)
        ]
        table.add_row(size(object_size), *cells, times(ratio(plain, own, TURNS)))
    return table


def store_pair_table(results: Results) -> Table:
    title = "Store, a block without its copy"
    table = _table(title, "", "block", *QUANTILES)
    for record in results.all("store_pair"):
        table.add_row(record["who"], size(record["size"]), *_quantiles(record))
    return table


def store_scale_table(results: Results) -> Table:
    table = _table(
        "Store, look-ups and puts of several processes at once",
        "processes",
        "operations",
        "to one process",
    )
    one = results.one("store_scale", processes=1)
    for record in results.all("store_scale"):
        rate = record["operations_per_s"]
        more = times(rate / one["operations_per_s"]) if one else ""
        table.add_row(str(record["processes"]), f"{count(rate)}/s", more)
    return table


def store_hits_table(results: Results) -> Table:
    policies = list(dict.fromkeys(record["policy"] for record in results.all("store_hits")))
    table = _table("Store, share of look-ups that hit, room for a tenth", "trace", *policies)
    for trace in results.values("store_hits", "trace"):
        row = [results.one("store_hits", trace=trace, policy=policy) for policy in policies]
        table.add_row(trace, *(f"{cell['hit_rate']:.1%}" if cell else "" for cell in row))
    return table


def store_peers_table(results: Results, operation: str) -> Table:
    """p50 of every contender, and its ratio to Penstock's in place."""
    bench, own_name = "python_store", "penstock, in place"
    others = [who for who in results.contenders(bench) if who != own_name]
    table = _table(f"Python, arrays by key: {operation}, p50", "array", own_name, *others)
    for array_size in results.values(bench, "size"):
        place = {"size": array_size, "operation": operation}
        own = results.one(bench, who=own_name, **place)
        cells = []
        for who in others:
            other = results.one(bench, who=who, **place)
            more = times(ratio(other, own, TURNS))
            cells.append(f"{nanoseconds(other['p50_ns'])} ({more})" if other else "")
        table.add_row(size(array_size), nanoseconds(own["p50_ns"]) if own else "", *cells)
    return table


def object_table(results: Results) -> Table:
    table = _table(
        "Python objects, there and back",
        "",
        "object",
        *QUANTILES,
        "to penstock",
        PING_PONG,
    )
    for record in results.all("python_object"):
        own = results.one("python_object", who="penstock", kind=record["kind"])
        table.add_row(
            record["who"],
            record["kind"],
            *_quantiles(record),
            times(ratio(record, own, TURNS)),
            _moment(record),
        )
    return table


def pause_table(results: Results) -> Table:
    """Beside kickmsg, which sleeps in the kernel as well: its p50 and p99 to the others', and in
    how many turns both were longer."""
    bench, peer_name = "python_pause", "kickmsg"
    title = "Python, 64 B there and back, not pinned, after a pause of a second"
    table = _table(title, "", "", *QUANTILES, PING_PONG, f"p50, p99 of {peer_name}", "ahead in")
    for record in results.all(bench):
        cells = ["", ""]
        peer = results.one(bench, who=peer_name, kind=record["kind"])
        if peer and record["who"] != peer_name:
            keys = (TURNS, "turn_p99_ns")
            more = (times(ratio(peer, record, key)) for key in keys)
            turns = zip(*(record[key] for key in keys), *(peer[key] for key in keys), strict=True)
            ahead = sum(a < c and b < d for a, b, c, d in turns)
            cells = [", ".join(more), f"{ahead} of {len(record[TURNS])} turns"]
        row = (record["who"], record["kind"], *_quantiles(record), _moment(record), *cells)
        table.add_row(*row)
    return table


def capacity_table(results: Results) -> Table:
    title = "Python, one way in place through a small and a large ring"
    table = _table(title, "", "message", *QUANTILES, PING_PONG, "to the small one")
    for record in results.all("python_capacity"):
        small = results.one("python_capacity", who="ring of 1 MiB", size=record["size"])
        more = times(ratio(record, small, TURNS))
        row = (size(record["size"]), *_quantiles(record), _moment(record), more)
        table.add_row(record["who"], *row)
    return table


def result_table(figures: list[Figure]) -> Table:
    table = Table(title="Figures to reach", title_justify="left", title_style="bold")
    for column in ("what", "target", "reached", "result"):
        table.add_column(column)
    colours = {"ok": "green", "short": "red"}
    for figure in figures:
        colour = colours.get(figure.result, "yellow")
        table.add_row(
            figure.what, figure.target, figure.reached, f"[{colour}]{figure.result}[/{colour}]"
        )
    return table


def store_tables(results: Results) -> Iterator[Table]:
    if results.one("store_get") or results.one("python_store_get"):
        yield store_get_table(results)
    if results.one("store_put"):
        yield store_put_table(results)
    if results.one("store_pair"):
        yield store_pair_table(results)
    if results.one("store_scale"):
        yield store_scale_table(results)
    if results.one("store_hits"):
        yield store_hits_table(results)
    if results.one("python_store"):
        for operation in ("put", "get", "get and read"):
            yield store_peers_table(results, operation)


def tier_table(results: Results, bench: str, title: str) -> Table:
    """p50, and each plain command's ratio to Penstock's."""
    own_name = "penstock"
    others = [who for who in results.contenders(bench) if who != own_name]
    table = _table(title, "object", "", own_name, "bytes", *others)
    for object_size in results.values(bench, "size"):
        for operation in ("put", "put in place", "get"):
            place = {"size": object_size, "operation": operation}
            own = results.one(bench, who=own_name, **place)
            if own is None:
                continue
            cells = []
            for who in others:
                other = results.one(bench, who=who, **place)
                more = times(ratio(other, own, TURNS))
                cells.append(f"{nanoseconds(other['p50_ns'])} ({more})" if other else "")
            rate = f"{object_size / own['p50_ns']:.3g} GB/s"
            table.add_row(size(object_size), operation, nanoseconds(own["p50_ns"]), rate, *cells)
    return table


def tier_hit_table(results: Results) -> Table:
    """In turns with a plain Store."""
    title = "Second tier, Python: a hit in the first, found and let go"
    table = _table(title, "object", "", *QUANTILES, "to a plain Store")
    for record in results.all("python_tier_hit"):
        plain = results.one("python_tier_hit", who="plain Store", size=record["size"])
        more = times(ratio(record, plain, TURNS))
        table.add_row(size(record["size"]), record["who"], *_quantiles(record), more)
    return table


def tier_tables(results: Results) -> Iterator[Table]:
    for bench, language in (("tier", "C++"), ("python_tier", "Python")):
        if results.one(bench):
            yield tier_table(
                results, bench, f"Second tier, {language}: write-through put, read-through get, p50"
            )
    if results.one("python_tier_hit"):
        yield tier_hit_table(results)


def moment_table(results: Results) -> Table:
    """Where the processors were while each program ran."""
    table = _table("Bare ping-pong just before each program, one way p50", "program", "")
    for record in results.all(MOMENT):
        table.add_row(record["step"], _p50(record))
    return table


def tables(results: Results) -> Iterator[Table]:
    """Every table for which there are records."""
    if results.one(MOMENT):
        yield moment_table(results)
    if results.one("latency"):
        yield latency_table(results, "latency", "C++ latency, one way")
        yield peer_latency_table(results, "latency", "C++ latency, one way p50, beside its peers")
    if results.one("throughput"):
        yield throughput_table(results, "throughput", "C++ throughput, messages to each reader")
    if results.one("writer_cost"):
        yield writer_table(results)
    if results.one("copy"):
        yield copy_table(results)
    yield from store_tables(results)
    yield from tier_tables(results)
    if results.one("wake"):
        yield waiting_table(results)
    if results.one("python_latency"):
        yield latency_table(results, "python_latency", "Python latency, one way, bytes")
        yield peer_latency_table(
            results, "python_latency", "Python latency, one way p50, beside its peers"
        )
        yield throughput_table(
            results, "python_throughput", "Python throughput, messages to each reader"
        )
    if results.one("python_object"):
        yield object_table(results)
    if results.one("python_pause"):
        yield pause_table(results)
    if results.one("python_capacity"):
        yield capacity_table(results)
    if results.one("python_queue"):
        yield queue_table(results)
    if results.one("python_trajectories"):
        yield trajectories_table(results)
    if results.one("python_batches"):
        yield batches_table(results)
    if results.one("python_kv"):
        yield kv_table(results)
    if results.one("python_http"):
        yield http_table(results)
