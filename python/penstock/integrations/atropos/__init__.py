"""Atropos on Penstock: the ring of single trajectories under its old interface.

from penstock.integrations.atropos import ZeroCopySHMBuffer
"""

from __future__ import annotations

from .names import segment_name
from .ring import ZeroCopySHMBuffer

__all__ = ["ZeroCopySHMBuffer", "segment_name"]
