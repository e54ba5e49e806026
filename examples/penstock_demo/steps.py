"""The steps that the driver broadcasts: messages of an inference engine to its workers, made of
real bytes. A small dict with request ids and token arrays; at intervals with a tensor of many
MiB."""

from __future__ import annotations

import itertools
import zlib
from typing import Any

import numpy as np

from penstock_demo.corpus import Corpus

Step = dict[str, Any]

_REQUEST_LENGTHS = (512, 2048, 128, 6144, 1024, 256, 4096)  # bytes of text, in turn
_BATCH_SIZES = (2, 5, 1, 3, 8)
_TENSOR_MIB = (8, 16, 12, 32)
_TENSOR_WIDTH = 1024


class StepMaker:
    """Makes step after step, through the corpus from its start, and over again."""

    def __init__(self, corpus: Corpus, tensor_every: int) -> None:
        self._corpus = corpus
        self._tensor_every = tensor_every
        self._position = 0
        self._requests = itertools.count()
        self._lengths = itertools.cycle(_REQUEST_LENGTHS)
        self._batches = itertools.cycle(_BATCH_SIZES)
        self._tensors = itertools.cycle(_TENSOR_MIB)

    def make(self, number: int, pace: str) -> Step:
        """Step `number`, complete except for the time at which it is sent."""
        lengths = list(itertools.islice(self._lengths, next(self._batches)))
        text = self._next_bytes(sum(lengths))
        step: Step = {
            "step": number,
            "pace": pace,
            "requests": [f"request-{next(self._requests):07}" for _ in lengths],
            "lengths": np.array(lengths, dtype=np.int32),
            "text": text,
            "tokens": text.view(np.uint16).astype(np.int32),  # token ids: pairs of bytes
        }
        if self._tensor_every and number % self._tensor_every == self._tensor_every - 1:
            size = next(self._tensors) << 20
            step["tensor"] = self._next_bytes(size).view(np.float16).reshape(-1, _TENSOR_WIDTH)
        step["checksum"] = checksum(step)
        return step

    def _next_bytes(self, length: int) -> Any:
        passage = self._corpus.passage(self._position, length)
        self._position += length
        return passage


def checksum(step: Step) -> int:
    """CRC-32 of all of a step except the time: number, names, and every array's bytes."""
    crc = zlib.crc32(f"{step['step']} {step['pace']} {' '.join(step['requests'])}".encode())
    for array in _arrays(step):
        crc = zlib.crc32(array, crc)
    return crc


def payload(step: Step) -> int:
    """The bytes of a step's arrays."""
    return sum(array.nbytes for array in _arrays(step))


def _arrays(step: Step) -> list[Any]:
    arrays = [step["lengths"], step["text"], step["tokens"]]
    if "tensor" in step:
        arrays.append(step["tensor"])
    return arrays
