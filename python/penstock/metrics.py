"""Statistics of segments in Prometheus' text format.

The name of a metric follows from the table of its statistic, as its HELP and TYPE do:
``penstock_``, the concept, the statistic, its unit where that is not the end of it, and ``_total``
of a counter: ``penstock_queue_accepted_total{name="rollouts"} 1000``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from . import _core
from .state import BroadcastInfo, QueueInfo, SegmentSummary, StoreInfo
from .trajectories import TrajectoryInfo

__all__ = ["Info", "Statistics", "exposition"]

#: Statistics that follow from a table.
Statistics: TypeAlias = (
    _core.BroadcastStats
    | _core.QueueStats
    | _core.StoreStats
    | _core.TrajectoryStats
    | _core.EnvironmentStats
)
#: What ``penstock.inspect.inspect()`` gives; a SegmentSummary has no statistics.
Info: TypeAlias = BroadcastInfo | QueueInfo | StoreInfo | SegmentSummary

_ENDINGS = {"counter": "_total", "word": "_info"}


def exposition(infos: Iterable[Info]) -> str:
    """The metrics of all these segments, in their order; empty if there are none."""
    families: dict[str, list[str]] = {}
    for info in infos:
        for labels, stats in _parts(info):
            for metric, head, line in _samples(labels, stats):
                families.setdefault(metric, head).append(line)
    return "".join(f"{line}\n" for lines in families.values() for line in lines)


def _parts(info: Info) -> Iterator[tuple[dict[str, str], Statistics]]:
    """The statistics of a segment and of its environments, with their labels."""
    if isinstance(info, SegmentSummary):
        return
    name = {"name": info.segment.name}
    yield name, info.stats
    if isinstance(info, TrajectoryInfo):
        yield name, info.trajectories
        for one in info.trajectories.environments:
            yield {**name, "environment": one.name}, one


def _samples(labels: Mapping[str, str], stats: Statistics) -> Iterator[tuple[str, list[str], str]]:
    """The metric, HELP and TYPE, and sample of each statistic that is a number or a word."""
    for name, kind, unit, _, words in stats._table:
        value = getattr(stats, name)
        if kind == "part" or value is None:
            continue
        metric = f"penstock_{stats._metrics}_{name}"
        if unit and not metric.endswith(f"_{unit}"):
            metric += f"_{unit}"
        metric += _ENDINGS.get(kind, "")
        head = [
            f"# HELP {metric} {_escaped(words)}",
            f"# TYPE {metric} {'counter' if kind == 'counter' else 'gauge'}",
        ]
        if kind == "word":
            yield metric, head, f"{metric}{_set({**labels, name: value})} 1"
        else:
            yield metric, head, f"{metric}{_set(labels)} {value + 0!r}"  # True is 1


def _set(labels: Mapping[str, str]) -> str:
    """Labels in braces. Names may come from other processes: control characters are escaped, as in
    every line of the command."""
    pairs = (f'{name}="{_quoted(value)}"' for name, value in labels.items())
    return "{" + ",".join(pairs) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(text: str) -> str:
    return _escaped(_core.printable(text)).replace('"', r"\"")
