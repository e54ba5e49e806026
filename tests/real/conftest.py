"""Common fixtures of the tests with real programs: those of all Python tests.

They run with the interpreter of that program's environment: `./dev environments` makes it, and
`build/NAME/bin/python -m pytest tests/real/NAME` runs them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "python"))

from conftest import hang_ups_reach_programs, name, nothing_left, peer

__all__ = ["hang_ups_reach_programs", "name", "nothing_left", "peer"]
