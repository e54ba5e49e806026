"""Run clang-tidy over the sources of the given build trees, several at once.

A clean source is not read again until it, a file that it includes, its command, the configuration
or clang-tidy changes; Ninja's record of the last build tells what it includes. Clean sources are
written to tools/dev/tidied.tsv under a digest of all that, which is the same in every clone: a
source with its line there is left out, except one in eight, others with each commit. With
--changed, files equal to those in the upstream branch are left out too: they were checked before
they were merged. Without an upstream branch none is left out.
"""

import argparse
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "tidy"
CONFIGURATION = ROOT / ".clang-tidy"
LEDGER = ROOT / "tools" / "dev" / "tidied.tsv"
SAMPLE = 8  # one in so many of the ledger's sources is read again

# Folders outside this repository differ from machine to machine.
FOREIGN = re.compile(r" -(?:isystem |I)(?!@)\S+")

# A precompiled header is specific to the compiler, and would hide a missing include.
PRECOMPILED = re.compile(
    r" -fpch-preprocess| -Winvalid-pch| -Xclang -fno-pch-timestamp"
    r"| -Xclang -(?:include|include-pch) -Xclang \S*cmake_pch\S*| -include \S*/cmake_pch\.hxx"
)


@dataclass(frozen=True, eq=False)
class Source:
    """One source of one build tree: its command, and all files of this repository that it
    includes."""

    path: Path
    command: dict[str, str]
    parts: tuple[Path, ...]

    def key(self, salt: bytes) -> str:
        """Identifies the state in which it is checked, in any clone."""
        command = FOREIGN.sub("", self.command["command"].replace(str(ROOT), "@"))
        digest = hashlib.sha256(salt + command.encode())
        for part in self.parts:
            digest.update(str(part.relative_to(ROOT)).encode() + part.read_bytes())
        return digest.hexdigest()[:16]


def git(*arguments: str) -> list[str]:
    """The lines that git prints; none if it fails."""
    result = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
    )
    return result.stdout.splitlines() if result.returncode == 0 else []


def included_files(tree: Path) -> dict[str, list[Path]]:
    """The object files of a tree, each with the files of this repository that it was made from."""
    listing = subprocess.run(
        ["ninja", "-C", str(tree), "-t", "deps"], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, list[Path]] = {}
    current: list[Path] = []
    for line in listing.splitlines():
        if line and not line.startswith((" ", "ninja:")):
            current = found.setdefault(line.split(":")[0], [])
        elif line.startswith(" ") and "cmake_pch" not in line:
            path = (tree / line.strip()).resolve()
            if path.is_relative_to(ROOT):
                current.append(path)
    return found


def own_sources() -> set[Path]:
    """Files that git tracks or would track: neither generated nor third-party files."""
    return {ROOT / line for line in git("ls-files", "-co", "--exclude-standard", "--", "*.cpp")}


def sources(tree: Path, own: set[Path]) -> Iterator[Source]:
    includes = included_files(tree)
    for command in json.loads((tree / "compile_commands.json").read_text(encoding="utf-8")):
        path = Path(command["file"]).resolve()
        if path in own:
            command["command"] = PRECOMPILED.sub("", command["command"])
            parts = sorted({path, *includes.get(command["output"], [])})
            yield Source(path, command, tuple(parts))


def changed_files() -> set[Path] | None:
    """Files that differ from the upstream branch; None if all may."""
    for upstream in ("@{upstream}", "origin/HEAD"):
        if base := git("merge-base", "HEAD", upstream):
            changed = git("diff", "--name-only", base[0])
            return {
                ROOT / line for line in (*changed, *git("ls-files", "-o", "--exclude-standard"))
            }
    return None


def left_to_upstream(source: Source, changed: set[Path] | None) -> bool:
    if changed is None or CONFIGURATION in changed:
        return False
    return changed.isdisjoint(source.parts)


def check(clang_tidy: str, source: Source) -> str:
    """clang-tidy's findings for a source; empty if it is clean."""
    result = subprocess.run(
        # The compile commands are g++'s, with a warning that clang does not know.
        [
            clang_tidy,
            "--quiet",
            "--extra-arg=-Wno-unknown-warning-option",
            "-p",
            str(CACHE),
            str(source.path),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if result.returncode == 0 else result.stdout or result.stderr


def salt_of(clang_tidy: str) -> bytes:
    version = subprocess.run([clang_tidy, "--version"], capture_output=True, check=True).stdout
    return CONFIGURATION.read_bytes() + version


def read_ledger() -> set[str]:
    """The digests of sources that were found clean."""
    if not LEDGER.exists():
        return set()
    lines = LEDGER.read_text(encoding="utf-8").splitlines()
    return {line.split("\t")[0] for line in lines if not line.startswith("#")}


def write_ledger(clean: dict[Path, str]) -> None:
    """Keep only current sources, by path."""
    lines = [f"{digest}\t{path.relative_to(ROOT)}" for path, digest in sorted(clean.items())]
    LEDGER.write_text("\n".join(["# digest\tsource", *lines]) + "\n", encoding="utf-8")


def is_in_sample(digest: str) -> bool:
    """Selects other sources with each commit."""
    head = git("rev-parse", "HEAD")
    return (int(digest[:8], 16) + int((head or ["0"])[0][:8], 16)) % SAMPLE == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clang-tidy", required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--changed", action="store_true", help="only what upstream has not")
    parser.add_argument("trees", nargs="+", type=Path)
    options = parser.parse_args()

    CACHE.mkdir(parents=True, exist_ok=True)
    own = own_sources()
    trees = [(ROOT / tree).resolve() for tree in options.trees]
    everything = {source.path: source for tree in trees for source in sources(tree, own)}
    (CACHE / "compile_commands.json").write_text(
        json.dumps([source.command for source in everything.values()]), encoding="utf-8"
    )
    salt = salt_of(options.clang_tidy)
    digests = {source: source.key(salt) for source in everything.values()}
    known = read_ledger()
    due = [
        source
        for source, digest in digests.items()
        if not (CACHE / digest).exists() and (digest not in known or is_in_sample(digest))
    ]
    total = len(due)
    clean = set(digests) - set(due)
    if options.changed:
        changed = changed_files()
        due = [source for source in due if not left_to_upstream(source, changed)]
    # The largest first, so that all processors end together.
    due.sort(key=lambda source: source.path.stat().st_size, reverse=True)
    reports = []
    with ThreadPoolExecutor(options.jobs) as pool:
        findings = pool.map(lambda source: check(options.clang_tidy, source), due)
        for source, finding in zip(due, findings, strict=True):
            if finding:
                reports.append(finding)
                clean.discard(source)
                print(finding, end="", flush=True)
            else:
                clean.add(source)
                (CACHE / digests[source]).touch()
    write_ledger({source.path: digests[source] for source in clean})
    left = f", {total - len(due)} left to upstream" if options.changed else ""
    print(f"{len(everything)} sources, {len(due)} read{left}, {len(reports)} with findings")
    return 1 if reports else 0


if __name__ == "__main__":
    sys.exit(main())
