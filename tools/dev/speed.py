"""Print how many times longer this machine takes than the one whose budgets are in budgets.tsv.

A fixed piece of work, timed by the processor's clock so that other programs count little; the best
of several tries. Fewer processors than two make it longer still; never less than 1.
"""

import os
import time

REFERENCE = 0.056  # seconds
PROCESSORS = 2


def work() -> float:
    started = time.process_time()
    table: dict[int, int] = {}
    for i in range(200_000):
        table[i & 1023] = table.get(i * 7 & 1023, 0) ^ i
    return time.process_time() - started


def main() -> None:
    seconds = min(work() for _ in range(15))
    processors = len(os.sched_getaffinity(0))
    print(f"{max(1.0, seconds / REFERENCE, PROCESSORS / processors):.2f}")


if __name__ == "__main__":
    main()
