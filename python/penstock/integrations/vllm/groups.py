"""Process groups of torch.distributed, and vLLM's stateless ones, behind one interface."""

from __future__ import annotations

import sys
from typing import Any

from . import hosts

__all__ = ["Group", "StatelessGroup", "TorchGroup", "group_of"]


class Group:
    """The collective calls that creating a queue needs; every rank of the group makes each."""

    rank: int  #: of this process, in the group
    size: int

    def broadcast(self, value: Any, source: int) -> Any:
        """The value that the rank ``source`` gave."""
        raise NotImplementedError

    def all_gather(self, value: Any) -> list[Any]:
        """The value of every rank, in order."""
        raise NotImplementedError

    def rank_of(self, global_rank: int) -> int:
        """The rank in this group of a global one."""
        return global_rank

    def shares_memory_with(self, rank: int) -> list[bool]:
        """For each rank, whether it shares /dev/shm with ``rank``."""
        identities = self.all_gather(hosts.identity())
        return [one == identities[rank] for one in identities]


class TorchGroup(Group):
    """A ``torch.distributed.ProcessGroup`` whose backend takes objects in host memory."""

    def __init__(self, group: Any) -> None:
        import torch.distributed as dist

        assert dist.get_backend(group) != dist.Backend.NCCL, (
            "a MessageQueue is created over a non-NCCL group"
        )
        self._dist = dist
        self._group = group
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)
        self._global_ranks = dist.get_process_group_ranks(group)

    def rank_of(self, global_rank: int) -> int:
        return int(self._global_ranks.index(global_rank))

    def broadcast(self, value: Any, source: int) -> Any:
        values = [value]
        self._dist.broadcast_object_list(values, src=self._global_ranks[source], group=self._group)
        return values[0]

    def all_gather(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.size
        self._dist.all_gather_object(values, value, group=self._group)
        return values


class StatelessGroup(Group):
    """vLLM's ``StatelessProcessGroup``, or any object with the same calls."""

    def __init__(self, group: Any) -> None:
        self._group = group
        self.rank = group.rank
        self.size = group.world_size

    def broadcast(self, value: Any, source: int) -> Any:
        return self._group.broadcast_obj(value, source)

    def all_gather(self, value: Any) -> list[Any]:
        return [self.broadcast(value, rank) for rank in range(self.size)]


def group_of(group: Any) -> Group:
    """The interface to a process group."""
    dist: Any = sys.modules.get("torch.distributed")
    if dist is not None and isinstance(group, dist.ProcessGroup):
        return TorchGroup(group)
    return StatelessGroup(group)
