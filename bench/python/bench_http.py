"""Groups posted and batches taken over HTTP, beside the same queue without the server.

An environment posts while no trainer takes, then the trainer takes all; contenders take turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any

import numpy as np
from groups import GROUPS, SEQUENCES, GroupCheck, GroupPlace, make_columns, make_scores
from http_links import KINDS
from processes import new_name, run_guarded
from producers import Producers
from report import print_record

TOKENS = (512, 4096)
TURN_SECONDS = 0.25
MOST_BATCHES = 32  # in a turn
CASE_SECONDS = 20.0  # then a case ends, with fewer turns for all


def turn(stage: Producers, contender: int, batches: int, check: GroupCheck) -> tuple[float, float]:
    """Groups posted and batches taken a second; they are checked while the clock is stopped."""
    taken: list[dict[str, Any]] = []
    posted, groups = stage.rates_apart(contender, batches * GROUPS, taken.append)
    for group in taken:
        check(as_arrays(group, check.columns))
    return posted, groups / GROUPS


def as_arrays(group: dict[str, Any], columns: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists as arrays again; arrays unchanged."""
    arrays = {name: np.asarray(group[name], column.dtype) for name, column in columns.items()}
    arrays["scores"] = np.asarray(group["scores"], np.float64)
    return arrays


def run(place: GroupPlace, turns: int) -> None:
    links = [kind(place) for kind in KINDS]
    columns = make_columns(place.tokens)

    def produce(link: Any, rank: int, first: int, count: int) -> None:
        numbers = range(first, first + count)
        link.put_all([{**columns, "scores": make_scores(rank, number)} for number in numbers])

    stage = Producers(links, place.producers, produce)
    checks = [GroupCheck(place) for _ in links]
    batches = []
    for contender, check in enumerate(checks):
        posted, _ = turn(stage, contender, 2, check)  # the warm-up
        batches.append(max(2, min(MOST_BATCHES, int(posted * TURN_SECONDS / GROUPS))))
    rates: list[list[tuple[float, float]]] = [[] for _ in links]
    end = time.monotonic() + CASE_SECONDS
    while len(rates[0]) < turns and (len(rates[0]) < 3 or time.monotonic() < end):
        for contender, check in enumerate(checks):
            rates[contender].append(turn(stage, contender, batches[contender], check))
    stage.leave()
    for link, taken in zip(links, rates, strict=True):
        posted_rates, batch_rates = zip(*taken, strict=True)
        print_record(
            "python_http",
            link.name,
            tokens=place.tokens,
            sequences=SEQUENCES,
            groups_a_batch=GROUPS,
            groups_per_s=statistics.median(posted_rates),
            batches_per_s=statistics.median(batch_rates),
            turn_groups_per_s=posted_rates,
            turn_batches_per_s=batch_rates,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tokens", type=int, action="append", default=[])
    arguments = parser.parse_args()
    turns = 3 if arguments.quick else 9

    def body() -> None:
        for tokens in arguments.tokens or TOKENS:
            run(GroupPlace(new_name(), tokens, 1), turns)

    return run_guarded(120, body)


if __name__ == "__main__":
    sys.exit(main())
