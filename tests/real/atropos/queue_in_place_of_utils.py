"""A pytest plugin: where Atropos' functions choose a batch from a list, a real queue is used.

The tests give groups as dicts; here each is put into a queue of trajectories by its environment,
and a batch is requested. The instance_id tells which groups came.
"""

from __future__ import annotations

import atexit
import contextlib
import uuid
from typing import Any

import atroposlib.api.utils as utils

import penstock
from penstock.trajectories import TrajectoryGroup, TrajectoryReader, TrajectoryWriter

_TURNS = 200
_queue = f"atropos-utils-{uuid.uuid4().hex[:8]}"
_reader = TrajectoryReader.create(_queue, capacity="64MiB")
atexit.register(_reader.close)
_others = TrajectoryWriter.attach(_queue, environment="others")


def find_groups_summing_to_target(buffer: list[dict[str, Any]], target: int) -> list[int]:
    return sorted(_chosen(buffer, target, []) or [])


def grab_exact_from_heterogeneous_queue(
    queue: list[dict[str, Any]], batch_size: int
) -> tuple[Any, Any]:
    return _split(queue, _chosen(queue, batch_size, []))


def grab_batch_with_minimum_allocations(
    queue: list[dict[str, Any]], batch_size: int, env_configs: list[dict[str, Any]]
) -> tuple[Any, Any]:
    return _split(queue, _chosen(queue, batch_size, env_configs))


def _split(queue: list[dict[str, Any]], chosen: list[int] | None) -> tuple[Any, Any]:
    if chosen is None:
        return None, queue
    rest = [one for at, one in enumerate(queue) if at not in set(chosen)]
    return [queue[at] for at in chosen], rest


def _chosen(
    queue: list[dict[str, Any]], sequences: int, env_configs: list[dict[str, Any]]
) -> list[int] | None:
    with contextlib.ExitStack() as stack:
        writers = {
            one["registered_id"]: stack.enter_context(_writer(one))
            for one in env_configs
            if one["connected"]
        }
        for at, one in enumerate(queue):
            group = TrajectoryGroup([[1]] * len(one["tokens"]), instance_id=str(at))
            writers.get(one.get("env_id"), _others).put(group)
        try:
            with _reader.next_batch(sequences, layout="groups", timeout=0) as batch:
                return [int(group.instance_id or "") for group in batch.groups]
        except (penstock.Timeout, penstock.TooLarge):
            return None
        finally:
            _reader.drop_waiting()


def _writer(config: dict[str, Any]) -> TrajectoryWriter:
    """Attach an environment as ``penstock trajectories serve`` does at its registration."""
    return TrajectoryWriter(
        _queue,
        instance="",
        options=None,
        environment=f"env_{config['registered_id']}",
        weight=1.0,
        min_share=min(config.get("min_batch_allocation") or 0.0, 1.0),
        group_size=1,
        env_id=None,
        timeout=0,
        scales_shares=True,
    )


def pytest_itemcollected(item: Any) -> None:
    """Reduce the 10,000 random queues of one test to a few seconds' worth: each group is put."""
    if item.module.__name__.endswith("test_heterogeneous_batching"):
        item.module.range = lambda count: range(min(count, _TURNS))


def pytest_configure() -> None:
    """Before the import of the tests, which bind the functions by name."""
    for one in (
        find_groups_summing_to_target,
        grab_exact_from_heterogeneous_queue,
        grab_batch_with_minimum_allocations,
    ):
        setattr(utils, one.__name__, one)
