"""The demo without a terminal: a few lines at intervals, events as they happen, the account."""

from __future__ import annotations

from penstock.cli import output, units
from penstock_demo import wording
from penstock_demo.corpus import Corpus
from penstock_demo.result import Account, Result
from penstock_demo.snapshot import Plan, Snapshot

_EVERY = 2.0  # seconds


class PlainView:
    """Writes lines to stdout, each at once and whole."""

    def __init__(self) -> None:
        self._next = _EVERY / 2
        self._told = 0
        self._waited = False

    def begin(self, plan: Plan) -> None:
        self._say(wording.intention(plan))

    def start(self, corpus: Corpus, segment: str) -> None:
        self._say(wording.data(corpus))
        self._say(f"segment: {segment}")

    def show(self, snapshot: Snapshot) -> None:
        for event in snapshot.events[self._told :]:
            self._say(f"{event.at:5.1f} s  {event.sentence}")
        self._told = len(snapshot.events)
        if snapshot.waiting_for and not self._waited:
            self._say(f"{snapshot.elapsed:5.1f} s  waiting for {snapshot.waiting_for}")
        self._waited = bool(snapshot.waiting_for)
        if snapshot.elapsed >= self._next:
            self._next = snapshot.elapsed + _EVERY
            self._progress(snapshot)

    def _progress(self, snapshot: Snapshot) -> None:
        self._say(
            f"{snapshot.elapsed:5.1f} s  {snapshot.fraction * 100:3.0f} %  "
            f"{snapshot.act}; {wording.flow(snapshot)}"
        )
        for row in snapshot.rows:
            self._say(f"         {wording.line_of(row)}")

    def stop(self) -> None:
        pass

    def judge(self, result: Result) -> None:
        self._say("")
        self._say(wording.sent(result))
        for line in account_lines(result.accounts):
            self._say(line)
        for line in wording.paces(result):
            self._say(line)
        if result.kill:
            self._say(wording.death(result.kill))
        self._say(wording.result(result))

    def _say(self, line: str) -> None:
        print(line, flush=True)


def account_lines(accounts: list[Account]) -> list[str]:
    header = ("worker", "pid", "from step", "to step", "received", "data", "lost", "torn", "")
    rows = [
        (
            wording.label(account.rank, account.replacement),
            str(account.pid),
            units.count(account.first),
            units.count(account.last),
            units.count(account.received),
            units.size(account.bytes),
            units.count(account.lost),
            units.count(account.torn),
            wording.fate(account),
        )
        for account in accounts
    ]
    return output.columns([header, *rows], right=range(1, 8))
