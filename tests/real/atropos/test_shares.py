"""Environments with large and small groups get the same shares as from Atropos' own server."""

from __future__ import annotations

import pytest

pytest.importorskip("atroposlib", reason="needs the real atroposlib")
from shares import Setting, measure
from tiers import in_full_tier


@in_full_tier
def test_shares_are_those_of_atropos_server() -> None:
    (theirs, their_batches), (ours, our_batches) = measure(90, Setting())
    assert min(their_batches, our_batches) >= 60
    assert abs(ours - theirs) <= 0.05, (ours, theirs)
