#!/usr/bin/env python3
"""Draw the picture for the docs from the output of a run with --json.

python bench/plot.py figures.json docs/figures.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

from machine import one_line
from results import Results

mpl.use("Agg")
from matplotlib import pyplot as plt

INK = "#1b1f24"
COLOURS = {
    "penstock": "#0b6e99",
    "penstock, view": "#5fb0cf",
    "penstock, in place": "#5fb0cf",
    "penstock queue": "#3a8f7b",
    "bare ping-pong": "#8a8f98",
    "bare shared buffer": "#b6bac2",
    "unix socket": "#c77d1e",
    "boost message_queue": "#8d5fa8",
    "zeromq ipc": "#b5423c",
    "multiprocessing.Queue": "#4f7f3a",
    "multiprocessing.Pipe": "#93b05a",
    "iceoryx2, polling": "#d18fa8",
    "kickmsg": "#2f6f6a",
    "kickmsg, polling": "#6fb3ad",
    "tachyon": "#7a6a3a",
}
SIZE_TICKS = {
    64: "64",
    1 << 10: "1K",
    16 << 10: "16K",
    256 << 10: "256K",
    1 << 20: "1M",
    16 << 20: "16M",
    64 << 20: "64M",
}


def _colour(who: str) -> str:
    return COLOURS.get(who, INK)


def _style(who: str) -> dict[str, Any]:
    is_bare = who.startswith("bare")
    return {
        "color": _colour(who),
        "linestyle": "--" if is_bare else "-",
        "linewidth": 2.4 if who == "penstock" else 1.4,
        "marker": "" if is_bare else "o",
        "markersize": 4,
        "zorder": 3 if who == "penstock" else 2,
    }


def _draw_latency(axes: Any, results: Results, bench: str, title: str) -> None:
    for who in results.contenders(bench):
        rows = sorted(results.all(bench, who=who, readers=1), key=lambda row: row["size"])
        if rows:
            axes.plot(
                [row["size"] for row in rows],
                [row["p50_ns"] / 1e3 for row in rows],
                label=who,
                **_style(who),
            )
    axes.set(xscale="log", yscale="log", title=title, ylabel="one way, p50, µs", xlabel="bytes")
    axes.set_xticks(list(SIZE_TICKS), SIZE_TICKS.values())
    axes.minorticks_off()


def _draw_bars(axes: Any, rows: list[tuple[str, float]], title: str, label: str) -> None:
    rows = rows[::-1]
    bars = axes.barh(
        [who for who, _ in rows], [value for _, value in rows], color=[_colour(w) for w, _ in rows]
    )
    axes.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
    axes.set(xscale="log", title=title, xlabel=label)
    axes.margins(x=0.2)


def _draw_readers(axes: Any, results: Results) -> None:
    for who in results.contenders("throughput"):
        rows = sorted(results.all("throughput", who=who, size=64), key=lambda row: row["readers"])
        axes.plot(
            [row["readers"] for row in rows],
            [row["driver_processor_ns"] for row in rows],
            label=who,
            **_style(who),
        )
    axes.set(
        xscale="log",
        yscale="log",
        title="What a 64 B message costs its sender, by readers",
        ylabel="processor time, ns",
        xlabel="readers",
    )
    axes.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    axes.minorticks_off()


def draw_picture(document: dict[str, Any], path: Path) -> None:
    """Six charts: latency and throughput in C++ and in Python, fan-out, and objects."""
    results = Results(document["records"])
    plt.rcParams.update(
        {
            "font.size": 9,
            "text.color": INK,
            "axes.titlesize": 10,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "legend.frameon": False,
            "svg.hashsalt": "penstock",  # equal figures give equal files
        }
    )
    figure, grid = plt.subplots(3, 2, figsize=(11, 12), layout="constrained")
    _draw_latency(grid[0][0], results, "latency", "C++: latency by message size")
    grid[0][0].legend(fontsize=8)
    _draw_latency(grid[0][1], results, "python_latency", "Python: latency by message size")
    grid[0][1].legend(fontsize=8)
    for axes, bench, title in (
        (grid[1][0], "throughput", "C++: 64 B messages to one reader"),
        (grid[1][1], "python_throughput", "Python: 64 B messages to one reader"),
    ):
        rows = [
            (row["who"], row["messages_per_s"] / 1e6)
            for row in results.all(bench, size=64, readers=1)
        ]
        _draw_bars(axes, rows, title, "million messages a second")
    _draw_readers(grid[2][0], results)
    grid[2][0].legend(fontsize=8)
    objects = [
        (row["who"], row["p50_ns"] / 1e3) for row in results.all("python_object", kind="small dict")
    ]
    _draw_bars(grid[2][1], objects, "Python: a small dict there and back", "p50, µs")
    figure.suptitle(
        f"{one_line(document['machine'])}\n{document['command']}, {document['taken_at'][:10]}",
        fontsize=8,
        x=0.01,
        horizontalalignment="left",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def main() -> int:
    if len(sys.argv) != 3:
        print("usage: plot.py RESULTS.json PICTURE.svg|.png", file=sys.stderr)
        return 2
    draw_picture(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
