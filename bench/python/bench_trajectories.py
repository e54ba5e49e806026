"""Groups of sequences from one or several producers to one trainer, each one checked.

Four sequences a group, with tokens, masks, logprobs and scores; the same for every contender.
Contenders take turns in the same processes.
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

from group_links import build_group_links
from groups import GROUPS, SEQUENCES, GroupCheck, GroupPlace, make_columns, make_scores
from producers import run_places, take_turns
from report import print_record

BYTES_A_TURN = 48 << 20
MOST_GROUPS = 512


def run(place: GroupPlace, turns: int, quick: bool, only: list[str]) -> None:
    links = list(build_group_links(place, only))
    columns = make_columns(place.tokens)

    def produce(link: Any, rank: int, first: int, count: int) -> None:
        for number in range(first, first + count):
            link.put({**columns, "scores": make_scores(rank, number)})

    share = BYTES_A_TURN // place.nbytes // place.producers // (4 if quick else 1)
    share = max(2 * GROUPS, min(share, MOST_GROUPS))
    checks = [GroupCheck(place) for _ in links]
    rates = take_turns(links, place.producers, produce, checks, share, turns)
    for link, taken in zip(links, rates, strict=True):
        median = statistics.median(taken)
        print_record(
            "python_trajectories",
            link.name,
            tokens=place.tokens,
            producers=place.producers,
            sequences=SEQUENCES,
            groups_per_s=median,
            tokens_per_s=median * SEQUENCES * place.tokens,
            bytes_per_s=median * place.nbytes,
            turn_groups_per_s=taken,
        )


def main() -> int:
    return run_places(__doc__, GroupPlace, run)


if __name__ == "__main__":
    sys.exit(main())
