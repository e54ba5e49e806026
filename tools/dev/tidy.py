"""Run clang-tidy over every source in the given build trees, several at once.

A source that was clean is not read again until it, something it includes, or the configuration
changes: what it includes is known from Ninja's own record of the last build.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "tidy"


@dataclass(frozen=True)
class Source:
    """One source of one build tree, with the key of the state in which it would be checked."""

    path: Path
    tree: Path
    key: str


def included_files(tree: Path) -> dict[str, list[Path]]:
    """Each object file of a tree, and those of our own files that it was made from."""
    listing = subprocess.run(
        ["ninja", "-C", str(tree), "-t", "deps"], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, list[Path]] = {}
    current: list[Path] = []
    for line in listing.splitlines():
        if line and not line.startswith((" ", "ninja:")):
            current = found.setdefault(line.split(":")[0], [])
        elif line.startswith(" "):
            path = (tree / line.strip()).resolve()
            if path.is_relative_to(ROOT):
                current.append(path)
    return found


def own_sources() -> set[Path]:
    """What git tracks or would track: neither generated files nor those of other people."""
    listing = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "--", "*.cpp"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return {ROOT / line for line in listing.splitlines()}


def sources(tree: Path, own: set[Path]) -> Iterator[Source]:
    commands = json.loads((tree / "compile_commands.json").read_text(encoding="utf-8"))
    includes = included_files(tree)
    configuration = (ROOT / ".clang-tidy").read_bytes()
    for command in commands:
        path = Path(command["file"]).resolve()
        if path not in own:
            continue
        digest = hashlib.sha256(configuration + command["command"].encode())
        for dependency in sorted({path, *includes.get(command["output"], [])}):
            digest.update(str(dependency).encode() + dependency.read_bytes())
        yield Source(path, tree, digest.hexdigest())


def check(clang_tidy: str, source: Source) -> str:
    """What clang-tidy has to say about a source; nothing when it is clean."""
    result = subprocess.run(
        # The compile commands are those of g++, which has a warning that clang has not.
        [
            clang_tidy,
            "--quiet",
            "--extra-arg=-Wno-unknown-warning-option",
            "-p",
            str(source.tree),
            str(source.path),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode == 0:
        (CACHE / source.key).touch()
        return ""
    return result.stdout or result.stderr


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clang-tidy", required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("trees", nargs="+", type=Path)
    options = parser.parse_args()

    CACHE.mkdir(parents=True, exist_ok=True)
    own = own_sources()
    trees = [(ROOT / tree).resolve() for tree in options.trees]
    everything = {source.path: source for tree in trees for source in sources(tree, own)}
    due = [source for source in everything.values() if not (CACHE / source.key).exists()]
    with ThreadPoolExecutor(options.jobs) as pool:
        findings = pool.map(lambda source: check(options.clang_tidy, source), due)
        reports = [finding for finding in findings if finding]
    print("\n".join(reports), end="")
    print(f"{len(everything)} sources, {len(due)} read, {len(reports)} with findings")
    return 1 if reports else 0


if __name__ == "__main__":
    sys.exit(main())
