"""Conversion of groups between Atropos' form, dicts of lists, and the queue's."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from ... import _core
from ...errors import InvalidArgument
from ...trajectories import TrajectoryBatch, TrajectoryGroup
from ...trajectories.loose import LEVELS, column_from_lists, fitting

__all__ = ["dead_letter_misfit", "group_from", "group_to", "logprobs_of", "why_unfit"]

_REQUIRED: Final = ("tokens", "masks", "scores")
_MAY_BE_EMPTY: Final = "inference_logprobs"
_TRAINED_ON: Final = ("masks", "scores", _MAY_BE_EMPTY)
_REST: Final = ("messages", "generation_params", "overrides", "group_overrides", "images")


def group_from(data: Mapping[str, Any], env_id: int | None = None) -> TrajectoryGroup:
    """The group of an environment's dict, equal to the one that the server makes of its JSON.

    ``env_id`` is the environment's, for dicts that name none. Keys that Atropos does not know are
    left out, except ``instance_id``, by which SkyRL's loop knows a prompt: it becomes text.

    Raises InvalidArgument for what the server refuses.
    """
    for name in _REQUIRED:
        if data.get(name) is None:
            raise InvalidArgument(f"the group has no '{name}'")
    columns = {
        name: column_from_lists(name, _lists(data[name]), levels)
        for name, levels in LEVELS.items()
        if data.get(name) is not None
    }
    fits, plain = fitting(columns)
    rest = {name: data[name] for name in _REST if data.get(name) is not None}
    own_id = data.get("env_id")
    if own_id is not None or env_id is not None:
        rest["env_id"] = env_id if own_id is None else own_id
    if data.get("instance_id") is not None:
        rest["instance_id"] = str(data["instance_id"])
    return TrajectoryGroup.from_flat(fits, rest, plain)


def _lists(value: Any) -> Any:
    """Arrays and tensors as lists; those in a list may be its rows."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, list | tuple) and any(hasattr(row, "tolist") for row in value):
        return [_lists(row) for row in value]
    return value


def group_to(group: TrajectoryGroup) -> dict[str, Any]:
    """The dict of a group, with the keys of Atropos' server; None for what the group does not have.
    ``instance_id`` only if the group has one."""
    found = {name: _plain(getattr(group, name)) for name in (*LEVELS, *_REST, "env_id")}
    if group.instance_id is not None:
        found["instance_id"] = group.instance_id
    return found


def why_unfit(group: TrajectoryGroup) -> str:
    """The reason why a group can't become arrays for a training step; "" if it can.

    Servers accept columns that do not fit the tokens, as Atropos' does, and pass them on unchanged.
    """
    for name in _TRAINED_ON:
        given = getattr(group, name)
        if given is not None and name not in group.columns and (given or name != _MAY_BE_EMPTY):
            return f"its '{name}' have not one value for each of what it has"
    return ""


def logprobs_of(group: TrajectoryGroup) -> Any:
    """The behaviour policy's logprobs, for each sequence; None if the group has none."""
    return group.inference_logprobs if _MAY_BE_EMPTY in group.columns else None


def dead_letter_misfit(batch: TrajectoryBatch) -> bool:
    """Whether the batch has ended because one of its groups can't be trained on: that group is a
    dead letter now, which a RuntimeWarning says, and the rest will be redelivered."""
    for at, group in enumerate(batch.groups):
        why = why_unfit(group)
        if why:
            title = group.title
            batch.dead_letter(at)
            warnings.warn(f"{title} was set aside: {why}", RuntimeWarning, stacklevel=4)
            return True
    return False


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _core.number_list(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value
