"""One worker process of the demo: receives every step in place, checks it, and reports back. Run as
`python -m penstock_demo.worker ORDERS`; it ends when the driver closes, or dies."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import penstock
from penstock_demo.ledger import Ledger

REPORT_EVERY = 0.1  # seconds
_ATTACH_WITHIN = 20.0
_LAST_REPORT_WITHIN = 10.0


@dataclass(frozen=True)
class Orders:
    """The driver's instructions to a worker at its start, on the command line."""

    steps: str  # the Broadcast to read
    rank: int
    reports: str  # the Broadcast to create for reports
    replaces: bool  # attached in the middle: any first step is right

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Orders:
        return Orders(**json.loads(text))


def main(orders: Orders) -> int:
    _name_this_process(f"demo-worker-{orders.rank}")
    ledger = Ledger(expected=None if orders.replaces else 0)
    with (
        penstock.Broadcast.create(orders.reports, readers=1, capacity="64KiB") as reports,
        penstock.Broadcast.attach(orders.steps, rank=orders.rank, timeout=_ATTACH_WITHIN) as reader,
    ):
        _report(reports, ledger)
        try:
            _receive_until_closed(reader, reports, ledger)
            reports.send(ledger.report(finished=True), timeout=_LAST_REPORT_WITHIN)
        except penstock.PeerDied:
            return 1  # the driver is dead: nothing to report to
    return 0


def _receive_until_closed(
    reader: penstock.BroadcastReader, reports: penstock.BroadcastWriter, ledger: Ledger
) -> None:
    due = time.monotonic() + REPORT_EVERY
    while True:
        try:
            _receive(reader, ledger)
        except penstock.Timeout:
            pass
        except penstock.Closed:
            return
        if time.monotonic() >= due:
            _report(reports, ledger)
            due += REPORT_EVERY


def _receive(reader: penstock.BroadcastReader, ledger: Ledger) -> None:
    """One step, checked in place. Its arrays, and so its lease, end with this function."""
    with reader.recv_view(timeout=REPORT_EVERY) as step:
        ledger.enter(step, time.monotonic_ns())


def _report(reports: penstock.BroadcastWriter, ledger: Ledger) -> None:
    """Send the account if there is room. The next one includes it, so a slow driver must not block
    the worker."""
    try:
        reports.send(ledger.report(), timeout=0)
    except (penstock.Timeout, penstock.PeerDied):
        pass


def _name_this_process(name: str) -> None:
    """For `penstock ls`, `top` and error messages; fifteen characters are kept."""
    try:
        Path("/proc/self/comm").write_text(name)
    except OSError:
        pass


if __name__ == "__main__":
    sys.exit(main(Orders.from_json(sys.argv[1])))
