"""Check that a source includes only from floors below its own.

The order is that of the house: os, segment, the concepts, codec, trajectories, bindings. Two
concepts do not see each other. A file that breaks the order is named, with the line.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONCEPTS = ("broadcast", "queue", "store", "service")
HEIGHT = {"os": 0, "segment": 1, **dict.fromkeys(CONCEPTS, 2), "codec": 3, "remote": 3}
HEIGHT["inspect"] = 3  # a look at segments of every kind
HEIGHT["trajectories"] = 4  # a Queue of what the codec writes
BINDINGS_HEIGHT = 5
INCLUDE = re.compile(r'^\s*#\s*include\s+"(?P<path>[^"]+)"')


def floor_of(path: Path) -> tuple[str, int] | None:
    """The floor that a source lies on, and how high it is."""
    parts = path.relative_to(ROOT).parts
    if parts[0] == "src":
        return parts[1], HEIGHT[parts[1]]
    if parts[:2] == ("python", "bindings"):
        return "bindings", BINDINGS_HEIGHT
    return None


def offences(path: Path) -> list[str]:
    own = floor_of(path)
    if own is None:
        return []
    floor, height = own
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        match = INCLUDE.match(line)
        target = match["path"].split("/")[0] if match else ""
        if target in HEIGHT and target != floor and HEIGHT[target] >= height:
            found.append(f"{path.relative_to(ROOT)}:{number}: {floor} includes from {target}")
    return found


def main() -> int:
    sources = [*ROOT.glob("src/**/*.[ch]pp"), *ROOT.glob("python/bindings/*.[ch]pp")]
    found = [offence for path in sorted(sources) for offence in offences(path)]
    print("\n".join(found) if found else f"{len(sources)} files, every include from a floor below")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
