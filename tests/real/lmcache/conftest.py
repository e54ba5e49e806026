"""Helpers of these tests are found by their names, in the processes that tests start too."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from l2_servers import import_all

os.environ["DO_NOT_TRACK"] = "1"  # servers tell their makers nothing of being tested


@pytest.fixture(scope="session")
def all_imported() -> None:
    """Before the first peer or server: all are forked from one process, which imports lmcache. It
    takes minutes the first time on a busy machine, so the limit of a test allows for it."""
    import_all()
