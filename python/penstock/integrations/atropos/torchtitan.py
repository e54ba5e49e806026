"""A data handler for torchtitan's GRPO loop that takes its batches from the queue.

handler = OnlineDataHandler("rollouts")
handler.register_atropos(job_config, step, global_batch_size)
batches, max_token_len, rows, accumulation, *_ = handler.data_handling(..., job_config, step)
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ...errors import InvalidArgument, Timeout
from ...trajectories import TrajectoryBatch, TrajectoryGroup, TrajectoryReader
from .groups import dead_letter_misfit, logprobs_of, why_unfit
from .names import segment_name
from .trainer import open_reader

__all__ = ["OnlineDataHandler", "PreparedBatch", "prepare"]

_STEP: Final = 64  # lengths are multiples of this, for each context parallel rank
_SLICE: Final = 1.0  # seconds that rank 0 waits before all ranks synchronise again
_MASKED: Final = -100


class PreparedBatch(NamedTuple):
    """The result of a step, as the loop expects it."""

    #: One for each accumulation step of each data parallel rank: (input_ids, labels, masks,
    #: inference_logprobs), each (rows, max_token_len), and rewards (rows,).
    batches: list[tuple[Any, ...]]
    max_token_len: int
    dynamic_batch_size: int
    dynamic_grad_accum_size: int
    data_lens: list[int]


@dataclass(frozen=True)
class _Sequences:
    """All sequences of a batch, shifted for a causal model and padded: (sequences, length)."""

    input_ids: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    masks: npt.NDArray[Any]
    logprobs: npt.NDArray[Any]
    rewards: npt.NDArray[Any]
    lengths: list[int]


def prepare(
    groups: Sequence[TrajectoryGroup],
    *,
    cp_degree: int = 1,
    dp_degree: int = 1,
    batch_size: int = 1,
    gradient_accumulation_steps: int = 1,
    seq_len: int,
    scale_adv_by_len: bool = True,
    num_microbatches: int = 1,
) -> PreparedBatch:
    """The arrays of whole groups: normalised rewards, labels shifted behind their tokens, and as
    many rows in a batch as fit into ``seq_len``; long sequences are spread over ranks and
    microbatches.

    Raises InvalidArgument if the number of sequences is not what the ranks take in a step, and for
    a group whose masks, scores or logprobs do not fit its tokens.
    """
    for group in groups:
        if why := why_unfit(group):
            raise InvalidArgument(f"{group.title}: {why}")
    wanted = batch_size * gradient_accumulation_steps * dp_degree
    count = sum(map(len, groups))
    if count != wanted:
        raise InvalidArgument(f"{count} sequences, and a step of all ranks takes {wanted}")
    length, all_of = _padded(groups, _STEP * cp_degree, scale_adv_by_len)
    order = _spread(all_of.lengths, dp_degree * num_microbatches)
    rows, accumulation = _shape_of_step(
        batch_size, gradient_accumulation_steps, seq_len, length, num_microbatches
    )
    columns = (
        all_of.input_ids,
        all_of.labels,
        all_of.masks,
        all_of.logprobs,
        all_of.rewards,
    )
    ordered = [column[order] for column in columns]
    batches = [
        tuple(column[first : first + rows] for column in ordered)
        for first in range(0, accumulation * dp_degree * rows, rows)
    ]
    return PreparedBatch(batches, length, rows, accumulation, [all_of.lengths[at] for at in order])


def _padded(
    groups: Sequence[TrajectoryGroup], step: int, scale_adv_by_len: bool
) -> tuple[int, _Sequences]:
    tokens_of = [int(tokens) for group in groups for tokens in group.lengths]
    lengths = [-(-(tokens - 1) // step) * step for tokens in tokens_of]
    length = max(max(lengths), step)
    shape = (len(tokens_of), length)
    input_ids, masks = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    labels, logprobs = np.full(shape, _MASKED, np.int64), np.zeros(shape, np.float64)
    rewards: list[float] = []
    at = 0
    for group in groups:
        rewards += _rewards_of(group, scale_adv_by_len)
        group_masks, group_logprobs = group.masks, logprobs_of(group)
        for place, tokens in enumerate(group.tokens):
            end, whole = len(tokens) - 1, min(len(tokens), length)
            input_ids[at, :whole] = tokens[:whole]  # also the last token, if there is room for it
            labels[at, :end] = tokens[1:]
            masks[at, :end] = group_masks[place][1:] != _MASKED if group_masks is not None else 1
            if group_logprobs is None:
                logprobs[at] = 1.0
            else:
                logprobs[at, :whole] = group_logprobs[place][:whole]
            at += 1
    arrays = (input_ids, labels, masks, logprobs, np.array(rewards, np.float64))
    return length, _Sequences(*arrays, lengths)


def _rewards_of(group: TrajectoryGroup, scale_adv_by_len: bool) -> list[float]:
    """The scores of a group, centred at their mean and divided by their deviation."""
    scores = np.array(group.scores, np.float64)
    if scale_adv_by_len and group.masks is not None:
        scores = scores * [np.count_nonzero(mask != _MASKED) for mask in group.masks]
    if len(scores) > 1:
        scores = scores - scores.mean()
        scores = scores / max(scores.std(), 1e-8)
    for at, one in enumerate(group.overrides or ()):
        if one.get("set_advantage_to_zero", False):
            scores[at] = 0.0
    values: list[float] = scores.tolist()
    return values


def _spread(lengths: Sequence[int], buckets: int) -> list[int]:
    """Deals sequences out to buckets, the longest first, and concatenates the buckets."""
    longest_first = sorted(range(len(lengths)), key=lambda at: -lengths[at])
    return [at for bucket in range(buckets) for at in longest_first[bucket::buckets]]


def _shape_of_step(
    batch_size: int, accumulation: int, seq_len: int, length: int, microbatches: int
) -> tuple[int, int]:
    """Rows in a batch, and batches in a step of one rank: powers of two times ``batch_size``."""
    rows = min(batch_size * seq_len // length, batch_size * accumulation // microbatches)
    fold = max(1, rows // batch_size)
    rows = (1 << (fold.bit_length() - 1)) * batch_size
    return rows, batch_size * accumulation // rows


class OnlineDataHandler:
    """Replaces torchtitan's own data handler: rank 0 takes the groups, all ranks get the arrays.

    A batch counts as trained on when ``data_handling()`` is called again, with its step as the
    policy's version; until then it is redelivered if rank 0 dies. A group whose masks, scores or
    logprobs do not fit its tokens becomes a dead letter, which a RuntimeWarning says. ``queue`` is
    created if it does not exist. Needs ``torch.distributed``, initialised. One thread of each rank.
    """

    def __init__(self, queue: str = "atropos") -> None:
        self.queue = queue
        self.reader: TrajectoryReader | None = None  # on rank 0 only
        self._open: TrajectoryBatch | None = None

    def register_atropos(self, job_config: Any, step: int, global_batch_size: int) -> None:
        """Attaches rank 0 to the queue; no effect on other ranks."""
        del step
        if _rank() == 0 and self.reader is None:
            self.reader = open_reader(
                segment_name(self.queue),
                sequences=global_batch_size,
                max_tokens=job_config.training.seq_len,
            )

    def data_handling(
        self,
        sglang_nccl_group: Any,
        cp_degree: int,
        dp_degree: int,
        dp_replicate_rank: int,
        device: Any,
        job_config: Any,
        step: int,
    ) -> tuple[Any, ...]:
        """The next batch, on every rank: the five fields of ``PreparedBatch``, and the seconds of
        preparing, of saving (none) and of waiting for it. Waits for ever.

        The rank with ``dp_replicate_rank`` 0 tells SGLang to wait, once a second.
        """
        import torch.distributed

        while True:
            found: list[Any] = [self._take(job_config, cp_degree, dp_degree, step)]
            torch.distributed.broadcast_object_list(found, 0)
            if dp_replicate_rank == 0 and sglang_nccl_group is not None:
                _tell_to_wait(sglang_nccl_group, device)
            if found[0] is not None:
                prepared, preparing, getting = found[0]
                return (*prepared, preparing, 0.0, getting)

    def _take(
        self, job_config: Any, cp_degree: int, dp_degree: int, step: int
    ) -> tuple[PreparedBatch, float, float] | None:
        if self.reader is None:
            return None
        if self._open is not None:
            self._open.ack(step)
            self._open = None
        begin = time.perf_counter()
        try:
            batch = self.reader.next_batch(layout="groups", timeout=_SLICE)
        except Timeout:
            return None
        if dead_letter_misfit(batch):
            return None
        getting = time.perf_counter() - begin
        training = job_config.training
        try:
            prepared = prepare(
                batch.groups,
                cp_degree=cp_degree,
                dp_degree=dp_degree,
                batch_size=training.local_batch_size,
                gradient_accumulation_steps=max(
                    1, training.global_batch_size // (training.local_batch_size * dp_degree)
                ),
                seq_len=training.seq_len,
                scale_adv_by_len=job_config.grpo.scale_adv_by_len,
                num_microbatches=job_config.grpo.num_microbatches,
            )
        except BaseException:
            batch.nack()
            raise
        self._open = batch
        return prepared, time.perf_counter() - begin - getting, getting

    def close(self) -> None:
        """Leave; the last batch is nacked, because nothing says that it was trained on."""
        if self._open is not None:
            self._open.nack()
            self._open = None
        if self.reader is not None:
            self.reader.close()


def _rank() -> int:
    import torch.distributed

    return torch.distributed.get_rank()


def _tell_to_wait(group: Any, device: Any) -> None:
    importlib.import_module("torchtitan.grpo.sglang_handling").send_wait(group, device)
