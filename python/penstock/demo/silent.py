"""The demo that shows nothing: for `--json`, where the verdict alone is printed."""

from __future__ import annotations

from penstock.demo.corpus import Corpus
from penstock.demo.scene import Plan, Scene
from penstock.demo.verdict import Verdict


class SilentView:
    """Satisfies scene.View."""

    def begin(self, plan: Plan) -> None:
        pass

    def start(self, corpus: Corpus, segment: str) -> None:
        pass

    def show(self, scene: Scene) -> None:
        pass

    def stop(self) -> None:
        pass

    def judge(self, verdict: Verdict) -> None:
        pass
