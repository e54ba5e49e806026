"""Puts an environment's groups into the queue, without HTTP.

Used by ``install()`` beneath ``BaseEnv``: everything except the groups goes to the server as
before.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any
from urllib.parse import unquote

from ...errors import Incompatible, InvalidArgument, NotFound
from ...handle import Handle
from ...trajectories import TrajectoryWriter
from ...trajectories.backlog import Formed, queue_name
from .groups import group_from
from .names import SCHEME, segment_name

__all__ = [
    "QUEUE_HEADER",
    "Transport",
    "TransportType",
    "is_serverless",
    "queue_of_header",
    "transport_of",
]

_log = logging.getLogger("penstock.atropos")

#: Header of the server's ``/info``: the queue that it serves.
QUEUE_HEADER = "X-Penstock-Queue"


class TransportType(str, Enum):
    """How an environment's groups travel; "SHM" and "Shm" are accepted as "shm"."""

    HTTP = "http"
    SHM = "shm"

    @classmethod
    def _missing_(cls, value: object) -> TransportType | None:
        if not isinstance(value, str):
            return None
        return next((one for one in cls if one.value == value.lower()), None)


class Transport:
    """One environment's attachment to the queue.

    Belongs to its process, and to one event loop at a time. If the queue is full ``put`` waits, and
    BaseEnv starts no further rollouts because its workers are busy.
    """

    def __init__(self, writer: TrajectoryWriter, env_id: int | None) -> None:
        self.writer = writer
        self.formed = Formed(writer.stats().batches)
        self._env_id = env_id

    @classmethod
    async def attach(
        cls,
        queue: str | Handle,
        *,
        environment: str,
        group_size: int,
        env_id: int | None,
        min_share: float = 0.0,
        timeout: float | None = 0,
    ) -> Transport:
        """Attach to a queue of this machine; waits until ``timeout`` for its name to appear.

        Raises NotFound, with a hint about different machines, and what ``TrajectoryWriter.attach``
        raises.
        """
        name = queue.name if isinstance(queue, Handle) else segment_name(queue)
        try:
            writer = await TrajectoryWriter.attach_async(
                queue if isinstance(queue, Handle) else name,
                environment=queue_name(environment),
                min_share=min_share,
                group_size=group_size,
                env_id=env_id,
                timeout=timeout,
            )
        except NotFound as error:
            raise NotFound(
                f"{error}; the environment's transport is 'shm', which needs the trainer or its "
                f"server (`penstock trajectories serve --queue {name}`) on this machine, with the "
                f"same /dev/shm: start it first, or set transport='http'"
            ) from None
        return cls(writer, writer.env_id if env_id is None else env_id)

    async def put(self, groups: Sequence[Mapping[str, Any]]) -> None:
        """Put whole groups as ``BaseEnv`` has them, in this order; waits for room.

        Raises what ``TrajectoryWriter.put`` raises; groups before the refused one are in the queue.
        If the task is cancelled, complete groups have been put, and nothing of the rest.
        """
        for group in groups:
            await self.writer.put_async(group_from(group, self._env_id))

    def close(self) -> None:
        """Leave the queue; what was put stays there."""
        self.writer.close()


def queue_of_header(text: str | None, url: str) -> Handle:
    """The queue named by a server. Raises Incompatible if it names none."""
    instance, _, name = (text or "").partition(" ")
    if not instance or not name:
        raise Incompatible(
            f"the server at {url} names no queue: transport='shm' needs Penstock's "
            f"(`penstock trajectories serve`) once a trainer has registered there; with another "
            f"one give the queue's name as shm_name"
        )
    return Handle(unquote(name), instance)


def transport_of(config: Any) -> TransportType:
    """A config's transport, in any spelling; shm without a server. Raises InvalidArgument."""
    if is_serverless(config):
        return TransportType.SHM
    given = getattr(config, "transport", TransportType.HTTP)
    try:
        return TransportType(getattr(given, "value", given))
    except ValueError:
        raise InvalidArgument(f"transport is {given!r}: give 'http' or 'shm'") from None


def is_serverless(config: Any) -> bool:
    """Whether the server's address is that of a queue."""
    return str(config.rollout_server_url).startswith(SCHEME)
