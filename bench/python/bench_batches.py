"""A trainer's batch beside the bare copy of its bytes: 64 sequences of 4096 tokens, four columns.

Both write the same bytes into warm arrays of the caller, in turns; every batch is checked.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from groups import Group
from processes import new_name, pin_driver, run_guarded
from report import latency_fields, print_record

from penstock.trajectories import (
    TrajectoryBatch,
    TrajectoryGroup,
    TrajectoryReader,
    TrajectoryWriter,
)

SEQUENCES, TOKENS, GROUP = 64, 4096, 8
COLUMNS = {
    "tokens": np.int32,
    "masks": np.int32,
    "advantages": np.float32,
    "inference_logprobs": np.float32,
}
WARM_UP = 3  # turns that do not count
PATIENCE = 30.0


def make_columns() -> Group:
    """(SEQUENCES, TOKENS) for each column, with values that all differ."""
    values = np.arange(SEQUENCES * TOKENS).reshape(SEQUENCES, TOKENS)
    return {name: (values + at).astype(dtype) for at, (name, dtype) in enumerate(COLUMNS.items())}


class Stream:
    """A queue of trajectories, filled with one batch and read by the same process."""

    def __init__(self, columns: Group) -> None:
        self._columns = columns
        self._reader = TrajectoryReader.create(new_name(), sequences=SEQUENCES)
        self._writer = TrajectoryWriter.attach(self._reader.name)
        self._taken = 0
        self._batch: TrajectoryBatch | None = None

    def fill(self) -> None:
        for first in range(0, SEQUENCES, GROUP):
            rows: dict[str, Any] = {
                name: one[first : first + GROUP] for name, one in self._columns.items()
            }
            self._writer.put(TrajectoryGroup(rows.pop("tokens"), **rows), PATIENCE)

    def time_batch(self, out: Group | None) -> int:
        """Nanoseconds until the next batch is there; then it is checked."""
        self.fill()
        begin = time.perf_counter_ns()
        batch = self._reader.next_batch(out=out, timeout=PATIENCE)
        nanoseconds = time.perf_counter_ns() - begin
        self._taken += 1
        for name, column in self._columns.items():
            if not np.array_equal(batch[name], column):
                raise RuntimeError(f"{name} of batch {self._taken} is not what was put")
        batch.ack(self._taken)
        self._batch = batch  # as a trainer holds one while it takes the next
        return nanoseconds

    def close(self) -> None:
        self._writer.close()
        self._reader.close()


def time_copy(columns: Group, out: Group) -> int:
    """Nanoseconds of the bare copies: between whole arrays of one dtype they are memcpy."""
    begin = time.perf_counter_ns()
    for name, column in columns.items():
        np.copyto(out[name], column)
    return time.perf_counter_ns() - begin


def run(turns: int) -> None:
    pin_driver()
    columns = make_columns()
    out = {name: np.empty_like(column) for name, column in columns.items()}
    stream = Stream(columns)
    contenders: dict[str, Callable[[], int]] = {
        "plain copy": lambda: time_copy(columns, out),
        "next_batch, arrays of the caller": lambda: stream.time_batch(out),
        "next_batch, new arrays": lambda: stream.time_batch(None),
    }
    samples: dict[str, list[list[int]]] = {name: [] for name in contenders}
    for turn in range(WARM_UP + turns):
        for name, act in contenders.items():
            nanoseconds = act()
            if turn >= WARM_UP:
                samples[name].append([nanoseconds])
    stream.close()
    for name, taken in samples.items():
        print_record("python_batches", name, nbytes=batch_bytes(), **latency_fields(taken, 1))


def batch_bytes() -> int:
    return SEQUENCES * TOKENS * sum(np.dtype(dtype).itemsize for dtype in COLUMNS.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    turns = 50 if parser.parse_args().quick else 500
    return run_guarded(120, lambda: run(turns))


if __name__ == "__main__":
    sys.exit(main())
