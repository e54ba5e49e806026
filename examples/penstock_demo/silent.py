"""The demo without output: for `--json`, where only the result is printed."""

from __future__ import annotations

from penstock_demo.corpus import Corpus
from penstock_demo.result import Result
from penstock_demo.snapshot import Plan, Snapshot


class SilentView:
    """Satisfies snapshot.View."""

    def begin(self, plan: Plan) -> None:
        pass

    def start(self, corpus: Corpus, segment: str) -> None:
        pass

    def show(self, snapshot: Snapshot) -> None:
        pass

    def stop(self) -> None:
        pass

    def judge(self, result: Result) -> None:
        pass
