"""The processes of `penstock demo --trajectories`: environments that make groups of real text, and
the trainer that takes them in batches. Each writes a ledger line by line, so that the acts of a
killed process are known too."""

from __future__ import annotations

import re
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import numpy as np
import numpy.typing as npt

from penstock.errors import Closed, Timeout
from penstock.trajectories import (
    TrajectoryBatch,
    TrajectoryGroup,
    TrajectoryReader,
    TrajectoryWriter,
)
from penstock_demo.corpus import read_corpus

__all__ = ["GROUP_SIZES", "SEQUENCES", "play_environment", "play_trainer"]

#: Of the environments; deliberately no powers of two.
GROUP_SIZES: Final = (4, 6, 3)
SEQUENCES: Final = 24
_PATIENCE: Final = 1.0
_WORD: Final = re.compile(rb"\w+|[^\w\s]")
_PASSAGE: Final = 4096

Tokens = npt.NDArray[np.int32]


def _tokenize(passage: bytes) -> Tokens:
    """A token for each word or sign: its hash, within the range of a real vocabulary."""
    words = _WORD.findall(passage) or [b" "]
    return np.fromiter((zlib.crc32(word) % 128_000 for word in words), np.int32, len(words))


def _make_group(label: str, corpus_at: Iterator[bytes], size: int) -> TrajectoryGroup:
    """The first words of a passage are the prompt, further passages the completions."""
    prompt = _tokenize(next(corpus_at))[:32]
    completions = [_tokenize(next(corpus_at)) for _ in range(size)]
    tokens = [np.concatenate([prompt, completion]) for completion in completions]
    masks = [np.concatenate([np.full_like(prompt, -100), one]) for one in completions]
    logprobs = [
        np.concatenate([np.ones(len(prompt), np.float32), -(one % 97 + 1) / np.float32(97)])
        for one in completions
    ]
    return TrajectoryGroup(
        tokens,
        masks=masks,
        inference_logprobs=logprobs,
        scores=[len(np.unique(one)) / len(one) for one in completions],
        instance_id=label,
        messages=[zlib.crc32(one.tobytes()) for one in tokens],  # for the trainer's check
    )


def play_environment(
    queue: str, rank: int, life: int, path: Path | None, ledger: Path, stop: Path
) -> None:
    """Puts groups until `stop` exists; the replacement of a killed one uses new names."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides when to stop
    size = GROUP_SIZES[rank]
    corpus = read_corpus(path)

    def passages() -> Iterator[bytes]:
        at = rank * 1_000_003 + life * 7_919
        while True:
            yield corpus.passage(at, _PASSAGE).tobytes()
            at += _PASSAGE

    source = passages()
    with (
        ledger.open("a", buffering=1) as book,
        TrajectoryWriter.attach(
            queue, environment=f"env{rank}", group_size=size, min_share=0.125, timeout=30
        ) as writer,
    ):
        made = 0
        while not stop.exists():
            label = f"env{rank}.{life}:{made}"
            try:
                with writer.begin(timeout=0.2) as rollout:
                    rollout.put(_make_group(label, source, size))
            except Timeout:
                continue
            made += 1
            book.write(f"put {label}\n")


def _check(batch: TrajectoryBatch, group_at: int) -> bool:
    """Whether every row of a group is as its environment made it."""
    group = batch.groups[group_at]
    rows = np.flatnonzero(batch.group_index == group_at)
    return all(
        zlib.crc32(batch.tokens[row, : batch.lengths[row]].tobytes()) == checksum
        and (
            batch.masks[row, : batch.lengths[row]][32:]
            == batch.tokens[row, 32 : batch.lengths[row]]
        ).all()
        for row, checksum in zip(rows, group.messages, strict=True)
    )


def _train(batch: TrajectoryBatch, book: IO[str], step: int) -> None:
    for at, group in enumerate(batch.groups):
        state = "whole" if _check(batch, at) else "torn"
        book.write(f"read {group.instance_id} {state} {batch.deliveries[at]}\n")
    batch.ack(step)
    for group in batch.groups:
        book.write(f"done {group.instance_id} {batch.staleness}\n")


def play_trainer(queue: str, ledger: Path) -> None:
    """Padded batches until the stream has ended and no group is left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with (
        ledger.open("a", buffering=1) as book,
        TrajectoryReader.attach(queue, sequences=SEQUENCES, timeout=30) as trainer,
    ):
        while True:
            try:
                batch = trainer.next_batch(timeout=_PATIENCE)
            except Timeout:
                continue
            except Closed:
                break
            _train(batch, book, trainer.version + 1)
        left = sum(one.waiting_sequences for one in trainer.stats().environments)
        if left:
            _train(trainer.next_batch(left, timeout=_PATIENCE), book, trainer.version + 1)
