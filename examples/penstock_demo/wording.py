"""The sentences of the demo, common to the live screen and plain lines."""

from __future__ import annotations

from penstock.cli import units
from penstock_demo.corpus import Corpus
from penstock_demo.result import Account, Kill, Result
from penstock_demo.snapshot import Plan, Row, Snapshot


def intention(plan: Plan) -> str:
    """The first line: the plan."""
    workers = "one worker process" if plan.workers == 1 else f"{plan.workers} worker processes"
    sentence = (
        f"Penstock demo: this process sends real data to {workers} through shared memory "
        f"for {plan.goal}; each checks the order and the checksum of every step."
    )
    if plan.kills:
        sentence += " Half way it kills one of them (SIGKILL) and goes on with a replacement."
    return sentence


def data(corpus: Corpus) -> str:
    clipped = "the first " if corpus.clipped else ""
    files = units.plural(corpus.files, "file")
    return f"data: {clipped}{units.size(len(corpus.data))} of {corpus.source} ({files})"


def label(rank: int, replacement: bool) -> str:
    """ "2", and "2'" for the replacement of a dead one."""
    return f"{rank}'" if replacement else str(rank)


def number(value: float | None) -> str:
    return "·" if value is None else units.count(value)


def span(seconds: float | None) -> str:
    return "·" if seconds is None else units.duration(seconds)


def flow(snapshot: Snapshot) -> str:
    """The steps sent, the workers' current rate, and the memory used."""
    together = sum(row.bytes_per_s or 0 for row in snapshot.rows)
    return (
        f"sent {units.plural(snapshot.steps, 'step')}, {units.size(snapshot.bytes)} · workers take "
        f"{units.gigabytes(together)} GB/s · memory {units.size(snapshot.reserved)}"
    )


def line_of(row: Row) -> str:
    """A worker as one plain line."""
    name = f"worker {label(row.rank, row.replaces)}"
    if row.messages_per_s is None:
        return f"{name}: {row.state}, {units.plural(row.received, 'step')} checked"
    return (
        f"{name}: {row.state}, {units.plural(row.received, 'step')} checked, "
        f"{number(row.messages_per_s)}/s, {units.gigabytes(row.bytes_per_s or 0)} GB/s, "
        f"{number(row.lag)} behind, p50 {span(row.p50)}, p99 {span(row.p99)}, "
        f"CPU {units.percent(row.processor or 0)}"
    )


def fate(account: Account) -> str:
    """The fate of a worker, for the last column of the account."""
    words = {"finished": "to the end", "silent": "no report"}
    return words.get(account.fate, account.fate)


def death(kill: Kill) -> str:
    if kill.noticed_after is None:
        return f"killed: worker {kill.rank}, and nobody noticed"
    sentence = f"killed: worker {kill.rank}, noticed after {kill.noticed_after * 1000:.0f} ms"
    if kill.replaced_after is not None:
        sentence += f", replaced after {kill.replaced_after * 1000:.0f} ms"
    return f"{sentence}; the others went on"


def paces(result: Result) -> list[str]:
    """A line for each pace: steps per second, and latencies."""
    names = {"engine": "at an engine's pace", "flat out": "flat out"}
    return [
        f"{names[pace]}: {units.count(rate)} steps/s, latency "
        f"p50 {span(result.latency[pace]['p50'])}, p99 {span(result.latency[pace]['p99'])}"
        for pace, rate in result.rates.items()
    ]


def sent(result: Result) -> str:
    tensors = units.plural(result.tensors, "tensor")
    return (
        f"sent: {units.count(result.steps)} steps, {units.size(result.bytes)}, with "
        f"{tensors} of 8–32 MiB, in {units.duration(result.seconds)}"
    )


def result(result: Result) -> str:
    """The last line: the reason of the exit code."""
    counts = f"lost {result.lost}, torn {result.torn}, out of order {result.disordered}"
    received = (
        f"{units.count(result.received)} steps and {units.size(result.received_bytes)} received"
    )
    if result.ok:
        return f"{received}: {counts}."
    return "; ".join([f"{received}: {counts}", *result.problems]) + "."
