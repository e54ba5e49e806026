"""The work behind the routes: one reader, a writer for each environment, and the trainer's
numbers."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from .... import _core, errors
from ...._exit import close_at_exit
from ....handle import Handle, Owner
from ....queue import EndsWith
from ....trajectories import (
    EnvironmentStats,
    TrajectoryBatch,
    TrajectoryGroup,
    TrajectoryReader,
    TrajectoryStats,
    TrajectoryWriter,
)
from ....trajectories.backlog import Formed, backlog_of, queue_name
from .bodies import Json, encode, field, group_to_text
from .parts import Parts
from .words import Invalid

__all__ = ["Left", "NoRoom", "NotAccepted", "Service", "UnknownEnvironment", "drop_left", "left_in"]

_log = logging.getLogger("penstock.integrations.atropos.http")

# Weight of groups without an environment: beside named environments they get almost no credit,
# which they don't ask for.
_SMALL_WEIGHT = 1e-6
_LEAST_WEIGHT = 0.01  # least weight reported to a client, so that none starves
_LARGEST_GROUP = 65_536  # no batch is larger
_LONGEST_NAME = 1024  # characters in an environment's requested name
_MOST_ENVIRONMENTS = 100_000  # between two resets, including those that have left


class NotAccepted(Exception):
    """There is no room, or no trainer yet; a later attempt may succeed."""

    def __init__(self, sentence: str, accepted: int) -> None:
        super().__init__(sentence, accepted)  # both, so that it can be pickled
        self.accepted = accepted  #: groups of the list that were put before

    def __str__(self) -> str:
        return str(self.args[0])


class NoRoom(NotAccepted):
    """The queue is full, or other requests are putting: waiting may help."""


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
    name: str
    weight: float
    min_share: float
    group_size: int
    max_token_length: int
    writer: TrajectoryWriter | None  # None: it has left, or the queue had no slot for it
    is_connected: bool = True

    @property
    def load(self) -> float:
        """Tokens that it makes, compared with the others."""
        return self.max_token_length * max(0.0, self.weight)


@dataclass(frozen=True)
class Left:
    """Groups that an earlier run left in a queue."""

    groups: int = 0
    sequences: int = 0


class Service:
    """The state behind the routes. Any thread may call; calls that may wait are made in threads."""

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
        self._lock = threading.RLock()  # guards everything below
        self._reading = threading.Lock()  # a reader takes one thread at a time
        self._config: _Config | None = None
        self._reader: TrajectoryReader | None = None
        self._others: TrajectoryWriter | None = None  # of groups without a known environment
        self._founder: TrajectoryReader | None = None  # its close would end the stream
        self._environments: list[_Environment] = []  # by env_id; including those that have left
        self._names: dict[str, int] = {}
        self._parts = Parts()
        self._formed = Formed(0)
        self._max_token_len = -1
        self._latest: TrajectoryGroup | None = None
        self._started = False
        self._step = 0

    def close(self) -> None:
        """Leaves the queue. Its contents stay if others are attached, or it is not empty.

        The stream ends with that if the service has created the queue, unless it ends with its last
        producer and others live.
        """
        with self._lock:
            self._forget_environments()
            for one in (self._others, self._reader, self._founder):
                if one is not None:
                    one.close()
            self._reader = self._others = self._founder = None

    def _forget_environments(self) -> None:
        for environment in self._environments:
            if environment.writer is not None:
                environment.writer.close()
        self._environments.clear()
        self._names.clear()
        self._parts.clear()

    # --- the trainer ---------------------------------------------------------------------------

    def register(self, body: Json) -> Json:
        """The first call, and the first after a reset, sets the size of batches; later ones only
        get a number of their own."""
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
                reader = self._open_reader(self._sequences or config.batch_size)
                try:
                    # 0 or less: no bound, but a bound from before a reset is removed.
                    if config.max_token_len > 0 or self._founder is not None:
                        reader._limit_tokens(max(0, config.max_token_len))
                    self._others = self._others or TrajectoryWriter.attach(
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
                self._formed = Formed(reader.stats().batches)
                self._max_token_len = config.max_token_len
                self._step = config.starting_step
        return {"uuid": uuid.uuid4().int}

    def _open_reader(self, sequences: int) -> TrajectoryReader:
        def attach(timeout: float) -> TrajectoryReader:
            reader = TrajectoryReader.attach(
                self._queue, sequences=sequences, timeout=timeout, owner=self._owner
            )
            reader._reopen()  # a server that shut down cleanly has ended the stream
            return reader

        try:
            return attach(0)
        except errors.NotFound:
            pass
        try:
            return TrajectoryReader.create(
                self._queue,
                sequences=sequences,
                ends_with=self._ends_with,
                owner=self._owner,
            )
        except errors.AlreadyExists:  # another process was faster
            return attach(1)

    def batch(self) -> bytes:
        """The answer as JSON text; groups are taken from the queue only if they can be written as
        JSON.

        A group for which that fails becomes a dead letter, which is logged, and the rest is
        answered.
        """
        with self._reading:
            with self._lock:
                reader = self._reader
                self._started = self._started or reader is not None
            if reader is None:
                return encode({"status": "error", "message": _NOT_REGISTERED, "batch": []})
            while True:
                try:
                    batch = reader.next_batch(layout="groups", timeout=0, oversized="dead_letter")
                except errors.Timeout:
                    return encode({"batch": None})
                except errors.Corrupt as error:  # a group, which is a dead letter now
                    _log.warning("%s", error)
                    continue
                answer = self._answer_of(batch)
                if answer is not None:
                    return answer

    def _answer_of(self, batch: TrajectoryBatch) -> bytes | None:
        """None: one of its groups became a dead letter, and the rest were returned."""
        texts: list[bytes] = []
        try:
            texts.extend(group_to_text(group) for group in batch.groups)
        except MemoryError:  # no fault of the group
            batch.nack()
            raise
        except Exception as error:
            bad = batch.groups[len(texts)]
            _log.warning("%s was set aside: JSON can't say it: %s", bad.title, error)
            batch.dead_letter(len(texts))
            return None
        with self._lock:
            batch.ack(self._step + 1)
            self._step += 1
            for group in batch.groups:
                if group.env_id is not None:
                    self._parts.take(group.env_id, len(group))
            self._beyond_formed()
        return b'{"batch":[' + b",".join(texts) + b"]}"

    def reset(self) -> int:
        """Drops the waiting groups, and forgets what trainer and environments have registered: the
        next one registers anew. Returns how many groups that were. Other processes stay attached to
        the queue."""
        with self._reading, self._lock:
            reader = self._reader
            if reader is None:
                return 0
            dropped = reader.drop_waiting()
            self._forget_environments()
            if self._founder is None:
                self._founder = reader
            else:
                reader.close()
            self._reader = self._config = None
            self._started = False
            self._step = 0
            return dropped

    # --- environments --------------------------------------------------------------------------

    def register_environment(self, body: Json) -> Json:
        """Gives an environment its own writer, once the trainer has asked for its first batch."""
        desired = field(body, "desired_name", str)
        if len(desired) > _LONGEST_NAME:
            raise Invalid(
                f"the field 'desired_name' has {len(desired)} characters: give {_LONGEST_NAME} or "
                "fewer"
            )
        environment = _Environment(
            name="",
            weight=field(body, "weight", float),
            min_share=field(body, "min_batch_allocation", float, 0.0),
            group_size=field(body, "group_size", int),
            max_token_length=field(body, "max_token_length", int),
            writer=None,
        )
        with self._lock:
            if not self._started or self._config is None:
                return {"status": "wait for trainer to start"}
            if len(self._environments) >= _MOST_ENVIRONMENTS:
                raise NotAccepted("too many environments have registered since the last reset", 0)
            number = self._names.get(desired, 0)
            environment.name = f"{desired}_{number}"
            environment.writer = self._writer_for(environment)
            self._names[desired] = number + 1
            self._environments.append(environment)
            return {
                "status": "success",
                "env_id": len(self._environments) - 1,
                "wandb_name": environment.name,
                "checkpoint_dir": self._config.checkpoint_dir,
                "starting_step": self._step,
                "checkpoint_interval": self._config.save_checkpoint_interval,
                "num_steps": self._config.num_steps,
            }

    def _writer_for(self, environment: _Environment) -> TrajectoryWriter | None:
        """Attaches the environment as a writer, with numbers that the queue accepts.

        In Atropos a weight of 0 or less means that its groups are not for training, and a share
        beyond 1 that it wants the whole batch.
        """
        weight = environment.weight if 0 < environment.weight < math.inf else _SMALL_WEIGHT
        min_share = environment.min_share if environment.min_share > 0 else 0.0
        try:
            writer = TrajectoryWriter(
                self._queue,
                instance="" if self._reader is None else self._reader.handle.instance,
                options=None,
                environment=queue_name(environment.name),
                weight=weight,
                min_share=min(min_share, 1.0),
                group_size=min(max(environment.group_size, 1), _LARGEST_GROUP),
                env_id=None,
                timeout=0,
                owner=self._owner,
                scales_shares=True,
            )
        except (errors.Busy, errors.NoSpace) as error:
            _log.warning("%s has no place of its own on the queue: %s", environment.name, error)
            return None
        close_at_exit(writer)
        return writer

    def disconnect_environment(self, body: Json) -> Json:
        """Detaches the environment. Its groups stay; calling it twice is no error."""
        env_id = field(body, "env_id", int)
        with self._lock:
            environment = self._known(env_id)
            if environment is None:
                return {"status": "failure", "error": f"no environment has the env_id {env_id}"}
            if environment.writer is not None:
                environment.writer.close()
            environment.writer = None
            environment.is_connected = False
        return {"status": "success"}

    def _known(self, env_id: int | None) -> _Environment | None:
        if env_id is None or not 0 <= env_id < len(self._environments):
            return None
        return self._environments[env_id]

    def put(self, groups: Sequence[TrajectoryGroup], end: float, done: list[int | None]) -> None:
        """Puts all groups, each whole, until the monotonic time ``end``.

        ``done`` gets one item for each group put: None, or for a group smaller than its
        environment's groups how many sequences then wait for a whole one. Groups that it covers
        already are not put again. Raises NotAccepted, and NoRoom if a later call may succeed;
        groups that were put stay put.
        """
        for group in groups[len(done) :]:
            self._put_one(group, len(done), end)
            self._latest = group
            with self._lock:
                done.append(self._waiting_with(group))

    def _waiting_with(self, group: TrajectoryGroup) -> int | None:
        environment = self._known(group.env_id)
        if environment is None or len(group) == environment.group_size:
            return None
        assert group.env_id is not None
        return self._parts.add(group.env_id, len(group), max(environment.group_size, 0))

    def _put_one(self, group: TrajectoryGroup, accepted: int, end: float) -> None:
        writer = self._writer_of(group.env_id, accepted)
        while not _has_put(writer, group, accepted, end):
            before, writer = writer, self._writer_of(group.env_id, accepted)
            if writer is before:  # and was not attached again, or left, meanwhile
                raise NotAccepted("the stream has ended", accepted)

    def _writer_of(self, env_id: int | None, accepted: int) -> TrajectoryWriter:
        with self._lock:
            environment = self._known(env_id)
            own = None if environment is None else environment.writer
            writer = own or self._others
            if writer is None or self._reader is None:
                raise NotAccepted(_NOT_REGISTERED, accepted)
            return writer

    # --- how things stand ----------------------------------------------------------------------

    def status(self) -> Json:
        stats = self._stats()
        return {"current_step": self._step, "queue_size": _groups_of(stats)}

    def status_of(self, env_id: int) -> Json:
        """What an environment needs to know to produce as much as is wanted of it.

        ``queue_size`` counts in its own groups its own waiting groups and, of other environments',
        those beyond their minimum shares, as if they came in groups of the largest size. As in
        Atropos, batches that could be made when one is asked for don't count as waiting: see
        ``Formed``.
        """
        with self._lock:
            asking = self._known(env_id)
            if asking is None:
                raise UnknownEnvironment(f"no environment has the env_id {env_id}")
            connected = [one for one in self._environments if one.is_connected]
            backlog = backlog_of(
                self._beyond_formed(), queue_name(asking.name), self._batch_size(0)
            )
            asking.group_size = max(asking.group_size, 1, backlog.own_largest)
            load = sum(one.load for one in connected)
            part = asking.max_token_length * asking.weight / load if load > 0 else 0.0
            return {
                "current_step": self._step,
                "queue_size": (backlog.own + backlog.beyond) // asking.group_size,
                "unallocated_fraction": 1.0 - min(sum(one.min_share for one in connected), 1.0),
                "self_queue_size": backlog.own // asking.group_size,
                "max_group_size": backlog.largest,
                "env_weight": max(_LEAST_WEIGHT, part),
            }

    def _beyond_formed(self) -> list[EnvironmentStats]:
        stats = self._stats()
        return [] if stats is None else self._formed.beyond(stats, self._batch_size(0))

    def _batch_size(self, unknown: int) -> int:
        return unknown if self._config is None else self._config.batch_size

    def _stats(self) -> TrajectoryStats | None:
        writer = self._others
        try:
            return None if writer is None else writer.stats()  # reads every slot of the queue
        except errors.Closed:
            return None

    def info(self) -> Json:
        return {"batch_size": self._batch_size(-1), "max_token_len": self._max_token_len}

    def handle(self) -> Handle | None:
        """The handle of the queue, for processes that use it without HTTP; None before
        /register."""
        with self._lock:
            return None if self._reader is None else self._reader.handle

    def wandb_info(self) -> Json:
        config = self._config
        if config is None:
            return {"group": None, "project": None}
        return {"group": config.wandb_group, "project": config.wandb_project}

    def latest_example(self) -> bytes:
        """The latest example as JSON text."""
        latest = self._latest
        return encode(_NO_EXAMPLE) if latest is None else group_to_text(latest)


_NO_EXAMPLE: Json = {
    name: []
    for name in (
        *("tokens", "masks", "scores", "advantages", "ref_logprobs", "generation_params"),
        *("inference_logprobs", "messages", "images"),
    )
}
_NOT_REGISTERED = "no trainer has registered yet"


def _check_queue(name: str) -> None:
    """Called before any registration: checks that the name is valid, and free or a queue of
    trajectories."""
    _core.check_name(name)
    with contextlib.suppress(errors.NotFound):
        _core.inspect_trajectories(name)


def left_in(queue: str) -> Left:
    """The waiting groups in the queue of that name, if it exists. Raises Incompatible."""
    try:
        info = _core.inspect_trajectories(queue)
    except errors.NotFound:
        return Left()
    environments = info["trajectories"].environments
    return Left(
        sum(one.waiting_groups for one in environments),
        sum(one.waiting_sequences for one in environments),
    )


def drop_left(queue: str, owner: Owner | None = None) -> int:
    """Drops the waiting groups of the queue, if it exists, and its dead letters. Returns how many
    groups that were."""
    try:
        sequences = _core.inspect_trajectories(queue)["trajectories"].batch_sequences or 1
        with TrajectoryReader.attach(queue, sequences=sequences, owner=owner) as reader:
            return reader.drop_waiting() + reader.drop_dead_letters()
    except errors.NotFound:
        return 0


def _groups_of(stats: TrajectoryStats | None) -> int:
    return 0 if stats is None else sum(one.waiting_groups for one in stats.environments)


def _has_put(writer: TrajectoryWriter, group: TrajectoryGroup, accepted: int, end: float) -> bool:
    """False if the writer was closed, or the stream has ended."""
    try:
        writer.put(group, max(0.0, end - time.monotonic()))
    except errors.Closed:
        return False
    except errors.Timeout as error:
        raise NoRoom(str(error), accepted) from None
    return True
