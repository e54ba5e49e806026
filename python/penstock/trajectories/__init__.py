"""Trajectories: groups of token sequences from many environments to one trainer.

    from penstock.trajectories import TrajectoryGroup, TrajectoryReader, TrajectoryWriter

    trainer = TrajectoryReader.create("rollouts", sequences=64, max_staleness=2)
    math = TrajectoryWriter.attach("rollouts", environment="math", group_size=8, min_share=0.25)

    with math.begin() as rollout:                          # waits until more is wanted
        rollout.put(TrajectoryGroup(tokens, masks=masks, scores=scores))

    batch = trainer.next_batch(layout="padded", pad_to=64)
    loss = train(batch.tokens, batch.masks, batch.padding_mask)
    batch.ack(step)                                        # the policy's version from now on

A group is one message of a queue: whole or not at all, to one trainer, and again if that one dies
before it has acknowledged it. ``penstock trajectories serve`` puts an HTTP face on the same queue.
"""

from __future__ import annotations

from .batch import TrajectoryBatch
from .group import TrajectoryGroup
from .reader import TrajectoryReader
from .state import EnvironmentStats, TrajectoryInfo, TrajectoryStats, inspect_trajectories
from .writer import Rollout, TrajectoryWriter

__all__ = [
    "EnvironmentStats",
    "Rollout",
    "TrajectoryBatch",
    "TrajectoryGroup",
    "TrajectoryInfo",
    "TrajectoryReader",
    "TrajectoryStats",
    "TrajectoryWriter",
    "inspect_trajectories",
]
