"""Groups of sequences from one or several producers to one trainer, each one checked.

Four sequences a group, with tokens, masks, logprobs and scores; the same for every contender.
Contenders take turns in the same processes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any

from group_links import build_group_links
from groups import GROUPS, SEQUENCES, GroupCheck, GroupPlace, make_columns, make_scores
from processes import new_name, run_guarded
from producers import take_turns
from report import print_record

TOKENS = (512, 4096, 32768)
PRODUCERS = (1, 4)
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--who", action="append", default=[])
    parser.add_argument("--tokens", type=int, action="append", default=[])
    arguments = parser.parse_args()
    turns = 3 if arguments.quick else 9

    def body() -> None:
        for tokens in arguments.tokens or TOKENS:
            for producers in PRODUCERS:
                place = GroupPlace(new_name(), tokens, producers)
                run(place, turns, arguments.quick, arguments.who)

    return run_guarded(300, body)


if __name__ == "__main__":
    sys.exit(main())
