"""The HTTP server of a queue of trajectories, for environments and trainers that use HTTP.

    penstock trajectories serve --queue rollouts --port 8000

It has the routes, bodies and answers that Atropos's clients know. Groups go through the same queue
as those of ``penstock.trajectories``: both kinds of clients may use it at once. Needs
``pip install penstock[http]``.
"""

from __future__ import annotations

from .app import build_app

__all__ = ["build_app"]
