"""A trainer's batches in Atropos' shape, straight from the queue."""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any, Final

from ... import _core, errors
from ...trajectories import TrajectoryBatch, TrajectoryReader
from .groups import group_to
from .names import SCHEME, segment_name

__all__ = ["BatchSource", "install_into", "open_reader"]

_POLL: Final = 1.0  # seconds; as Atropos' trainers sleep when there is no batch yet


class BatchSource:
    """The answer of ``GET /batch`` without a server: whole groups as dicts of lists.

    A batch counts as trained on when the next one is requested, or at ``close()``: until then it is
    redelivered, to this trainer or another one, if this process dies. Several trainers may share a
    queue. One thread at a time.
    """

    def __init__(self, reader: TrajectoryReader, starting_step: int = 0) -> None:
        self.reader = reader
        self._step = max(starting_step, reader.version)
        self._open: TrajectoryBatch | None = None

    @classmethod
    def open(
        cls,
        queue: str,
        *,
        sequences: int,
        max_tokens: int | None = None,
        starting_step: int = 0,
    ) -> BatchSource:
        """Attach to the queue of that name, which is created if it does not exist."""
        reader = open_reader(segment_name(queue), sequences=sequences, max_tokens=max_tokens)
        return cls(reader, starting_step)

    def get(self, timeout: float | None = 0) -> dict[str, Any]:
        """``{"batch": [group, ...]}``, or ``{"batch": None}`` if there is none within ``timeout``
        seconds; None waits for ever.

        Groups with more sequences than a batch become dead letters, and a RuntimeWarning says so.
        Raises Closed when the stream has ended and nothing is left.
        """
        self._done()
        try:
            batch = self.reader.next_batch(
                layout="groups", timeout=timeout, oversized="dead_letter"
            )
        except errors.Timeout:
            return {"batch": None}
        try:
            answer = {"batch": [group_to(group) for group in batch.groups]}
        except BaseException:  # also Ctrl-C: groups that were not returned were not trained on
            batch.nack()
            raise
        self._open = batch
        return answer

    def _done(self) -> None:
        batch, self._open = self._open, None
        if batch is not None:
            self._step += 1
            batch.ack(self._step)

    def close(self) -> None:
        """Leave; the last batch counts as trained on."""
        if not self.reader.closed:
            self._done()
        self.reader.close()


def open_reader(name: str, *, sequences: int, max_tokens: int | None) -> TrajectoryReader:
    """Attaches a trainer to the queue of that name, which is created if it does not exist.

    ``max_tokens`` of 0 and less means no bound, as in Atropos' trainers.
    """
    bound = max_tokens if max_tokens is not None and max_tokens > 0 else None
    try:
        return _attached(name, sequences, bound, 0)
    except errors.NotFound:
        pass
    try:
        return TrajectoryReader.create(name, sequences=sequences, max_tokens=bound)
    except errors.AlreadyExists:  # another process was faster
        return _attached(name, sequences, bound, 1)


def _attached(
    name: str, sequences: int, max_tokens: int | None, timeout: float
) -> TrajectoryReader:
    reader = TrajectoryReader.attach(
        name, sequences=sequences, max_tokens=max_tokens, timeout=timeout
    )
    if _core.inspect_trajectories(name)["ends_with"] == "creator":
        reader._reopen()  # a former trainer left and ended the stream; its environments may go on
    return reader


# --- Atropos' example trainer, whose address may be shm://QUEUE -----------------------------------

_sources: dict[str, BatchSource] = {}
_lock = threading.Lock()


def install_into(api: ModuleType) -> None:
    """Wraps the three functions of ``example_trainer.api``: addresses of queues go to this module,
    others to the original."""
    check, register, get = api.check_atropos_api, api.register_trainer, api.get_batch

    def check_atropos_api(url: str = "http://localhost:8000", timeout: float = 30.0) -> bool:
        return _is_ours(url) or bool(check(url, timeout))

    def register_trainer(config: Any) -> Any:
        if not _is_ours(config.atropos_url):
            return register(config)
        with _lock:
            if config.atropos_url in _sources:
                return None  # as a server does, whose queue exists from the first call on
            _sources[config.atropos_url] = BatchSource.open(
                config.atropos_url[len(SCHEME) :],
                sequences=config.batch_size * config.gradient_accumulation_steps,
                max_tokens=config.seq_len,
            )
        return None

    def get_batch(url: str = "http://localhost:8000") -> Any:
        if not _is_ours(url):
            return get(url)
        source = _sources.get(url)
        if source is None:
            raise RuntimeError(f"no trainer has registered at {url}: call register_trainer first")
        return source.get(_POLL)

    for ours in (check_atropos_api, register_trainer, get_batch):
        setattr(api, ours.__name__, ours)


def _is_ours(url: str) -> bool:
    return url.startswith(SCHEME)
