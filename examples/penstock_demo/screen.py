"""The demo on a terminal: a live table of the workers, a progress bar, and the events so far.
Everything is drawn anew from one Snapshot; the last picture stays on the screen."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from penstock.cli import units
from penstock_demo import wording
from penstock_demo.corpus import Corpus
from penstock_demo.result import Result
from penstock_demo.snapshot import Plan, Row, Snapshot
from penstock_demo.story import Event

_MARKS = {
    "starting": ("○", "yellow"),
    "checking": ("●", "green"),
    "stopped": ("■", "yellow"),
    "killed": ("✗", "red"),
    "died": ("✗", "red"),
    "finished": ("✓", "green"),
}
_MOODS = {"bad": "red", "good": "green", "plain": ""}
_EVENTS_SHOWN = 8


class ScreenView:
    """Satisfies snapshot.View. The live part is replaced by the account at the end."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._events: list[Event] = []

    def begin(self, plan: Plan) -> None:
        self._console.print(Text(wording.intention(plan), style="bold"))

    def start(self, corpus: Corpus, segment: str) -> None:
        self._console.print(Text(f"{wording.data(corpus)}\nsegment: {segment}", style="dim"))
        self._live.start()
        self._live.update(Text("\nstarting the workers …", style="yellow"), refresh=True)

    def show(self, snapshot: Snapshot) -> None:
        self._events = snapshot.events
        self._live.update(picture(snapshot), refresh=True)

    def stop(self) -> None:
        self._live.stop()

    def judge(self, result: Result) -> None:
        self._console.print()
        self._console.print(_story(self._events))
        self._console.print(account(result))
        for line in [wording.sent(result), *wording.paces(result)]:
            self._console.print(Text(line))
        if result.kill:
            self._console.print(Text(wording.death(result.kill)))
        style = "bold green" if result.ok else "bold red"
        mark = "✓" if result.ok else "✗"
        self._console.print(Text(f"{mark} {wording.result(result)}", style=style))


def picture(snapshot: Snapshot) -> RenderableType:
    """The whole live part."""
    parts: list[RenderableType] = [
        Text(),
        _progress(snapshot),
        Text(snapshot.act, style="cyan"),
        Text(wording.flow(snapshot)),
        Padding(_workers(snapshot.rows), (1, 0)),
    ]
    if snapshot.waiting_for:
        parts.append(Text(f"waiting for {snapshot.waiting_for}", style="yellow"))
    parts.append(_story(snapshot.events[-_EVENTS_SHOWN:]))
    return Group(*parts)


def _progress(snapshot: Snapshot) -> RenderableType:
    line = Table.grid(padding=(0, 2), expand=True)
    line.add_column(ratio=1)
    line.add_column(justify="right", no_wrap=True)
    bar = ProgressBar(total=1.0, completed=snapshot.fraction)
    line.add_row(bar, Text(f"{snapshot.fraction * 100:3.0f} %"))
    return line


def _story(events: list[Event]) -> RenderableType:
    """Times to the left, sentences to the right, on as many lines as they need."""
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for event in events:
        style = _MOODS[event.mood]
        table.add_row(Text(f"{event.at:.1f} s", style=style), Text(event.sentence, style=style))
    return table


def _workers(rows: list[Row]) -> Table:
    table = _table()
    table.add_column("worker", no_wrap=True)
    for title in ("pid", "steps", "msg/s", "GB/s", "behind", "p50", "p99", "CPU"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row), style="dim" if row.state in ("killed", "died") else "")
    return table


def _table() -> Table:
    return Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")


def _cells(row: Row) -> list[RenderableType]:
    mark, style = _MARKS[row.state]
    known = row.messages_per_s is not None
    return [
        Text(f"{mark} {wording.label(row.rank, row.replaces):<2} {row.state}", style=style),
        Text(str(row.pid)),
        Text(units.count(row.received)),
        Text(wording.number(row.messages_per_s)),
        Text(units.gigabytes(row.bytes_per_s or 0) if known else "·"),
        Text(wording.number(row.lag)),
        Text(wording.span(row.p50)),
        Text(wording.span(row.p99)),
        Text(units.percent(row.processor or 0) if known else "·"),
    ]


def account(result: Result) -> RenderableType:
    """The table of received steps by worker, between empty lines."""
    table = _table()
    table.add_column("worker")
    for title in ("pid", "from step", "to step", "received", "data", "lost", "torn"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("")
    for one in result.accounts:
        table.add_row(
            wording.label(one.rank, one.replacement),
            str(one.pid),
            units.count(one.first),
            units.count(one.last),
            units.count(one.received),
            units.size(one.bytes),
            _zero(one.lost),
            _zero(one.torn),
            Text(wording.fate(one), style="" if one.is_clean else "red"),
        )
    return Padding(table, (1, 0))


def _zero(number: int) -> Text:
    return Text(units.count(number), style="green" if number == 0 else "bold red")
