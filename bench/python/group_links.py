"""Links that carry a group of sequences: that of trajectories, and those of queue_links.py.

A group is a dict of arrays. Producers put whole groups, the consumer calls ``use(group)`` for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from groups import GROUPS, SEQUENCES, Group, GroupPlace, make_columns
from queue_links import (
    PATIENCE,
    Array,
    FasterFifo,
    MultiprocessingQueue,
    PenstockViews,
    PythonRing,
    QueuePlace,
    TorchQueue,
    Use,
    ZeroMq,
    build_links,
)

from penstock.trajectories import TrajectoryGroup, TrajectoryReader, TrajectoryWriter


class Trajectories:
    """``put`` and ``next_batch``: the trainer's own groups, like those of the peers."""

    name = "penstock, groups"

    def __init__(self, place: GroupPlace) -> None:
        self._title = f"{place.name}.{type(self).__name__}"
        self._end: Any = TrajectoryReader.create(
            self._title, sequences=SEQUENCES * GROUPS, capacity="64MiB", slots=1024
        )

    def open_producer(self) -> None:
        self._end = TrajectoryWriter.attach(self._title)

    def put(self, group: Group) -> None:
        columns: dict[str, Any] = dict(group)
        self._end.put(TrajectoryGroup(columns.pop("tokens"), **columns), PATIENCE)

    def take(self, count: int, use: Use) -> None:
        while count > 0:
            taken = min(count, GROUPS)
            count -= taken
            with self._end.next_batch(
                taken * SEQUENCES, layout="groups", timeout=PATIENCE
            ) as batch:
                for group in batch.groups:
                    use({name: group.flat(name) for name in group.columns})

    def close(self) -> None:
        self._end.close()


class TrajectoryBatches(Trajectories):
    """``put`` and ``next_batch`` into the trainer's padded arrays, ready to compute with."""

    name = "penstock"

    def __init__(self, place: GroupPlace) -> None:
        super().__init__(place)
        self._out = {
            name: np.empty((SEQUENCES * GROUPS, place.tokens), column.dtype)
            for name, column in make_columns(place.tokens).items()
        }

    def take(self, count: int, use: Use) -> None:
        while count > 0:
            taken = min(count, GROUPS)
            count -= taken
            with self._end.next_batch(taken * SEQUENCES, timeout=PATIENCE, out=self._out) as batch:
                for first in range(0, taken * SEQUENCES, SEQUENCES):
                    rows = slice(first, first + SEQUENCES)
                    group = {name: batch[name][rows] for name in batch}
                    use({**group, "scores": batch.scores[rows]})


class PlainQueue(PenstockViews):
    """The dict through a plain ``Queue``: the cost without batches."""

    name = "penstock queue"


class MultiprocessingGroups(MultiprocessingQueue):
    def put(self, group: Group) -> None:
        self._queue.put(group)  # pickled later; the array is not written again


class ZeroMqGroups(ZeroMq):
    """Each column as a frame; large ones are not copied, as its guide advises."""

    LARGE = 64 << 10

    def __init__(self, place: GroupPlace) -> None:
        super().__init__(QueuePlace(place.name, place.tokens, place.producers))
        self._dtypes = {name: one.dtype for name, one in make_columns(place.tokens).items()}
        self._dtypes["scores"] = np.dtype(np.float64)
        self._copy = place.nbytes // len(self._dtypes) < self.LARGE

    def put(self, group: Group) -> None:
        self._socket.send_multipart([group[name] for name in self._dtypes], copy=self._copy)

    def take(self, count: int, use: Use) -> None:
        for _ in range(count):
            frames = self._socket.recv_multipart(copy=self._copy)
            use(
                {
                    name: np.frombuffer(frame if self._copy else frame.buffer, dtype)
                    for frame, (name, dtype) in zip(frames, self._dtypes.items(), strict=True)
                }
            )


class TorchGroups(TorchQueue):
    DEPTH = 256  # each tensor is an open file

    def put(self, group: Group) -> None:
        self._queue.put({name: self._torch.from_numpy(one) for name, one in group.items()})

    def take(self, count: int, use: Use) -> None:
        for _ in range(count):
            group = self._queue.get(timeout=PATIENCE)
            use({name: tensor.numpy() for name, tensor in group.items()})


class RingGroups(PythonRing):
    """The ring carries rows of tokens only: a group is one row, with the other columns as bits."""

    SLOTS = 16

    def __init__(self, place: GroupPlace) -> None:
        super().__init__(QueuePlace(place.name, place.nbytes // 4, place.producers))
        self._columns = make_columns(place.tokens)

    def put(self, group: Group) -> None:
        super().put(np.concatenate([one.reshape(-1).view(np.int32) for one in group.values()]))

    def take(self, count: int, use: Use) -> None:
        super().take(count, lambda row: use(self._group(row)))

    def _group(self, row: Array) -> Group:
        group: Group = {}
        at = 0
        for name, column in self._columns.items():
            group[name] = row[at : at + column.size].view(column.dtype)
            at += column.size
        group["scores"] = row[at:].view(np.float64)
        return group


KINDS: tuple[type[Any], ...] = (
    TrajectoryBatches,
    Trajectories,
    PlainQueue,
    MultiprocessingGroups,
    FasterFifo,  # takes any object
    ZeroMqGroups,
    TorchGroups,
)


def build_group_links(place: GroupPlace, only: Sequence[str]) -> Iterator[Any]:
    """The ring for one producer only, its limit."""
    kinds = (*KINDS, RingGroups) if place.producers == 1 else KINDS
    return build_links(place, kinds, only)
