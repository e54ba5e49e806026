"""The groups of sequences in the benchmarks of trajectories, and their checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SEQUENCES = 4  # in a group
GROUPS = 4  # in a batch
IGNORED = -100  # in masks: the prompt

Group = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class GroupPlace:
    """The case: tokens a sequence, and the number of producers."""

    name: str
    tokens: int
    producers: int

    @property
    def nbytes(self) -> int:
        """The size of a group: three columns of 4 bytes a token, and the scores."""
        return SEQUENCES * (3 * 4 * self.tokens + 8)


def make_columns(tokens: int) -> Group:
    """The columns common to every group: (SEQUENCES, tokens) each, the first quarter a prompt."""
    shape = (SEQUENCES, tokens)
    ids = np.arange(1000, 1000 + SEQUENCES * tokens, dtype=np.int32).reshape(shape)
    masks = ids.copy()
    masks[:, : tokens // 4] = IGNORED
    logprobs = -np.random.default_rng(1).random(shape, dtype=np.float32)
    logprobs[:, : tokens // 4] = 1.0
    return {"tokens": ids, "masks": masks, "inference_logprobs": logprobs}


def make_scores(producer: int, number: int) -> npt.NDArray[np.float64]:
    """The scores identify a group: its producer and its number."""
    return np.array([producer, number, 0.25, -1.0])


class GroupCheck:
    """Each producer's groups in order, and whole."""

    def __init__(self, place: GroupPlace) -> None:
        self.columns = make_columns(place.tokens)
        self._wanted = {name: one.tobytes() for name, one in self.columns.items()}
        self._next = [0] * place.producers

    def __call__(self, group: Mapping[str, Any]) -> None:
        """Arrays of any shape: only their bytes in order count."""
        *identity, plus, minus = group["scores"].tolist()
        producer, number = map(int, identity)
        is_whole = (plus, minus) == (0.25, -1.0) and number == self._next[producer]
        for name, wanted in self._wanted.items():
            # As for single arrays: every contender pays for it.
            is_whole = is_whole and group[name].tobytes() == wanted
        if not is_whole:
            raise RuntimeError(f"group {number} of producer {producer} is torn or out of turn")
        self._next[producer] += 1
