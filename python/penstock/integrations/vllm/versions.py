"""The versions of vLLM whose modules Penstock's replace, and the version that is installed.

Nothing of vLLM's is imported.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["KNOWN", "Installed", "installed"]

#: Versions whose use of the modules was read and run, and what differs from the version before.
KNOWN = {
    "0.32": "tensor arena, signed handles of objects, ids that go on after clear()",
    "0.33": "SHM_NOTIFY_POLL_INTERVAL_S; otherwise as 0.32",
}
_VERSION = re.compile(r"""^__version__\b.*=\s*['"]([^'"]+)['"]""", re.MULTILINE)


@dataclass(frozen=True)
class Installed:
    """The vLLM of this Python."""

    folder: Path
    version: str  #: "unknown" if its files do not say

    @property
    def is_known(self) -> bool:
        """Whether its modules may be replaced."""
        return any(self.version == known or self.version.startswith(known + ".") for known in KNOWN)


def installed() -> Installed | None:
    """The vLLM that is installed here; None: there is none."""
    try:
        spec = importlib.util.find_spec("vllm")
    except ValueError:  # a stand-in without a spec
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    for name in ("_version.py", "version.py"):
        try:
            found = _VERSION.search((folder / name).read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        if found:
            return Installed(folder, found[1])
    return Installed(folder, "unknown")
