"""Check that a source includes, or imports, only from floors below its own.

C++: os, segment, the concepts, codec and remote, trajectories, bindings; a public header lies on
the floor of the sources that implement it. Python: the core, shared modules, the concepts, modules
on top of one concept, inspect, integrations, commands. Rooms on one floor must not include each
other. Prints every line that breaks the order.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONCEPTS = ("broadcast", "queue", "store", "service")
HEIGHT = {"os": 0, "segment": 1, **dict.fromkeys(CONCEPTS, 2), "codec": 3, "remote": 3}
HEIGHT["inspect"] = 3  # inspects segments of every kind
HEIGHT["trajectories"] = 4  # a Queue of messages that the codec writes
HEIGHT["bindings"] = 5
# Public headers with another name than the room that implements them.
HEADERS = {
    **dict.fromkeys(("error", "segment", "statistics", "wait", "format"), "segment"),
    "second_tier": "store",
}
INCLUDE = re.compile(r'^\s*#\s*include\s+"(?P<path>[^"]+)"')

PACKAGE = ROOT / "python" / "penstock"
SHARED = ("errors", "handle", "state", "codec", "dead_letters")  # and all modules that begin with _
PYTHON_HEIGHT = {
    "_core": 0,
    "shared": 1,
    **dict.fromkeys(CONCEPTS, 2),
    "trajectories": 3,
    **dict.fromkeys(("inspect", "metrics"), 4),
    "integrations": 5,
    "commands": 6,
}


def room_of_source(path: Path) -> str | None:
    parts = path.relative_to(ROOT).parts
    if parts[0] == "src":
        return parts[1]
    if parts[0] == "include":
        return HEADERS.get(path.stem, path.stem)
    return "bindings"


def room_of_include(path: str) -> str:
    parts = Path(path).parts
    return HEADERS.get(Path(path).stem, Path(path).stem) if parts[0] == "penstock" else parts[0]


def included_rooms(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        match = INCLUDE.match(line)
        if match:
            yield number, room_of_include(match["path"])


def room_of_module(parts: tuple[str, ...]) -> str | None:
    """The room of a module's path within the package; None for the package itself, which re-exports
    all."""
    if not parts or parts[0] == "__init__":
        return None
    if parts[0] == "cli" or parts[-1] == "__main__":
        return "commands"
    if parts[0] in SHARED or (parts[0].startswith("_") and parts[0] != "_core"):
        return "shared"
    return parts[0]


def imported_modules(node: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Paths within the package, including names that are not modules."""
    if isinstance(node, ast.Import):
        names = [tuple(alias.name.split(".")) for alias in node.names]
        yield from (name[1:] for name in names if name[0] == "penstock")
    elif isinstance(node, ast.ImportFrom):
        base = tuple(node.module.split(".")) if node.module else ()
        if node.level > 0:
            base = package[: len(package) + 1 - node.level] + base
        elif base[:1] == ("penstock",):
            base = base[1:]
        else:
            return
        yield from [base] if base else [(alias.name,) for alias in node.names]


def imported_rooms(path: Path) -> Iterator[tuple[int, str]]:
    package = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for module in imported_modules(node, package):
            room = room_of_module(module)
            if room is not None:
                yield node.lineno, room  # type: ignore[attr-defined]


def offences(
    path: Path, own: str | None, seen: Iterator[tuple[int, str]], height: dict[str, int]
) -> list[str]:
    if own is None:
        return []
    if own not in height:
        return [f"{path.relative_to(ROOT)}: on no floor; tools/dev/floors.py has to say on which"]
    return [
        f"{path.relative_to(ROOT)}:{number}: {own} sees {room}"
        for number, room in seen
        if room in height and room != own and height[room] >= height[own]
    ]


def main() -> int:
    sources = [
        *ROOT.glob("src/**/*.[ch]pp"),
        *ROOT.glob("include/**/*.hpp"),
        *ROOT.glob("python/bindings/*.[ch]pp"),
    ]
    modules = list(PACKAGE.glob("**/*.py"))
    found = [
        offence
        for path in sorted(sources)
        for offence in offences(path, room_of_source(path), included_rooms(path), HEIGHT)
    ]
    for path in sorted(modules):
        room = room_of_module(path.relative_to(PACKAGE).with_suffix("").parts)
        found += offences(path, room, imported_rooms(path), PYTHON_HEIGHT)
    count = f"{len(sources)} sources and {len(modules)} modules"
    print("\n".join(found) if found else f"{count}, which see only what is below them")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
