"""What the routes do: one reader, a writer for each environment, and the trainer's numbers."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from .. import _core, errors
from ..handle import Handle, Owner
from ..queue import EndsWith
from ..trajectories import (
    TrajectoryBatch,
    TrajectoryGroup,
    TrajectoryReader,
    TrajectoryStats,
    TrajectoryWriter,
)
from .bodies import Json, encode, field, group_to_json
from .words import Invalid

__all__ = ["NotAccepted", "Service", "UnknownEnvironment"]

_log = logging.getLogger("penstock.http")

# Beside the environments that have a name, those without one get next to nothing of what may be
# begun: they don't ask for credit.
_SMALL_WEIGHT = 1e-6


class NotAccepted(Exception):
    """There is no room, or no trainer yet: later, perhaps."""

    def __init__(self, sentence: str, accepted: int) -> None:
        super().__init__(sentence, accepted)  # both, or it could not be pickled
        self.accepted = accepted  #: groups of the list that went in before

    def __str__(self) -> str:
        return str(self.args[0])


class UnknownEnvironment(LookupError):
    """No environment that is connected has this env_id."""


@dataclass(frozen=True)
class _Config:
    wandb_group: str
    wandb_project: str
    batch_size: int
    max_token_len: int
    checkpoint_dir: str
    save_checkpoint_interval: int
    starting_step: int
    num_steps: int


@dataclass
class _Environment:
    writer: TrajectoryWriter
    name: str
    weight: float
    min_share: float
    group_size: int
    max_token_length: int


class Service:
    """The state behind the routes. Any thread may call; what may wait is called in threads."""

    def __init__(
        self,
        queue: str,
        sequences: int | None,
        ends_with: EndsWith = "creator",
        owner: Owner | None = None,
    ) -> None:
        _check_queue(queue)
        _core.check_owner(owner)
        self._owner = owner
        self._queue = queue
        self._sequences = sequences
        self._ends_with: EndsWith = ends_with
        self._lock = threading.RLock()  # of all below
        self._reading = threading.Lock()  # a reader takes one thread at a time
        self._config: _Config | None = None
        self._reader: TrajectoryReader | None = None
        self._others: TrajectoryWriter | None = None  # of groups from nobody known
        self._environments: dict[int, _Environment] = {}
        self._names: dict[str, int] = {}
        self._latest: TrajectoryGroup | None = None
        self._started = False
        self._step = 0

    def close(self) -> None:
        """Leaves the queue. What is in it stays if others are there, or it is not empty.

        The stream ends by that if the service has created the queue, unless it ends with its last
        producer and others live.
        """
        with self._lock:
            for environment in self._environments.values():
                environment.writer.close()
            self._environments.clear()
            if self._others is not None:
                self._others.close()
            if self._reader is not None:
                self._reader.close()
            self._reader = self._others = None

    # --- the trainer ---------------------------------------------------------------------------

    def register(self, body: Json) -> Json:
        """The first call makes the reader; later ones only get a number of their own."""
        config = _Config(
            wandb_group=field(body, "wandb_group", str),
            wandb_project=field(body, "wandb_project", str),
            batch_size=field(body, "batch_size", int),
            max_token_len=field(body, "max_token_len", int),
            checkpoint_dir=field(body, "checkpoint_dir", str),
            save_checkpoint_interval=field(body, "save_checkpoint_interval", int),
            starting_step=field(body, "starting_step", int),
            num_steps=field(body, "num_steps", int),
        )
        if config.batch_size < 1:
            raise Invalid(f"the field 'batch_size' is {config.batch_size}: give 1 or more")
        if config.starting_step < 0:
            raise Invalid(f"the field 'starting_step' is {config.starting_step}: give 0 or more")
        with self._lock:
            if self._reader is None:
                # None: a trainer that says 0 or less has no bound.
                max_tokens = max(0, config.max_token_len) or None
                reader = self._open_reader(self._sequences or config.batch_size, max_tokens)
                try:
                    self._others = TrajectoryWriter.attach(
                        reader.handle,
                        environment="http",
                        weight=_SMALL_WEIGHT,
                        owner=self._owner,
                    )
                except BaseException:
                    reader.close()
                    raise
                self._reader = reader
                self._config = config
                self._step = config.starting_step
        return {"uuid": uuid.uuid4().int}

    def _open_reader(self, sequences: int, max_tokens: int | None) -> TrajectoryReader:
        def attach(timeout: float) -> TrajectoryReader:
            return TrajectoryReader.attach(
                self._queue,
                sequences=sequences,
                max_tokens=max_tokens,
                timeout=timeout,
                owner=self._owner,
            )

        try:
            return attach(0)
        except errors.NotFound:
            pass
        try:
            return TrajectoryReader.create(
                self._queue,
                sequences=sequences,
                max_tokens=max_tokens,
                ends_with=self._ends_with,
                owner=self._owner,
            )
        except errors.AlreadyExists:  # another process was faster
            return attach(1)

    def batch(self) -> bytes:
        """The answer as JSON text: only what could be written down is taken from the queue.

        A group that no answer can be made of becomes a dead letter, the log says which, and the
        others come.
        """
        with self._reading:
            with self._lock:
                reader = self._reader
                self._started = self._started or reader is not None
            if reader is None:
                return encode({"status": "error", "message": _NOT_REGISTERED, "batch": []})
            while True:
                try:
                    batch = reader.next_batch(layout="groups", timeout=0, oversized="set_aside")
                except errors.Timeout:
                    return encode({"batch": None})
                except errors.Corrupt as error:  # a group, and it was set aside
                    _log.warning("%s", error)
                    continue
                answer = self._answer_of(batch)
                if answer is not None:
                    return answer

    def _answer_of(self, batch: TrajectoryBatch) -> bytes | None:
        """None: one of its groups was set aside, and the others went back."""
        texts: list[bytes] = []
        try:
            texts.extend(encode(group_to_json(group)) for group in batch.groups)
        except MemoryError:  # is no group's fault
            batch.give_back()
            raise
        except Exception as error:
            bad = batch.groups[len(texts)]
            _log.warning("%s was set aside: JSON can't say it: %s", bad.title, error)
            batch.set_aside(len(texts))
            return None
        with self._lock:
            batch.ack(self._step + 1)
            self._step += 1
        return b'{"batch":[' + b",".join(texts) + b"]}"

    def reset(self) -> int:
        """Throws away what waits now, and goes on. How many groups that were."""
        with self._reading:
            reader = self._reader
            return 0 if reader is None else reader.drop_waiting()

    # --- environments --------------------------------------------------------------------------

    def register_environment(self, body: Json) -> Json:
        """A writer of its own, once the trainer has asked for its first batch."""
        desired = field(body, "desired_name", str)
        weight = field(body, "weight", float)
        group_size = field(body, "group_size", int)
        max_token_length = field(body, "max_token_length", int)
        min_share = field(body, "min_batch_allocation", float, 0.0)
        with self._lock:
            if not self._started or self._config is None:
                return {"status": "wait for trainer to start"}
            number = self._names.get(desired, 0)
            name = f"{desired}_{number}"
            writer = TrajectoryWriter.attach(
                self._queue,
                environment=name,
                weight=weight,
                min_share=min_share,
                group_size=group_size,
                owner=self._owner,
            )
            self._names[desired] = number + 1
            self._environments[writer.env_id] = _Environment(
                writer, name, weight, min_share, group_size, max_token_length
            )
            return {
                "status": "success",
                "env_id": writer.env_id,
                "wandb_name": name,
                "checkpoint_dir": self._config.checkpoint_dir,
                "starting_step": self._step,
                "checkpoint_interval": self._config.save_checkpoint_interval,
                "num_steps": self._config.num_steps,
            }

    def disconnect_environment(self, body: Json) -> Json:
        env_id = field(body, "env_id", int)
        with self._lock:
            environment = self._environments.pop(env_id, None)
            if environment is None:
                return {"status": "failure", "error": f"no environment has the env_id {env_id}"}
            environment.writer.close()
        return {"status": "success"}

    def put(self, groups: Sequence[TrajectoryGroup], end: float) -> None:
        """All of them, each whole, until the monotonic time ``end``.

        Raises NotAccepted, which says how many went in; those stay in.
        """
        for accepted, group in enumerate(groups):
            self._put_one(group, accepted, end)
            self._latest = group

    def _put_one(self, group: TrajectoryGroup, accepted: int, end: float) -> None:
        writer = self._writer_of(group.env_id, accepted)
        while not _has_put(writer, group, accepted, end):
            before, writer = writer, self._writer_of(group.env_id, accepted)
            if writer is before:  # and not attached again, or gone, meanwhile
                raise NotAccepted("the stream has ended", accepted)

    def _writer_of(self, env_id: int | None, accepted: int) -> TrajectoryWriter:
        with self._lock:
            environment = None if env_id is None else self._environments.get(env_id)
            writer = self._others if environment is None else environment.writer
            if writer is None:
                raise NotAccepted(_NOT_REGISTERED, accepted)
            return writer

    # --- how things stand ----------------------------------------------------------------------

    def status(self) -> Json:
        stats = self._stats()
        return {"current_step": self._step, "queue_size": _groups_of(stats)}

    def status_of(self, env_id: int) -> Json:
        with self._lock:
            environment = self._environments.get(env_id)
            if environment is None:
                raise UnknownEnvironment(f"no environment has the env_id {env_id}")
            connected = list(self._environments.values())
        stats = self._stats()
        own = [one for one in stats.environments if one.name == environment.name] if stats else []
        load = sum(one.max_token_length * max(0.0, one.weight) for one in connected)
        part = environment.max_token_length * environment.weight / load if load > 0 else 0.0
        return {
            "current_step": self._step,
            "queue_size": _groups_of(stats),
            "unallocated_fraction": max(0.0, 1.0 - sum(one.min_share for one in connected)),
            "self_queue_size": sum(one.waiting_groups for one in own),
            "max_group_size": max(one.group_size for one in connected),
            "env_weight": max(0.01, part),
        }

    def _stats(self) -> TrajectoryStats | None:
        writer = self._others
        try:
            return None if writer is None else writer.stats()  # goes through the whole queue
        except errors.Closed:
            return None

    def info(self) -> Json:
        config = self._config
        if config is None:
            return {"batch_size": -1, "max_token_len": -1}
        return {"batch_size": config.batch_size, "max_token_len": config.max_token_len}

    def handle(self) -> Handle | None:
        """Of the queue, for those that take part in it without HTTP; None before /register."""
        with self._lock:
            return None if self._reader is None else self._reader.handle

    def wandb_info(self) -> Json:
        config = self._config
        if config is None:
            return {"group": None, "project": None}
        return {"group": config.wandb_group, "project": config.wandb_project}

    def latest_example(self) -> Json:
        latest = self._latest
        if latest is None:
            return {"tokens": [], "masks": [], "scores": []}
        return group_to_json(latest)


_NOT_REGISTERED = "no trainer has registered yet"


def _check_queue(name: str) -> None:
    """Before anybody registers: what it is called, and that it is none or a queue of ours."""
    _core.check_name(name)
    with contextlib.suppress(errors.NotFound):
        _core.inspect_trajectories(name)


def _groups_of(stats: TrajectoryStats | None) -> int:
    return 0 if stats is None else sum(one.waiting_groups for one in stats.environments)


def _has_put(writer: TrajectoryWriter, group: TrajectoryGroup, accepted: int, end: float) -> bool:
    """False if the writer was closed, or the stream has ended."""
    try:
        writer.put(group, max(0.0, end - time.monotonic()))
    except errors.Closed:
        return False
    except errors.Timeout as error:
        raise NotAccepted(str(error), accepted) from None
    return True
