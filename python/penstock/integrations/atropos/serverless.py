"""Answers to an environment's requests to its server, given by the queue itself.

For ``rollout_server_url="shm://QUEUE"``: trainers that take their batches with ``next_batch`` need
no server, and then neither do their environments.
"""

from __future__ import annotations

from typing import Any, Final

from ...trajectories import EnvironmentStats, TrajectoryWriter
from ...trajectories.backlog import Formed, backlog_of

__all__ = ["info", "registration", "status"]

_LEAST_WEIGHT: Final = 0.01


def registration(writer: TrajectoryWriter) -> dict[str, Any]:
    """The answer of /register-env."""
    return {
        "status": "success",
        "env_id": writer.env_id,
        "wandb_name": writer.environment,
        "checkpoint_dir": "",
        "starting_step": writer.version,
        "checkpoint_interval": -1,
        "num_steps": -1,
    }


def info(writer: TrajectoryWriter) -> dict[str, Any]:
    """The answer of /info; -1 for values that no trainer has set."""
    stats = writer.stats()
    return {
        "batch_size": stats.batch_sequences or -1,
        "max_token_len": -1 if stats.max_tokens is None else stats.max_tokens,
    }


def status(writer: TrajectoryWriter, group_size: int, formed: Formed) -> dict[str, Any]:
    """The answer of /status-env, in groups of the asking environment's size.

    ``formed`` is the environment's own, and has seen each earlier status.
    """
    stats = writer.stats()
    waiting = formed.beyond(stats, stats.batch_sequences)
    backlog = backlog_of(waiting, writer.environment, stats.batch_sequences)
    group_size = max(group_size, backlog.own_largest)
    alive = [one for one in stats.environments if one.writers > 0]
    return {
        "current_step": stats.version,
        "queue_size": (backlog.own + backlog.beyond) // group_size,
        "unallocated_fraction": 1.0 - min(sum(one.min_share for one in alive), 1.0),
        "self_queue_size": backlog.own // group_size,
        "max_group_size": backlog.largest,
        "env_weight": _weight_of(writer.environment, alive),
    }


def _weight_of(name: str, alive: list[EnvironmentStats]) -> float:
    total = sum(one.weight for one in alive)
    own = sum(one.weight for one in alive if one.name == name)
    return max(_LEAST_WEIGHT, own / total) if total > 0 else 1.0
