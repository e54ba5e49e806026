"""Queues between the processes of a group: every rank calls, and all succeed or all raise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .groups import group_of
from .handles import Handle

if TYPE_CHECKING:
    from .shm_broadcast import MessageQueue

__all__ = ["one_writer", "single_reader"]


def single_reader(
    cls: type[MessageQueue],
    pg: Any,
    max_chunk_bytes: int,
    max_chunks: int,
    reader_rank: int,
    blocking: bool,
) -> tuple[MessageQueue, list[Handle]]:
    """``MessageQueue.create_from_process_group_single_reader``."""
    group = group_of(pg)
    reader = group.rank_of(reader_rank)
    is_local = group.shares_memory_with(reader)[group.rank]
    queue, problem = _try(
        lambda: cls(
            n_reader=1,
            n_local_reader=1 if is_local else 0,
            max_chunk_bytes=max_chunk_bytes,
            max_chunks=max_chunks,
        )
    )
    outcomes = group.all_gather(problem or queue.export_handle())
    _raise_first(outcomes)
    if blocking:
        queue.wait_until_ready()
    return queue, outcomes if group.rank == reader else []


def one_writer(
    cls: type[MessageQueue],
    pg: Any,
    max_chunk_bytes: int,
    max_chunks: int,
    writer_rank: int,
    external_writer_handle: Handle | None,
    blocking: bool,
) -> MessageQueue:
    """``MessageQueue.create_from_process_group``."""
    group = group_of(pg)
    is_local = group.shares_memory_with(writer_rank)
    ranks = [rank for rank, same in enumerate(is_local) if same and rank != writer_rank]

    def create() -> MessageQueue:
        if external_writer_handle is not None:
            return cls.create_from_handle(external_writer_handle, group.rank)
        return cls(
            n_reader=group.size - 1,
            n_local_reader=len(ranks),
            local_reader_ranks=ranks,
            max_chunk_bytes=max_chunk_bytes,
            max_chunks=max_chunks,
        )

    queue: MessageQueue
    if group.rank == writer_rank:
        queue, problem = _try(create)
        group.broadcast(problem or queue.export_handle(), writer_rank)
        _raise_first([problem])
    else:
        outcome = group.broadcast(None, writer_rank)
        _raise_first([outcome])
        queue = cls.create_from_handle(outcome, group.rank)
    if blocking:
        queue.wait_until_ready()
    return queue


def _try(create: Callable[[], MessageQueue]) -> tuple[Any, Exception | None]:
    """The queue, or why there is none: to be told to the other ranks before it is raised."""
    try:
        return create(), None
    except Exception as problem:
        return None, problem


def _raise_first(outcomes: list[Any]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
