"""Print how many times slower this machine is than the one that budgets.tsv was measured on.

A fixed piece of work, measured in processor time so that other programs hardly matter; the best of
several tries. Fewer processors than two increase the factor; it is never less than 1.
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
