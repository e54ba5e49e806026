"""Runs a Python program with the ``shm`` transport installed into its atroposlib.

python -m penstock.integrations.atropos my_env.py serve --env.transport shm
python -m penstock.integrations.atropos -m example_trainer.grpo --atropos-url shm://rollouts
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from .install import install

_USAGE = "usage: python -m penstock.integrations.atropos [-m MODULE | PROGRAM] [ARGUMENTS ...]"


def main(arguments: Sequence[str]) -> int:
    """Runs the program with its own arguments, which follow its name; its exit is this
    process's."""
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"{_USAGE}\n\n{(__doc__ or '').strip()}")
        return 0
    is_module = bool(arguments) and arguments[0] == "-m"
    rest = arguments[1:] if is_module else arguments
    if not rest or (rest[0].startswith("-") and not is_module):
        print(_USAGE, file=sys.stderr)
        return 2
    try:
        install()
    except ImportError as error:
        print(f"penstock: {error}", file=sys.stderr)
        return 1
    program = rest[0]
    sys.argv = list(rest)
    if is_module:
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(program, run_name="__main__", alter_sys=True)
        return 0
    if not Path(program).exists():
        print(f"penstock: there is no program {program}", file=sys.stderr)
        return 2
    sys.path.insert(0, str(Path(program).resolve().parent))
    runpy.run_path(program, run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
