"""TrajectoryGroup: all completions of one prompt, with everything that belongs to them."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .. import _core
from .._repr import never_raises
from ..errors import InvalidArgument
from .columns import (
    FlatColumn,
    Lengths,
    as_array,
    check_count,
    flatten,
    flatten_distilled,
    lengths_of,
    listed,
    shape_distilled,
    split,
)

__all__ = ["TrajectoryGroup"]

_DISTILLED: Final = ("distill_token_ids", "distill_logprobs")
_PER_TOKEN: Final = tuple(name for name in _core.TRAJECTORY_COLUMNS if name not in _DISTILLED)
_PER_SEQUENCE: Final = ("scores", "versions")
_REST: Final = (
    "instance_id",
    "env_id",
    "messages",
    "generation_params",
    "overrides",
    "group_overrides",
    "images",
)
_FORMAT: Final = 1  # of the message


class TrajectoryGroup:
    """The sequences of one prompt, and what belongs to each token, to each sequence, and to all.

    ``tokens`` and the other per-token columns (``masks``, ``advantages``, ``ref_logprobs``,
    ``inference_logprobs``) take one 1-D array, list or iterator for each sequence, as long as its
    tokens, or one 2-D array. Arrays (NumPy, PyTorch, DLPack) keep their dtype; integers become
    int32 if they fit and int64 otherwise, other numbers float64. ``distill_token_ids`` and
    ``distill_logprobs`` have k values for each token, ``scores`` and ``versions`` (the policy's)
    one for each sequence. The other fields are any value that the typed codec supports, and stay as
    they are; ``instance_id`` is text and ``env_id`` an int.

    An empty list in the place of a column is kept, but is no column. Groups that came over HTTP may
    have columns of other lengths than the tokens', as Atropos's server takes them: these are plain
    lists, as given, and not among ``columns``. Sequences without a token also come only that way.

    A received group equals the one that was put. Its origin does not count for that:
    ``environment``, ``environment_id`` and ``begun``.

    Raises InvalidArgument, which names the column and the sequence that do not fit the tokens.
    """

    __slots__ = (
        "_columns",
        "_counts",
        "_lengths",
        "_plain",
        "_rest",
        "begun",
        "environment",
        "environment_id",
    )

    #: The name of the environment that put it, and the env_id of its writer; None before that.
    environment: str | None
    environment_id: int | None
    #: The policy's version when it was begun; None before it was put.
    begun: int | None

    def __init__(
        self,
        tokens: Any,
        *,
        masks: Any = None,
        scores: Any = None,
        advantages: Any = None,
        ref_logprobs: Any = None,
        inference_logprobs: Any = None,
        versions: Any = None,
        messages: Any = None,
        generation_params: Mapping[str, Any] | None = None,
        overrides: Any = None,
        group_overrides: Mapping[str, Any] | None = None,
        images: Any = None,
        env_id: int | None = None,
        instance_id: str | None = None,
        distill_token_ids: Any = None,
        distill_logprobs: Any = None,
    ) -> None:
        given = locals()
        self._begin({name: given[name] for name in _REST if given[name] is not None})
        for name in (*_PER_TOKEN[1:], *_DISTILLED, "scores"):
            if isinstance(given[name], list | tuple) and len(given[name]) == 0:
                self._plain[name], given[name] = [], None
        for name in (*_PER_TOKEN, *_DISTILLED):
            given[name] = listed(given[name], depth=3 if name in _DISTILLED else 2)
        self._lengths = lengths_of(given["tokens"], self.title)
        for name in _PER_TOKEN:
            if given[name] is not None:
                self._columns[name] = flatten(name, given[name], self._lengths, self.title)
        for name in _DISTILLED:
            if given[name] is not None:
                self._add_distilled(
                    name, *flatten_distilled(name, given[name], self._lengths, self.title)
                )
        for name in _PER_SEQUENCE:
            if given[name] is not None:
                self._add_per_sequence(name, given[name])

    def _begin(self, rest: dict[str, Any]) -> None:
        self.environment = None
        self.environment_id = None
        self.begun = None
        self._rest = rest
        self._columns: dict[str, Any] = {}
        self._plain: dict[str, Any] = {}  # values given in the place of columns that are none
        self._counts: Any = None
        self._check_rest()

    @classmethod
    def from_flat(
        cls, columns: Mapping[str, Any], rest: dict[str, Any], plain: dict[str, Any]
    ) -> TrajectoryGroup:
        """A group of ``FlatColumn``s that fit its tokens, and of arrays where there is one number
        for each sequence; ``plain`` has the columns that do not fit.

        For the library. Raises InvalidArgument for a group without a sequence.
        """
        group = cls.__new__(cls)
        group._begin(rest)
        group._plain = plain
        group._lengths = check_count(columns["tokens"].lengths, group.title)
        for name, column in columns.items():
            if isinstance(column, FlatColumn):
                group._add_flat(name, column)
            else:
                group._add_per_sequence(name, column)
        return group

    def _add_flat(self, name: str, column: FlatColumn) -> None:
        if column.widths is None:
            self._columns[name] = column.values
        else:
            self._add_distilled(name, *shape_distilled(column.values, column.widths))

    def _check_rest(self) -> None:
        instance_id = self._rest.get("instance_id")
        if instance_id is not None and not isinstance(instance_id, str):
            raise InvalidArgument(f"instance_id is {instance_id!r}: give text")
        if instance_id is not None:
            self._rest["instance_id"] = str(instance_id)  # NumPy's text too
        env_id = self._rest.get("env_id")
        if env_id is not None:
            try:
                self._rest["env_id"] = int(operator.index(env_id))  # NumPy's integers too
            except TypeError:
                raise InvalidArgument(f"env_id is {env_id!r}: give an int") from None

    def _add_distilled(self, name: str, flat: Any, counts: Any) -> None:
        other = next((one for one in _DISTILLED if one in self._columns), None)
        if other is not None and not np.array_equal(_or_empty(counts), _or_empty(self._counts)):
            raise InvalidArgument(
                f"columns '{other}' and '{name}' of {self.title} have different numbers of values "
                f"for a token"
            )
        self._columns[name] = flat
        self._counts = counts

    def _add_per_sequence(self, name: str, values: Any) -> None:
        array = as_array(values, integers=name == "versions")
        if array.shape != self._lengths.shape:
            raise InvalidArgument(
                f"column '{name}' of {self.title} has the shape {tuple(array.shape)}, and there "
                f"are {len(self._lengths)} sequences"
            )
        self._columns[name] = array

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> TrajectoryGroup:
        """The group of a message in the queue; for the library."""
        group = cls.__new__(cls)
        group.environment = message["environment"]
        group.environment_id = message.get("environment_id")
        group.begun = message["begun"]
        group._lengths = message["lengths"]
        group._counts = message.get("distill_counts")
        known = (*_core.TRAJECTORY_COLUMNS, *_PER_SEQUENCE)
        group._columns = {name: message[name] for name in known if name in message}
        group._rest = {name: message[name] for name in _REST if message.get(name) is not None}
        plain = message.get("plain")
        group._plain = plain if isinstance(plain, dict) else {}
        return group

    def to_message(self, environment: str, begun: int, environment_id: int) -> dict[str, Any]:
        """The message for the queue; for the library. The core checks it again."""
        message: dict[str, Any] = {
            "group": _FORMAT,
            "environment": environment,
            "begun": begun,
            "environment_id": environment_id,
            "lengths": self._lengths,
            **self._rest,
        }
        for name, column in self._columns.items():
            message[name] = column if _is_flat(column) else np.ascontiguousarray(column)
        if self._counts is not None:
            message["distill_counts"] = self._counts
        if self._plain:
            message["plain"] = self._plain
        return message

    @property
    def title(self) -> str:
        """``the group 'q17' of 'gsm8k'``, as errors name it."""
        instance_id = self._rest.get("instance_id")
        group = f"the group '{instance_id}'" if instance_id else "a group"
        return f"{group} of '{self.environment}'" if self.environment else group

    def __len__(self) -> int:
        """Sequences."""
        return len(self._lengths)

    @property
    def lengths(self) -> Lengths:
        """Tokens of each sequence."""
        return self._lengths

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns that it has."""
        return tuple(self._columns)

    def flat(self, column: str) -> Any:
        """A column's values in one row; ``lengths`` tells where sequence ``i`` lies."""
        return self._columns[column]

    def widths(self, column: str) -> npt.NDArray[np.int32] | None:
        """How many values of a column each token has; None: one, or a column of one value per
        sequence."""
        if column not in _DISTILLED:
            return None
        if self._counts is not None:
            counts: npt.NDArray[np.int32] = self._counts
            return counts
        tokens, each = self._columns[column].shape
        return np.full(tokens, each, np.int32)

    @property
    def tokens(self) -> list[Any]:
        """One array for each sequence, as for the next columns; views of one array."""
        return split(self._columns["tokens"], self._lengths)

    @property
    def masks(self) -> list[Any] | None:
        """Labels of the loss, one for each token: -100 where there is none. None if not given."""
        return self._split("masks")

    @property
    def advantages(self) -> list[Any] | None:
        """One real number for each token, or None if not given."""
        return self._split("advantages")

    @property
    def ref_logprobs(self) -> list[Any] | None:
        """The reference policy's logprob of each token, or None if not given."""
        return self._split("ref_logprobs")

    @property
    def inference_logprobs(self) -> list[Any] | None:
        """The logprob of each token when it was sampled, or None if not given."""
        return self._split("inference_logprobs")

    @property
    def distill_token_ids(self) -> list[Any] | None:
        """One (tokens, k) array for each sequence, or a list of arrays where k differs."""
        return self._split_distilled("distill_token_ids")

    @property
    def distill_logprobs(self) -> list[Any] | None:
        """The logprobs of ``distill_token_ids``, in the same shape."""
        return self._split_distilled("distill_logprobs")

    @property
    def scores(self) -> Any:
        """One for each sequence."""
        return self._columns.get("scores", self._plain.get("scores"))

    @property
    def versions(self) -> Any:
        """The policy's version, for each sequence."""
        return self._columns.get("versions")

    @property
    def instance_id(self) -> str | None:
        """Text that names the prompt, as given."""
        return self._rest.get("instance_id")

    @property
    def env_id(self) -> int | None:
        """As given to the group; the writer's is ``environment_id``."""
        return self._rest.get("env_id")

    @property
    def messages(self) -> Any:
        """The conversations, as given."""
        return self._rest.get("messages")

    @property
    def generation_params(self) -> Any:
        """What the sequences were sampled with, as given."""
        return self._rest.get("generation_params")

    @property
    def overrides(self) -> Any:
        """What a trainer shall do otherwise for each sequence, as given."""
        return self._rest.get("overrides")

    @property
    def group_overrides(self) -> Any:
        """What a trainer shall do otherwise for the group, as given."""
        return self._rest.get("group_overrides")

    @property
    def images(self) -> Any:
        """Pictures of the prompts, as given."""
        return self._rest.get("images")

    def _split(self, name: str) -> list[Any] | None:
        column = self._columns.get(name)
        return self._plain.get(name) if column is None else split(column, self._lengths)

    def _split_distilled(self, name: str) -> list[Any] | None:
        column = self._columns.get(name)
        if column is None or self._counts is None:
            return self._split(name)
        tokens = split(column, self._counts.astype(np.int64))
        ends = np.cumsum(self._lengths).tolist()
        return [
            tokens[end - length : end]
            for end, length in zip(ends, self._lengths.tolist(), strict=True)
        ]

    def __eq__(self, other: object) -> bool:
        """Bit for bit: dtypes, values and everything else except its origin."""
        if not isinstance(other, TrajectoryGroup):
            return NotImplemented
        return (
            _same_value(self._rest, other._rest)
            and _same_value(self._plain, other._plain)
            and np.array_equal(self._lengths, other._lengths)
            and np.array_equal(_or_empty(self._counts), _or_empty(other._counts))
            and self._columns.keys() == other._columns.keys()
            and all(_same(self._columns[name], other._columns[name]) for name in self._columns)
        )

    __hash__ = None  # type: ignore[assignment]

    @never_raises
    def __repr__(self) -> str:
        tokens = int(self._lengths.sum())
        return (
            f"<penstock.TrajectoryGroup: {self.title}, {len(self)} sequences, {tokens} tokens, "
            f"{', '.join(self.columns)}>"
        )


def _or_empty(counts: Any) -> Any:
    return np.empty(0, np.int32) if counts is None else counts


def _is_flat(column: Any) -> bool:
    return not isinstance(column, np.ndarray) or column.flags.c_contiguous


def _same(one: Any, other: Any) -> bool:
    """Compares arrays, tensors or NumPy scalars bit for bit."""
    if str(one.dtype) != str(other.dtype) or one.shape != other.shape:
        return False
    return _bytes_of(one) == _bytes_of(other)


def _bytes_of(array: Any) -> bytes:
    if hasattr(array, "detach"):
        import torch

        flat = array.detach().cpu().reshape(-1).contiguous()
        array = flat.view(torch.uint8).numpy() if flat.numel() else np.empty(0, np.uint8)
    return np.ascontiguousarray(array).tobytes()


def _same_value(one: Any, other: Any) -> bool:
    """Compares values as the codec carries them; NaNs are equal."""
    if hasattr(one, "dtype") or hasattr(other, "dtype"):
        return hasattr(one, "dtype") and hasattr(other, "dtype") and _same(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same_value(one[key], other[key]) for key in one)
    for kind in (list, tuple):
        if isinstance(one, kind) and isinstance(other, kind):
            return len(one) == len(other) and all(map(_same_value, one, other))
    if dataclasses.is_dataclass(one) and type(one) is type(other):
        return _same_value(vars(one), vars(other))
    return bool(one == other or (one != one and other != other))
