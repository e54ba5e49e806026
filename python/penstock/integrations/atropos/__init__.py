"""Atropos on Penstock: its environments' groups through shared memory, and its trainers' batches.

``install()`` gives an installed atroposlib ``BaseEnvConfig.transport = "shm"``; a program gets it
unchanged by ``python -m penstock.integrations.atropos PROGRAM ARGUMENTS``. Trainers take the groups
by HTTP (``penstock trajectories serve``), with ``next_batch()``, or with what is here:
``BatchSource`` for Atropos' own shape, ``AtroposSHMGenerator`` for SkyRL and ``OnlineDataHandler``
for torchtitan. ``ZeroCopySHMBuffer`` is the ring of single trajectories under its old interface.
"""

from __future__ import annotations

from .groups import group_from, group_to
from .install import install
from .names import segment_name
from .ring import ZeroCopySHMBuffer
from .skyrl import AtroposSHMGenerator, TrajectoryID
from .torchtitan import OnlineDataHandler
from .trainer import BatchSource
from .transport import Transport, TransportType

__all__ = [
    "AtroposSHMGenerator",
    "BatchSource",
    "OnlineDataHandler",
    "TrajectoryID",
    "Transport",
    "TransportType",
    "ZeroCopySHMBuffer",
    "group_from",
    "group_to",
    "install",
    "segment_name",
]
