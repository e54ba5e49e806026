"""Print the requirements of pyproject.toml: groups are `build`, `runtime`, or the name of an extra.

One requirement a line, for pip, so that no other file has to repeat them.
"""

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib


def requirements(project: dict, group: str) -> list[str]:
    if group == "build":
        return project["build-system"]["requires"]
    if group == "runtime":
        return project["project"]["dependencies"]
    return project["project"]["optional-dependencies"][group]


def main() -> None:
    path = Path(__file__).resolve().parents[2] / "pyproject.toml"
    project = tomllib.loads(path.read_text(encoding="utf-8"))
    for group in sys.argv[1:]:
        print("\n".join(requirements(project, group)))


if __name__ == "__main__":
    main()
