"""Queues made over process groups: torch.distributed's with gloo, and vLLM's stateless ones. Each
rank is a process; a rank's failure is the test's."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
from peers import WITHIN
from ports import free_port

import penstock
from penstock.integrations.vllm import hosts
from penstock.integrations.vllm.shm_broadcast import MessageQueue

pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

RANKS = 4
WRITER = 2
SECONDS = 100


class Stateless:
    """The calls of vLLM's StatelessProcessGroup, over gloo."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()

    def broadcast_obj(self, obj: Any, src: int) -> Any:
        import torch.distributed as dist

        values = [obj]
        dist.broadcast_object_list(values, src=src)
        return values[0]


def run_ranks(task: Callable[..., None], *arguments: Any) -> None:
    """``task(*arguments)`` in each of RANKS processes of one gloo group."""
    port = free_port()
    context = get_context("fork")  # torch, which takes seconds to import, is there
    outcomes = context.Queue()
    ranks = [
        context.Process(target=be_rank, args=(rank, port, outcomes, task, arguments))
        for rank in range(RANKS)
    ]
    for one in ranks:
        one.start()
    try:
        told = [outcomes.get(timeout=SECONDS) for _ in ranks]
        assert told == [""] * RANKS, "\n".join(told)
    finally:
        for one in ranks:
            one.join(WITHIN)
            one.kill()
            one.join()


def be_rank(
    rank: int, port: int, outcomes: Any, task: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    import torch.distributed as dist

    try:
        dist.init_process_group(
            "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS
        )
        task(*arguments)
        dist.barrier()
        outcomes.put("")
    except BaseException:
        outcomes.put(f"rank {rank}: {traceback.format_exc()}")
    finally:
        dist.destroy_process_group()


def group_of_kind(kind: str) -> Any:
    import torch.distributed as dist

    return dist.group.WORLD if kind == "gloo" else Stateless()


def random_objects(count: int, large: int) -> Iterator[np.ndarray[Any, Any]]:
    """Arrays of up to 80 kB, and after each ``large`` one of 30 MiB."""
    chance = np.random.default_rng(5)
    for number in range(count):
        size = (30 << 20) // 8 if number % large == large - 1 else chance.integers(1, 10_000)
        yield chance.integers(1, 100, size)


def broadcast_objects(kind: str, count: int) -> None:
    queue = MessageQueue.create_from_process_group(group_of_kind(kind), 40 * 1024, 2, WRITER)
    for sent in random_objects(count, 1000):
        if queue._is_writer:
            queue.broadcast_object(sent)
        else:
            np.testing.assert_array_equal(queue.broadcast_object(None), sent)


@pytest.mark.parametrize("kind", ["gloo", "stateless"])
def test_random_objects_arrive_whole_and_in_order(kind: str) -> None:
    run_ranks(broadcast_objects, kind, 1_000)


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["gloo", "stateless"])
def test_ten_thousand_random_objects_arrive_whole_and_in_order(kind: str) -> None:
    run_ranks(broadcast_objects, kind, 10_000)


def read_an_external_queue() -> None:
    """The executor of the first node is the writer, and all workers read."""
    import torch.distributed as dist

    rank = dist.get_rank()
    outside = MessageQueue(RANKS, RANKS) if rank == 3 else None
    handles = [outside.export_handle() if outside else None]
    dist.broadcast_object_list(handles, src=3)
    queue = MessageQueue.create_from_process_group(
        dist.group.WORLD, 1 << 20, 6, 0, external_writer_handle=handles[0], blocking=False
    )
    assert queue._is_local_reader
    if outside is not None:
        outside.wait_until_ready()
        outside.enqueue("to all")
    queue.wait_until_ready()
    assert queue.dequeue(timeout=WITHIN) == "to all"


def test_an_external_writer_makes_every_rank_a_reader() -> None:
    run_ranks(read_an_external_queue)


def reply_to_one_reader() -> None:
    import torch.distributed as dist

    rank = dist.get_rank()
    queue, handles = MessageQueue.create_from_process_group_single_reader(
        dist.group.WORLD, 1 << 20, 6, reader_rank=1
    )
    queue.enqueue(("reply of", rank))
    if rank == 1:
        readers = [MessageQueue.create_from_handle(handle, 0) for handle in handles]
        assert [one.dequeue(timeout=WITHIN) for one in readers] == [
            ("reply of", number) for number in range(RANKS)
        ]
    else:
        assert handles == []
    queue.wait_until_ready()
    dist.barrier()  # the reader stays until all have seen it


def test_every_rank_writes_to_a_single_reader() -> None:
    run_ranks(reply_to_one_reader)


def make_in_a_part_of_the_group() -> None:
    """Ranks of a subgroup are not the global ones."""
    import torch.distributed as dist

    group = dist.new_group([1, 3], backend="gloo")
    if dist.get_rank() not in (1, 3):
        return
    queue = MessageQueue.create_from_process_group(group, 1 << 20, 6, writer_rank=1)
    assert queue._is_writer is (dist.get_rank() == 3)
    assert queue.broadcast_object("part" if queue._is_writer else None) == "part"
    _, handles = MessageQueue.create_from_process_group_single_reader(
        group, 1 << 20, 6, reader_rank=3
    )
    assert len(handles) == (2 if dist.get_rank() == 3 else 0)


def test_a_subgroup_has_ranks_of_its_own() -> None:
    run_ranks(make_in_a_part_of_the_group)


def pretend_another_machine() -> None:
    import torch.distributed as dist

    if dist.get_rank() == 3:
        hosts.identity = lambda: ("another machine", os.getpid(), 0)
    with pytest.raises(penstock.Error, match="other machines"):
        MessageQueue.create_from_process_group(dist.group.WORLD, 1 << 20, 6, WRITER)


def test_a_rank_on_another_machine_is_refused_by_every_rank() -> None:
    run_ranks(pretend_another_machine)
