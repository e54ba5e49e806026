"""A generator for SkyRL's training loop that takes the groups of Atropos' environments.

generator = AtroposSHMGenerator("rollouts", batch_size=64)
output = await generator.generate({"trajectory_ids": [TrajectoryID("q17", 0), ...]})
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ...errors import InvalidArgument, Timeout, TooLarge
from ...trajectories import TrajectoryBatch, TrajectoryGroup, TrajectoryReader
from .groups import dead_letter_misfit, logprobs_of
from .names import segment_name
from .ring import ZeroCopySHMBuffer, is_ring
from .trainer import open_reader

__all__ = ["AtroposSHMGenerator", "TrajectoryID"]

_SLICE: Final = 1.0  # seconds of one wait
_MASKED: Final = -100
_MOST_SEQUENCES: Final = 65_536  # of a group


@dataclass(frozen=True)
class TrajectoryID:
    """One sequence of a prompt; SkyRL's own class may be given instead."""

    instance_id: str
    repetition_id: int

    def to_string(self) -> str:
        """``INSTANCE_REPETITION``, the key under which sequences are looked up."""
        return f"{self.instance_id}_{self.repetition_id}"

    @classmethod
    def from_string(cls, text: str) -> TrajectoryID:
        """Parses the result of ``to_string()``. Raises ValueError."""
        instance_id, separator, repetition = text.rpartition("_")
        if not separator:
            raise ValueError(f"{text!r} is no trajectory's id: give INSTANCE_REPETITION")
        return cls(instance_id, int(repetition))


@dataclass
class _Row:
    """One received sequence, split where its completion begins."""

    id: TrajectoryID
    prompt: list[int]
    response: list[int]
    loss_mask: list[int]
    reward: float
    logprobs: list[float] | None
    stop_reason: str
    batch: _Open | None  # None: from a ring, whose trajectories are taken for good


@dataclass
class _Open:
    """A taken group, until all of its rows were trained on."""

    batch: TrajectoryBatch
    rows: int  # rows that wait in the stash


class AtroposSHMGenerator:
    """Returns the trajectories that SkyRL asks for, in its order; others wait in ``stash``.

    A group's prompt is known by its ``instance_id`` (of the group, or of its ``group_overrides``),
    or by the environment's id, and its sequences by their index in the group. Without
    ``trajectory_ids`` it returns the oldest whole groups of as many sequences as there are prompts.

    Groups count as trained on at the next ``generate()``, once all of their sequences were
    returned; until then they are redelivered if this process dies. Several trainers may share a
    queue; each gets whichever groups it takes, so use ids with one trainer only. One task at a
    time. A group whose masks, scores or logprobs do not fit its tokens becomes a dead letter, which
    a RuntimeWarning says.

    The queue is created if it does not exist. The name may also be that of a ``ZeroCopySHMBuffer``,
    which is polled every ``poll_interval`` seconds; its trajectories count as trained on when they
    are read. Other arguments of the ring's generator are accepted and ignored.
    """

    def __init__(
        self,
        shm_name: str = "atropos_shm",
        batch_size: int = 64,
        entry_size: int | None = None,
        poll_interval: float = 0.001,
        timeout: float = 300.0,
        *,
        max_tokens: int | None = None,
        **_others: Any,
    ) -> None:
        del entry_size
        self.name = shm_name
        self.batch_size = batch_size
        self.timeout = timeout
        self._poll_interval = poll_interval
        self.ring = ZeroCopySHMBuffer(shm_name) if is_ring(shm_name) else None
        self._reader: TrajectoryReader | None = None
        if self.ring is None:
            self._reader = open_reader(
                segment_name(shm_name), sequences=batch_size, max_tokens=max_tokens
            )
        #: By ``TrajectoryID.to_string()``: sequences that came and were not asked for yet.
        self.stash: defaultdict[str, deque[_Row]] = defaultdict(deque)
        self._given: list[_Open] = []
        self._opened: list[_Open] = []

    @property
    def reader(self) -> TrajectoryReader:
        """The attachment to the queue. Raises InvalidArgument if it is a ring."""
        if self._reader is None:
            raise InvalidArgument(f"'{self.name}' is a ring of single trajectories: no reader")
        return self._reader

    async def generate(self, input_batch: Mapping[str, Any], **_options: Any) -> dict[str, Any]:
        """The ``GeneratorOutput`` of SkyRL: lists, one entry for each id, in the order asked for.

        ``response_ids`` begin where the masks have the first token with a loss; ``rewards`` are the
        scores, ``rollout_logprobs`` None if any sequence has none.

        Raises Timeout, which names what did not come within ``timeout`` seconds; what came stays in
        ``stash``.
        """
        self._acknowledge(input_batch)
        ids = input_batch.get("trajectory_ids")
        if ids:
            rows = await self._rows_of(list(ids))
        elif ids is not None and not input_batch.get("prompts"):
            rows = []
        else:
            rows = await self._next_rows(len(input_batch.get("prompts") or ()) or self.batch_size)
        self._settle()
        return _output(rows, ids or [row.id for row in rows])

    async def _rows_of(self, ids: Sequence[Any]) -> list[_Row]:
        keys = [one.to_string() for one in ids]
        end = time.monotonic() + self.timeout
        size = max(1, _repetitions(ids))
        while missing := self._missing(keys):
            left = end - time.monotonic()
            if left <= 0:
                raise Timeout(
                    f"{len(missing)} of {len(keys)} trajectories have not come from "
                    f"'{self.name}' in {self.timeout} s: {', '.join(missing[:5])}…; "
                    f"{sum(map(len, self.stash.values()))} others wait in the stash"
                )
            await self._stash_more(size, min(left, _SLICE))
        return [self._pop(key) for key in keys]

    def _missing(self, keys: Iterable[str]) -> list[str]:
        left = {key: len(rows) for key, rows in self.stash.items()}
        missing = []
        for key in keys:
            if left.get(key, 0) > 0:
                left[key] -= 1
            else:
                missing.append(key)
        return missing

    def _pop(self, key: str) -> _Row:
        row = self.stash[key].popleft()
        if not self.stash[key]:
            del self.stash[key]
        if row.batch is not None:
            row.batch.rows -= 1
        return row

    async def _next_rows(self, sequences: int) -> list[_Row]:
        if self.ring is not None:
            return await self._next_of_ring(sequences)
        end = time.monotonic() + self.timeout
        while True:
            left = max(0.0, end - time.monotonic())
            batch = await self.reader.next_batch_async(sequences, layout="groups", timeout=left)
            if not dead_letter_misfit(batch):
                break
        rows = self._rows(batch)
        self._opened[-1].rows = 0
        return rows

    async def _next_of_ring(self, sequences: int) -> list[_Row]:
        """The next sequences of all, in the order of their ids."""
        end = time.monotonic() + self.timeout
        while sum(map(len, self.stash.values())) < sequences:
            left = end - time.monotonic()
            if left <= 0:
                raise Timeout(f"{sequences} trajectories have not come from '{self.name}' in time")
            await self._stash_more(1, min(left, _SLICE))
        ids = [row.id for rows in self.stash.values() for row in rows]
        first = sorted(ids[:sequences], key=lambda one: (one.instance_id, one.repetition_id))
        return [self._pop(one.to_string()) for one in first]

    async def _stash_more(self, size: int, timeout: float) -> None:
        """Adds one group, or one trajectory of a ring, if it comes in time."""
        if self.ring is None:
            batch = await self._next_group(size, timeout)
            rows = [] if batch is None or dead_letter_misfit(batch) else self._rows(batch)
        else:
            entry = self.ring.read_next()
            rows = [] if entry is None else [_row_of_ring(entry)]
            if entry is None:
                await asyncio.sleep(min(self._poll_interval, timeout))
        for row in rows:
            self.stash[row.id.to_string()].append(row)

    async def _next_group(self, size: int, timeout: float) -> TrajectoryBatch | None:
        """The oldest group of any size; None if none came in time."""
        batch = self._oldest(size)
        if batch is not None:
            return batch
        try:
            return await self.reader.next_batch_async(
                size, layout="groups", lookahead=1, timeout=timeout
            )
        except (Timeout, TooLarge):
            return None

    def _oldest(self, guess: int) -> TrajectoryBatch | None:
        """A batch of one group must be requested by its size, which is found by bisection."""
        least, most = 1, _MOST_SEQUENCES
        size = guess
        while least <= most:
            try:
                return self.reader.next_batch(size, layout="groups", lookahead=1, timeout=0)
            except TooLarge:
                least = size + 1
            except Timeout:
                if size == 1:
                    return None  # there is none
                most = size - 1
            size = 1 if size == guess and most < guess else (least + min(most, 4 * least)) // 2
        return None

    def _rows(self, batch: TrajectoryBatch) -> list[_Row]:
        opened = _Open(batch, len(batch))
        self._opened.append(opened)
        return [_row_of(group, at, opened) for group in batch.groups for at in range(len(group))]

    def _settle(self) -> None:
        """Acknowledges groups that were returned completely, when the trainer asks again."""
        self._given += [one for one in self._opened if one.rows == 0]
        self._opened = [one for one in self._opened if one.rows > 0]

    def _acknowledge(self, input_batch: Mapping[str, Any] | None) -> None:
        metadata = (input_batch or {}).get("batch_metadata")
        step = int(getattr(metadata, "global_step", 0) or 0)
        if self._given and step == 0:  # the step was not given
            step = self.reader.version + 1
        for one in self._given:
            one.batch.ack(step)
        self._given = []

    def close(self) -> None:
        """Leave: returned groups count as trained on, groups in the stash are nacked."""
        if self.ring is not None:
            self.ring.close()
        if self._reader is None or self._reader.closed:
            return
        self._settle()
        self._acknowledge(None)
        for one in self._opened:
            one.batch.nack()
        self._opened = []
        self.stash.clear()
        self.reader.close()


def _repetitions(ids: Iterable[Any]) -> int:
    counts: defaultdict[str, int] = defaultdict(int)
    for one in ids:
        counts[one.instance_id] += 1
    return max(counts.values(), default=0)


def _instance_of(group: TrajectoryGroup) -> str:
    if group.instance_id is not None:
        return group.instance_id
    named = (group.group_overrides or {}).get("instance_id")
    if named is not None:
        return str(named)
    env_id = group.env_id if group.env_id is not None else group.environment_id
    return "unknown" if env_id is None else str(env_id)


def _row_of(group: TrajectoryGroup, at: int, opened: _Open) -> _Row:
    tokens = group.tokens[at].tolist()
    masks = group.masks[at].tolist() if group.masks is not None else tokens
    begin = next((place for place, mask in enumerate(masks) if mask != _MASKED), 0)
    logprobs = logprobs_of(group)
    overrides = group.overrides[at] if group.overrides else {}
    return _Row(
        id=TrajectoryID(_instance_of(group), at),
        prompt=tokens[:begin],
        response=tokens[begin:],
        loss_mask=[int(mask != _MASKED) for mask in masks[begin:]],
        reward=float(group.scores[at]) if group.scores is not None else 0.0,
        logprobs=None if logprobs is None else logprobs[at][begin:].tolist(),
        stop_reason=str((overrides or {}).get("stop_reason", "stop")),
        batch=opened,
    )


def _row_of_ring(entry: Mapping[str, Any]) -> _Row:
    """One trajectory of a ring, which does not say where its prompt ends."""
    metadata = entry["metadata"]
    return _Row(
        id=TrajectoryID(entry["instance_id"], entry["repetition_id"]),
        prompt=[],
        response=entry["tokens"],
        loss_mask=[1] * len(entry["tokens"]),
        reward=entry["score"],
        logprobs=metadata.get("logprobs"),
        stop_reason=str(metadata.get("stop_reason", "stop")),
        batch=None,
    )


def _output(rows: list[_Row], ids: Sequence[Any]) -> dict[str, Any]:
    logprobs = [row.logprobs for row in rows]
    return {
        "prompt_token_ids": [row.prompt for row in rows],
        "response_ids": [row.response for row in rows],
        "rewards": [row.reward for row in rows],
        "loss_masks": [row.loss_mask for row in rows],
        "stop_reasons": [row.stop_reason for row in rows],
        "rollout_metrics": None,
        "rollout_logprobs": None if any(one is None for one in logprobs) else logprobs,
        "trajectory_ids": list(ids),
    }
