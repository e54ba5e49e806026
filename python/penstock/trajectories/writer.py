"""TrajectoryWriter: an environment as participant of a queue of trajectories."""

from __future__ import annotations

from typing import Any

from .. import _core
from .._exit import close_at_exit
from .._replaced import warn_of_replaced
from .._repr import describe, never_raises
from .._threads import Countdown, attach_when_there, take_in_thread, try_until_done
from ..errors import InvalidArgument, Timeout
from ..handle import Handle, Name, Owner, Waiting, handle_of
from ..queue import EndsWith
from .group import TrajectoryGroup
from .options import Size, queue_options

__all__ = ["Rollout", "TrajectoryWriter"]


class Rollout:
    """Credit for one group, taken before the work begins; made by ``TrajectoryWriter.begin()``.

    ``put()`` hands it over to the group. As a context manager it returns the credit at the end if
    nothing was put; so does the death of the process.
    """

    __slots__ = ("_core", "_writer")

    def __init__(self, writer: TrajectoryWriter, core: _core.Rollout) -> None:
        self._writer = writer
        self._core = core

    @property
    def version(self) -> int:
        """The policy's version when the rollout began."""
        return self._core.version

    def put(self, group: TrajectoryGroup, timeout: float | None = None) -> None:
        """Put the resulting group. Raises what ``TrajectoryWriter.put`` raises."""
        self._writer._put_group(group, self._core, self.version, timeout)

    async def put_async(self, group: TrajectoryGroup, timeout: float | None = None) -> None:
        """``put`` for tasks. A task that is cancelled has put nothing, and keeps its credit."""
        await self._writer._put_group_async(group, self._core, self.version, Countdown(timeout))

    def release(self) -> None:
        """Return the credit without a group: another rollout may begin."""
        self._core.release()

    def __enter__(self) -> Rollout:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @never_raises
    def __repr__(self) -> str:
        return f"<penstock.Rollout of '{self._writer.environment}', version {self.version}>"


class TrajectoryWriter(_core.TrajectoryWriter):
    """One environment, or one of several processes that form the same environment.

    Any thread may use it: threads that wait for credit don't hold up those that put. It belongs to
    its process: in a forked child attach anew. ``close()`` ends the stream only for its creator, or
    for the last environment if the queue was created so.
    """

    __slots__ = ()

    @staticmethod
    def create(
        name: Name,
        *,
        environment: str = "default",
        weight: float = 1.0,
        min_share: float = 0.0,
        group_size: int = 1,
        env_id: int | None = None,
        max_staleness: int | None = None,
        capacity: Size = "256MiB",
        slots: int = 4096,
        participants: int = 256,
        max_deliveries: int = 0,
        ends_with: EndsWith = "creator",
        populate: bool = False,
        lock_memory: bool = False,
        huge_pages: bool = False,
        waiting: Waiting = "balanced",
        owner: Owner | None = None,
    ) -> TrajectoryWriter:
        """Create the queue, before the trainer attaches; see ``TrajectoryReader.create``."""
        writer = TrajectoryWriter(
            name,
            instance="",
            options=queue_options(
                capacity,
                slots,
                participants,
                max_deliveries,
                max_staleness,
                populate,
                lock_memory,
                huge_pages,
                ends_with,
                waiting,
            ),
            environment=environment,
            weight=weight,
            min_share=min_share,
            group_size=group_size,
            env_id=env_id,
            timeout=0,
            owner=owner,
        )
        close_at_exit(writer)
        warn_of_replaced(writer.name, writer._replaced)
        return writer

    @staticmethod
    def attach(
        name: Name | Handle,
        *,
        environment: str = "default",
        weight: float = 1.0,
        min_share: float = 0.0,
        group_size: int = 1,
        env_id: int | None = None,
        timeout: float | None = 0,
        owner: Owner | None = None,
    ) -> TrajectoryWriter:
        """Attach as an environment; waits until ``timeout`` for the name to appear.

        Credit is divided among the living environments by ``weight``, and each batch has at least
        ``min_share`` (0 to 1, rounded down to whole sequences) of this one as long as it lives.
        ``group_size`` is the number of sequences that one rollout is expected to make; groups may
        differ from it. Another user's queue is refused at once, by PermissionDenied, unless
        ``owner`` names that user.

        Raises InvalidArgument, also if all minimum shares add up to more than 1; NotFound, Busy,
        Incompatible (not a queue of trajectories), Corrupt or PermissionDenied.
        """
        handle = handle_of(name)
        writer = TrajectoryWriter(
            handle.name,
            instance=handle.instance,
            options=None,
            environment=environment,
            weight=weight,
            min_share=min_share,
            group_size=group_size,
            env_id=env_id,
            timeout=timeout,
            owner=owner,
        )
        close_at_exit(writer)
        return writer

    @staticmethod
    async def attach_async(
        name: Name | Handle,
        *,
        environment: str = "default",
        weight: float = 1.0,
        min_share: float = 0.0,
        group_size: int = 1,
        env_id: int | None = None,
        timeout: float | None = 0,
        owner: Owner | None = None,
    ) -> TrajectoryWriter:
        """``attach`` for tasks. A task that is cancelled has attached to nothing."""
        return await attach_when_there(
            "queue",
            name,
            lambda: TrajectoryWriter.attach(
                name,
                environment=environment,
                weight=weight,
                min_share=min_share,
                group_size=group_size,
                env_id=env_id,
                owner=owner,
            ),
            Countdown(timeout),
            owner,
        )

    @property
    def handle(self) -> Handle:
        """A handle with which another process attaches; can be pickled."""
        return Handle(self.name, self._instance)

    def begin(self, timeout: float | None = None) -> Rollout:
        """Wait for credit for one group of ``group_size``, and take it.

        ``timeout`` is in seconds: None waits for ever, 0 tries once.

        Raises Timeout (work in progress uses up the credit, or no trainer has attached yet) or
        Closed.
        """
        return Rollout(self, self._begin(timeout))

    def put(self, group: TrajectoryGroup, timeout: float | None = None) -> None:
        """Put a group, whole or not at all, without credit.

        Waits for room, for ``timeout`` seconds at most.

        Raises Timeout (full), Closed, TooLarge (more bytes than the queue has, or more sequences
        than the trainer's batch), InvalidArgument, UnsupportedType: then nothing was put.
        """
        self._put_group(group, None, _oldest(group, self.version), timeout)

    def _put_group(
        self,
        group: TrajectoryGroup,
        rollout: _core.Rollout | None,
        begun: int,
        timeout: float | None,
    ) -> None:
        self._put(self._message_of(group, begun), rollout, timeout)

    def _message_of(self, group: TrajectoryGroup, begun: int) -> dict[str, Any]:
        if not isinstance(group, TrajectoryGroup):
            raise InvalidArgument(f"{type(group).__name__} is no TrajectoryGroup")
        return group.to_message(self.environment, begun, self.env_id)

    async def begin_async(self, timeout: float | None = None) -> Rollout:
        """``begin`` for tasks. A task that is cancelled holds no credit."""
        countdown = Countdown(timeout)
        try:
            return self.begin(0)
        except Timeout:
            if countdown.left() == 0:
                raise
        return await take_in_thread(lambda: self.begin(countdown.left()), Rollout.release)

    async def put_async(self, group: TrajectoryGroup, timeout: float | None = None) -> None:
        """``put`` for tasks. A task that is cancelled has put nothing."""
        await self._put_group_async(group, None, _oldest(group, self.version), Countdown(timeout))

    async def _put_group_async(
        self,
        group: TrajectoryGroup,
        rollout: _core.Rollout | None,
        begun: int,
        countdown: Countdown,
    ) -> None:
        message = _core._OutgoingGroup(self._message_of(group, begun))
        await try_until_done(
            lambda: message.try_put(self, rollout),
            lambda cancel: message.wait_for_room(self, countdown.left(), cancel),
            countdown,
        )

    def __repr__(self) -> str:
        return describe(self, lambda: f"'{self.environment}' of '{self.name}'")


def _oldest(group: TrajectoryGroup, version: int) -> int:
    """The policy version from which a group counts that was begun without credit."""
    versions = group.versions if isinstance(group, TrajectoryGroup) else None
    return version if versions is None else max(0, int(versions.min()))
