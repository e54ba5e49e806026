"""The bare ping-pong of bench/cpp, between the cores of the driver and of the first reader.

It takes turns with the contenders: a figure is read beside what a cache line cost at that moment.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from processes import die_with_parent, has_core_each

PING_PONG = "bare ping-pong"
_BUILT = Path(__file__).resolve().parents[2] / "build" / "release" / "bench"
_PROGRAM = Path(os.environ.get("PENSTOCK_BENCH_PROGRAMS", _BUILT)) / "bench_ping_pong"
_WARM_UP, _ROUNDS = 20, 200


class PingPong:
    """Made before this process is pinned. Plays nothing on a single core, or if not built."""

    def __init__(self) -> None:
        self._program: subprocess.Popen[str] | None = None
        if has_core_each(1) and _PROGRAM.exists():
            self._program = subprocess.Popen(
                [str(_PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                preexec_fn=die_with_parent,
            )

    def play(self) -> list[float]:
        """A turn: the nanoseconds of each round trip; nothing without the program."""
        if self._program is None:
            return []
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(f"{_WARM_UP + _ROUNDS}\n")
        self._program.stdin.flush()
        return [float(word) for word in self._program.stdout.readline().split()][_WARM_UP:]

    def close(self) -> None:
        if self._program is not None:
            self._program.communicate()
