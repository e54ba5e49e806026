"""The programs beside the tests are found by the tests, and by the children of both."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
