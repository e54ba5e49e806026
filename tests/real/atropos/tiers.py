"""The slowest tests are left to the full tier."""

import os

import pytest

__all__ = ["in_full_tier"]

in_full_tier = pytest.mark.skipif(
    os.environ.get("PENSTOCK_TEST_TIER") != "full", reason="in the full tier"
)
