"""A trainer's batch beside the bare copy of its bytes: 64 sequences of 4096 tokens, four columns.

Both write the same bytes into warm arrays of the caller, in turns; every batch is checked.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.trajectories import TrajectoryGroup, TrajectoryReader, TrajectoryWriter

SEQUENCES, TOKENS, GROUP = 64, 4096, 8
COLUMNS = {
    "tokens": np.int32,
    "masks": np.int32,
    "advantages": np.float32,
    "inference_logprobs": np.float32,
}


def make_columns() -> dict[str, npt.NDArray[Any]]:
    """(SEQUENCES, TOKENS) of each column, every value another."""
    values = np.arange(SEQUENCES * TOKENS).reshape(SEQUENCES, TOKENS)
    return {name: (values + at).astype(dtype) for at, (name, dtype) in enumerate(COLUMNS.items())}


def put_all(writer: TrajectoryWriter, columns: dict[str, npt.NDArray[Any]]) -> None:
    for first in range(0, SEQUENCES, GROUP):
        rows = {name: column[first : first + GROUP] for name, column in columns.items()}
        writer.put(TrajectoryGroup(rows.pop("tokens"), **rows))


def run(turns: int) -> dict[str, float]:
    """Medians in seconds: of the bare copy, of next_batch, and of next_batch into new arrays."""
    columns = make_columns()
    out = {name: np.empty_like(column) for name, column in columns.items()}
    bare: list[float] = []
    batch_times: list[float] = []
    fresh: list[float] = []
    with (
        TrajectoryReader.create(f"bench-batches-{os.getpid()}", sequences=SEQUENCES) as reader,
        TrajectoryWriter.attach(reader.name) as writer,
    ):
        for turn in range(turns):
            begin = time.perf_counter()
            for name, column in columns.items():
                np.copyto(out[name], column)
            bare.append(time.perf_counter() - begin)

            put_all(writer, columns)
            begin = time.perf_counter()
            batch = reader.next_batch(out=out)
            batch_times.append(time.perf_counter() - begin)
            for name, column in columns.items():
                if not np.array_equal(batch[name], column):
                    raise AssertionError(f"{name} of turn {turn} is not what was put")
            batch.ack(turn)

            put_all(writer, columns)
            begin = time.perf_counter()
            batch = reader.next_batch()
            fresh.append(time.perf_counter() - begin)
            batch.ack(turn)
    return {
        "bare copy": statistics.median(bare),
        "next_batch, arrays of the caller": statistics.median(batch_times),
        "next_batch, new arrays": statistics.median(fresh),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=200)
    medians = run(parser.parse_args().turns)
    nbytes = SEQUENCES * TOKENS * sum(np.dtype(dtype).itemsize for dtype in COLUMNS.values())
    for name, seconds in medians.items():
        part = medians["bare copy"] / seconds
        print(f"{name:34} {seconds * 1e6:8.0f} us {nbytes / seconds / 1e9:6.2f} GB/s {part:5.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
