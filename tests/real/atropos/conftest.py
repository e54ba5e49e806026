"""Puts the modules beside the tests on the path, for the tests and for children of both."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
