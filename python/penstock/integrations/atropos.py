"""The trajectory ring of the Atropos environments under its old interface, over a Queue.

Programs that used ``ZeroCopySHMBuffer`` change the import. What differs is what was wrong: any
number of producers and consumers, nothing torn or cut, metadata of any size, a living segment is
never replaced, and who attaches with another geometry is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .. import _core
from .._exit import close_at_exit
from ..errors import Closed, Incompatible, InvalidArgument, Timeout, TooLarge

__all__ = ["ZeroCopySHMBuffer"]

_LETTERS: Final = int.from_bytes(b"AT", "little")
_MOST_SIZE: Final = (1 << 20) - 1
_MOST_ENTRY: Final = (1 << 28) - 1
_MOST_BYTES: Final = 1 << 36  # address range; memory is reserved when trajectories first need it
_ROOM_FOR_METADATA: Final = 64 << 10


class ZeroCopySHMBuffer:
    """A bounded queue of single trajectories, of up to ``entry_size`` tokens each.

    ``create=True`` makes it, for ``size`` trajectories (rounded up to a power of two), and raises
    AlreadyExists while somebody alive has that name. Otherwise it attaches, and raises NotFound, or
    Incompatible for another ``size`` or ``entry_size``. ``instance_id_len`` bounds an instance id,
    in bytes; ``metadata_len`` bounds nothing any more.
    """

    def __init__(
        self,
        name: str,
        size: int = 1000,
        entry_size: int = 4096,
        instance_id_len: int = 64,
        metadata_len: int = 256,
        create: bool = False,
    ) -> None:
        if not (1 <= size <= _MOST_SIZE and 1 <= entry_size <= _MOST_ENTRY):
            raise InvalidArgument(
                f"size is {size} and entry_size {entry_size}: give 1 to {_MOST_SIZE} and "
                f"1 to {_MOST_ENTRY}"
            )
        self.name = name
        self.max_size = size
        self.entry_size = entry_size
        self.instance_id_len = instance_id_len
        self.metadata_len = metadata_len
        geometry = _LETTERS | size << 16 | entry_size << 36
        self._queue = (
            _create(name, size, entry_size, geometry) if create else _attach(self, geometry)
        )
        # A queue ends when its last producer leaves, and the ring never did before its creator: so
        # the creator counts as one, whether it writes or not.
        self._keeper = _attach(self, geometry, role="producer") if create else None
        close_at_exit(self)

    def write_trajectory(
        self,
        tokens: Sequence[int] | npt.NDArray[np.integer[Any]],
        score: float,
        instance_id: str = "",
        repetition_id: int = 0,
        metadata: dict[str, Any] | None = None,
    ) -> bool:
        """Queue a trajectory; False if the queue is full, and then it was not queued.

        Raises TooLarge for more than ``entry_size`` tokens or too long an ``instance_id``, Closed
        when the creator has closed it, UnsupportedType for metadata that the codec does not know.
        """
        array = _tokens_of(tokens)
        if len(array) > self.entry_size:
            raise TooLarge(
                f"a trajectory of {len(array)} tokens, and '{self.name}' takes up to "
                f"{self.entry_size}; nothing was written"
            )
        if len(instance_id.encode()) > self.instance_id_len:
            raise TooLarge(
                f"instance_id has {len(instance_id.encode())} bytes, and up to "
                f"{self.instance_id_len} were agreed on; nothing was written"
            )
        message = {
            "tokens": array,
            "score": float(score),
            "instance_id": instance_id,
            "repetition_id": int(repetition_id),
            "metadata": metadata or {},
        }
        try:
            self._queue.put(message, 0)
        except Timeout:
            return False
        return True

    def read_next(self) -> dict[str, Any] | None:
        """The next trajectory, as ``tokens`` (a list), ``score``, ``instance_id``,
        ``repetition_id`` and ``metadata``; None if there is none now, or none will come."""
        try:
            message: dict[str, Any] = self._queue.get(0)
        except (Timeout, Closed):
            return None
        message["tokens"] = message["tokens"].tolist()
        return message

    def close(self, unlink: bool = False) -> None:
        """Leave. With ``unlink`` what is queued is thrown away, unless others are attached."""
        if self._queue.closed:
            return
        if unlink and self._is_alone():
            self._queue.discard()
        if self._keeper is not None:
            self._keeper.close()
        self._queue.close()

    def _is_alone(self) -> bool:
        own = 1 if self._keeper is None else 2
        participants = _core.inspect_segment(self.name)["participants"]
        return sum(bool(participant["alive"]) for participant in participants) <= own

    def __len__(self) -> int:
        """Trajectories that wait."""
        return len(self._queue)

    def __repr__(self) -> str:
        return f"<ZeroCopySHMBuffer '{self.name}', {self.max_size} x {self.entry_size} tokens>"


def _create(name: str, size: int, entry_size: int, geometry: int) -> _core.Queue:
    return _core.Queue(
        name,
        capacity=min(size * (entry_size * 8 + _ROOM_FOR_METADATA), _MOST_BYTES),
        slots=size,
        inline_bytes=256,
        members=256,
        poison_limit=0,
        codec=None,
        populate=False,
        lock_memory=False,
        application=geometry,
    )


def _attach(buffer: ZeroCopySHMBuffer, geometry: int, role: str = "any") -> _core.Queue:
    try:
        return _core.Queue(
            buffer.name, instance="", role=role, codec=None, timeout=0, application=geometry
        )
    except Incompatible as error:
        raise Incompatible(
            f"'{buffer.name}' is not a trajectory buffer of size {buffer.max_size} and entry_size "
            f"{buffer.entry_size}: attach with the numbers that it was created with ({error})"
        ) from None


def _tokens_of(tokens: Any) -> npt.NDArray[np.integer[Any]]:
    """int32 where the ids fit, int64 else."""
    array = np.asarray(tokens)
    if array.size == 0:
        return np.empty(0, np.int32)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InvalidArgument(
            f"tokens are {array.dtype} in {array.ndim} dimensions: give a list of ints"
        )
    limits = np.iinfo(np.int32)
    fits = array.min() >= limits.min and array.max() <= limits.max
    return array.astype(np.int32 if fits else np.int64, copy=False)
