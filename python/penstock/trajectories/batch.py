"""TrajectoryBatch: whole groups as the arrays that a trainer computes with."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from .. import _core
from .._dtypes import native_name
from .._repr import never_raises
from ..errors import Corrupt, Error, InvalidArgument, InvalidType, NoSpace, TooLarge, WrongProcess
from .group import TrajectoryGroup

__all__ = ["Layout", "TrajectoryBatch", "Unserveable", "make_batch"]

#: NumPy dtypes that a column may be converted to.
_DTYPES: Final = frozenset(
    {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"}
    | {"float16", "float32", "float64"}
)
_MOST_PACKED: Final = 2**31 - 1  # tokens: kernels expect int32 cu_seqlens
_LEAST_ITEM: Final = 4  # bytes of a value in most columns
_MACHINE_BYTES: Final = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
Layout = Literal["padded", "packed", "groups"]

#: Values behind the end of a sequence: no token, no loss, no advantage; and a number that is no
#: logprob, so that a mistake shows.
PAD_VALUES: Final[Mapping[str, float]] = {
    "tokens": 0,
    "masks": -100,
    "advantages": 0.0,
    "ref_logprobs": 1.0,
    "inference_logprobs": 1.0,
    "distill_token_ids": 0,
    "distill_logprobs": 1.0,
}


class Unserveable(Exception):
    """One group makes the batch impossible; the core still holds them all."""

    def __init__(self, why: str, group: int) -> None:
        super().__init__(why, group)  # both, so that it can be pickled
        self.group = group  #: its index in the batch

    def __str__(self) -> str:
        return str(self.args[0])


class TrajectoryBatch:
    """An exact number of sequences in whole groups, oldest first.

    Columns are attributes and items: ``batch.tokens``, ``batch["ref_logprobs"]``. Padded they are
    (sequences, longest), and ``padding_mask`` is True where there is a token; packed they are
    (tokens,), and sequence ``i`` lies from ``cu_seqlens[i]`` to ``cu_seqlens[i + 1]`` with
    ``position_ids`` counting from 0 in each. Distill columns have k values more behind that.
    Columns that no array can hold (k differs, or a group lacks the column) are named in
    ``left_out``, and read from ``groups``.

    ``ack(step)`` when the trainer has used it. Unacknowledged groups are redelivered, marked, after
    ``nack()`` or the trainer's death. As a context manager it acknowledges at the end of the block,
    and nacks on an exception. The arrays are the caller's in either case.
    """

    def __init__(
        self,
        core: _core.TrajectoryBatch,
        layout: Layout,
        arrays: dict[str, Any],
        version: int,
    ) -> None:
        """Made by ``TrajectoryReader.next_batch()``."""
        self._core = core
        self._arrays = arrays
        self._groups: tuple[TrajectoryGroup, ...] | None = None
        self._scores: npt.NDArray[np.float64] | None = None
        self.layout: Layout = layout
        sequences = core.sequences
        #: Tokens of each sequence, after the causal shift.
        self.lengths: npt.NDArray[np.int64] = np.empty(sequences, np.int64)
        core.fill_lengths(self.lengths)
        #: Version of the policy that each sequence was made with.
        self.versions: npt.NDArray[np.int64] = np.empty(sequences, np.int64)
        oldest = core.fill_versions(self.versions)
        #: Index in ``groups`` of each sequence's group.
        self.group_index: npt.NDArray[np.int64] = np.empty(sequences, np.int64)
        core.fill_group_index(self.group_index)
        #: Number of deliveries of each group, this one included.
        self.deliveries: list[int] = core.deliveries()
        #: Versions between the oldest sequence and the policy now.
        self.staleness: int = max(0, version - oldest)
        #: Columns of some groups that no array holds, with the reason, if no columns were asked
        #: for.
        self.left_out: dict[str, str] = {}
        #: (sequences, longest): True where there is a token; None if not padded.
        self.padding_mask: npt.NDArray[np.bool_] | None = None
        #: (sequences + 1,): where each sequence begins and ends; None if not packed.
        self.cu_seqlens: npt.NDArray[np.int32] | None = None
        #: (tokens,): position of each token in its sequence, from 0; None if not packed.
        self.position_ids: npt.NDArray[np.int64] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns that exist as arrays."""
        return tuple(self._arrays)

    @property
    def max_seqlen(self) -> int:
        """Tokens of the longest sequence."""
        return int(self.lengths.max())

    @property
    def redelivered(self) -> npt.NDArray[np.bool_]:
        """For each group whether it was delivered before and not acknowledged."""
        return np.array(self.deliveries) > 1

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """One for each sequence. Raises InvalidArgument if a group has none."""
        if self._scores is None:
            scores = np.empty(len(self.lengths), np.float64)
            self._core.fill_scores(scores)
            self._scores = scores
        return self._scores

    @property
    def groups(self) -> tuple[TrajectoryGroup, ...]:
        """The groups themselves, copied out, including everything that is not in the arrays."""
        if self._groups is None:
            self._groups = tuple(_group_at(self._core, at) for at in range(len(self._core)))
        return self._groups

    def __len__(self) -> int:
        """Sequences."""
        return len(self.lengths)

    def __getitem__(self, column: str) -> Any:
        return self._arrays[column]

    def __contains__(self, column: object) -> bool:
        return column in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __getattr__(self, name: str) -> Any:
        arrays = self.__dict__.get("_arrays", {})
        if name in arrays:
            return arrays[name]
        if name in self.__dict__.get("left_out", {}):
            raise AttributeError(f"this batch has no array {name}: {self.left_out[name]}")
        if name in _core.TRAJECTORY_COLUMNS:
            raise AttributeError(
                f"this batch has no array {name}: no group has it, or it was not asked for"
            )
        raise AttributeError(f"a TrajectoryBatch has no attribute '{name}'")

    def ack(self, step: int = 0) -> None:
        """Acknowledge all groups. ``step`` becomes the policy's version if it is higher.

        No effect the second time, and after ``nack()``.
        """
        if isinstance(step, bool) or not hasattr(step, "__index__"):
            raise InvalidType(f"step must be an int, not {step!r}")
        if step < 0:
            raise InvalidArgument(f"step is {step}: versions count from 0")
        self._keep_groups()
        self._core.ack(step)

    def nack(self) -> None:
        """Return the groups to the queue: they are redelivered, to this trainer or another, and
        marked."""
        self._keep_groups()
        self._core.nack()

    def dead_letter(self, group: int) -> None:
        """Make this one of ``groups`` a dead letter, because it can't be used; the batch has ended.

        The rest go back to the queue as if they had not been taken. A group that came from
        ``load_state_dict()`` stays in ``state_dict()`` instead, and comes in no batch.
        """
        if not 0 <= group < len(self.deliveries):
            raise InvalidArgument(f"this batch has {len(self.deliveries)} groups, and no {group}")
        self._keep_groups()
        self._core.dead_letter(group)

    def _keep_groups(self) -> None:
        """Copies groups that were accessed: their memory is reused after the end."""
        if self._groups is None and self.layout == "groups":
            _ = self.groups

    @property
    def is_open(self) -> bool:
        """Whether it is neither acknowledged nor nacked."""
        return self._core.is_open

    def _messages(self, restored: bool = False) -> list[bytes]:
        if not self.is_open:
            return []
        return [
            self._core.message(at)
            for at in range(len(self._core))
            if not restored or self._core.is_restored(at)
        ]

    def __enter__(self) -> TrajectoryBatch:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        if exc_type is None:
            self.ack()
        else:
            self.nack()

    @never_raises
    def __repr__(self) -> str:
        state = "" if self.is_open else ", done with"
        return (
            f"<penstock.TrajectoryBatch: {len(self)} sequences in {len(self.deliveries)} groups, "
            f"{self.layout}, {', '.join(self.columns)}{state}>"
        )


def make_batch(
    core: _core.TrajectoryBatch,
    layout: Layout,
    *,
    pad_to: int,
    columns: Iterable[str] | None,
    dtypes: Mapping[str, Any],
    pad_values: Mapping[str, float],
    out: Mapping[str, Any],
    version: int,
    is_proven: bool,
    longest_served: int,
) -> TrajectoryBatch:
    """Makes the arrays of a batch that was just taken; if that fails the reader keeps its groups.

    ``is_proven``: the same request has succeeded before, so that a failure is the fault of a group.
    ``longest_served``: tokens of the longest sequence in any earlier batch. Raises Unserveable if
    one group is at fault.
    """
    try:
        wanted, left_out = ((), {}) if layout == "groups" else _wanted(core, columns)
        _check_names(dtypes, pad_values, out)
        batch = TrajectoryBatch(core, layout, {}, version)
        batch.left_out = left_out
        if layout == "padded":
            _pad(batch, core, wanted, pad_to, dtypes, pad_values, out)
        elif layout == "packed":
            _pack(batch, core, wanted, dtypes, out)
        else:
            _decode_groups(batch, core)
        return batch
    except Unserveable:
        raise
    except MemoryError as error:
        _blame_longest(core, longest_served, error)
        core.untake()
        raise
    except InvalidArgument as error:
        if is_proven:
            _blame_unfit(core, columns, dtypes, out, error)
        core.untake()
        raise
    except BaseException:
        core.untake()
        raise


def _group_at(core: _core.TrajectoryBatch, at: int) -> TrajectoryGroup:
    """A group that was checked when the batch was made. It still lies in shared memory, so a faulty
    peer may have written over it since."""
    try:
        return TrajectoryGroup.from_message(core.group(at))
    except (MemoryError, Error):
        raise
    except Exception as error:
        raise Corrupt(f"{core.title(at)} has changed since it was checked: {error!r}") from error


def _decode_groups(batch: TrajectoryBatch, core: _core.TrajectoryBatch) -> None:
    batch._groups = tuple(_decoded(core, at) for at in range(len(core)))


def _decoded(core: _core.TrajectoryBatch, at: int) -> TrajectoryGroup:
    try:
        return TrajectoryGroup.from_message(core.group(at))
    except (MemoryError, WrongProcess):  # this process's fault, and no group's
        raise
    except Exception as error:
        raise Unserveable(f"it can't be decoded: {error}", at) from error


def _blame_longest(core: _core.TrajectoryBatch, longest_served: int, error: MemoryError) -> None:
    """Blames a sequence that is longer than any before; otherwise memory is short and no group at
    fault."""
    lengths = [core.longest_of(at) for at in range(len(core))]
    longest = max(lengths)
    if longest > longest_served:
        why = f"no memory for a batch with a sequence of {longest} tokens"
        raise Unserveable(why, lengths.index(longest)) from error


def _blame_unfit(
    core: _core.TrajectoryBatch,
    columns: Iterable[str] | None,
    dtypes: Mapping[str, Any],
    out: Mapping[str, Any],
    error: InvalidArgument,
) -> None:
    for name in dict.fromkeys((*(columns or ()), *dtypes, *out)):
        for group in core.unfit(name, None):
            why = f"it has no column '{name}', or not as many values for a token as the others"
            raise Unserveable(why, group) from error
        if name not in out and name not in dtypes:
            continue
        dtype = native_name(out[name].dtype if name in out else dtypes[name])
        for group in core.unfit(name, dtype):
            raise Unserveable(f"its column '{name}' does not fit into {dtype}", group) from error


def _wanted(
    core: _core.TrajectoryBatch, columns: Iterable[str] | None
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The columns that become arrays, and the reasons why others don't."""
    if columns is not None:
        asked = tuple(columns)
        for name in asked:
            core.width(name)  # raises if a group lacks it, or it is unknown
        return asked, {}
    wanted: list[str] = []
    left_out: dict[str, str] = {}
    for name in _core.TRAJECTORY_COLUMNS:
        if not core.is_used(name):
            continue
        try:
            core.width(name)
        except InvalidArgument as error:
            left_out[name] = str(error)
        else:
            wanted.append(name)
    return tuple(wanted), left_out


def _check_names(*mappings: Mapping[str, Any]) -> None:
    for mapping in mappings:
        for name in mapping:
            if name not in _core.TRAJECTORY_COLUMNS:
                known = ", ".join(_core.TRAJECTORY_COLUMNS)
                raise InvalidArgument(f"there is no column '{name}'; a group may have {known}")


def _dtype(core: _core.TrajectoryBatch, name: str, dtypes: Mapping[str, Any]) -> np.dtype[Any]:
    if name in dtypes:
        return np.dtype(_dtype_name(name, dtypes[name]))
    stored = core.dtype(name)
    # float32 holds both, and NumPy has no bfloat16.
    return np.dtype("float32" if stored in ("float16", "bfloat16") else stored)


def _dtype_name(name: str, dtype: Any) -> str:
    known = native_name(dtype)
    if known not in _DTYPES:
        raise InvalidArgument(
            f"the array of column '{name}' can't be {known}: give int32, int64, float32 or float64"
        )
    return known


def _pad(
    batch: TrajectoryBatch,
    core: _core.TrajectoryBatch,
    wanted: Sequence[str],
    pad_to: int,
    dtypes: Mapping[str, Any],
    pad_values: Mapping[str, float],
    out: Mapping[str, Any],
) -> None:
    rows = core.sequences
    longest = -(-core.longest // pad_to) * pad_to
    _check_memory(rows * longest * sum(core.width(name) for name in wanted if name not in out))
    arrays: dict[str, Any] = {}
    for name in wanted:
        width = core.width(name)
        shape = (rows, longest) if width == 1 else (rows, longest, width)
        arrays[name] = _place_for(core, name, shape, dtypes, out)
    mask = np.empty((rows, longest), np.bool_)
    core.fill_padding_mask(mask.view(np.uint8), longest)
    core.fill_padded(
        [
            (name, array, float(pad_values.get(name, PAD_VALUES[name])))
            for name, array in arrays.items()
        ]
    )
    batch._arrays, batch.padding_mask = arrays, mask


def _check_memory(values: int) -> None:
    """Checked in advance: the system grants more memory than it has, and kills the process that
    uses it."""
    if values * _LEAST_ITEM > _MACHINE_BYTES:
        raise MemoryError(
            f"a padded batch of {values} values, and the machine has {_MACHINE_BYTES} bytes"
        )


def _pack(
    batch: TrajectoryBatch,
    core: _core.TrajectoryBatch,
    wanted: Sequence[str],
    dtypes: Mapping[str, Any],
    out: Mapping[str, Any],
) -> None:
    total = core.total
    if total > _MOST_PACKED:
        raise NoSpace(f"a packed batch of {total} tokens, and cu_seqlens counts to {_MOST_PACKED}")
    for name in wanted:
        width = core.width(name)
        shape: tuple[int, ...] = (total,) if width == 1 else (total, width)
        array = _place_for(core, name, shape, dtypes, out)
        core.fill_packed(name, array)
        batch._arrays[name] = array
    batch.position_ids = np.empty(total, np.int64)
    core.fill_positions(batch.position_ids)
    batch.cu_seqlens = np.empty(core.sequences + 1, np.int32)
    core.fill_cu_seqlens(batch.cu_seqlens)


def _place_for(
    core: _core.TrajectoryBatch,
    name: str,
    shape: tuple[int, ...],
    dtypes: Mapping[str, Any],
    out: Mapping[str, Any],
) -> Any:
    """The caller's array for a column, or one with memory of an earlier batch, whose pages are
    warm."""
    if name in out:
        if name in dtypes:
            _dtype_name(name, dtypes[name])  # has no effect, but must be a dtype
        return _part_of(name, out[name], shape)
    dtype = _dtype(core, name, dtypes)
    return np.ndarray(shape, dtype, buffer=_core.new_memory(math.prod(shape) * dtype.itemsize))


def _part_of(name: str, array: Any, shape: tuple[int, ...]) -> Any:
    """The part of a caller's array that the column takes."""
    if isinstance(array, np.ndarray):  # tensors have this machine's byte order
        _dtype_name(name, array.dtype)
    has = tuple(array.shape)
    if len(has) != len(shape) or any(map(operator.lt, has, shape)):
        raise TooLarge(
            f"the array for column '{name}' has the shape {has} and {shape} is needed; the batch "
            f"waits for a larger one"
        )
    return array[tuple(map(slice, shape))]
