"""The records of one run, and the comparison of two of them.

Contenders took turns, so they are compared turn by turn: the ratio of two is the median of the
ratios of their turns, which noise that lasts longer than a turn does not reach.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Record = dict[str, Any]
MOMENT = "moment"  # the benchmark that is the bare ping-pong before each program


@dataclass
class Results:
    """Everything that the programs printed, without judgement."""

    records: list[Record] = field(default_factory=list)

    def all(self, bench: str, **wanted: Any) -> Iterator[Record]:
        for record in self.records:
            if record["bench"] == bench and wanted.items() <= record.items():
                yield record

    def one(self, bench: str, **wanted: Any) -> Record | None:
        return next(self.all(bench, **wanted), None)

    def contenders(self, bench: str) -> list[str]:
        """The contenders in the order of their turns."""
        return list(dict.fromkeys(record["who"] for record in self.all(bench)))

    def values(self, bench: str, key: str) -> list[Any]:
        return sorted({record[key] for record in self.all(bench)})


def ratio(above: Record | None, below: Record | None, turns: str) -> float | None:
    """The median over the turns of ``above`` divided by ``below``; None if one is missing."""
    if above is None or below is None:
        return None
    pairs = zip(above[turns], below[turns], strict=True)
    return statistics.median(a / b for a, b in pairs)
