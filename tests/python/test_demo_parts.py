"""The checks of the demo: they must detect a lost, doubled or torn step. And its texts, which must
fit on a terminal of eighty columns."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from penstock_demo import latency, result, screen, steps
from penstock_demo.corpus import NothingToSend, read_corpus
from penstock_demo.ledger import Ledger
from penstock_demo.snapshot import Row, Snapshot
from penstock_demo.story import Event


@pytest.fixture
def corpus(tmp_path: Path):
    (tmp_path / "a").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "b").write_bytes(b"penstock" * 3)
    return read_corpus(tmp_path)


def made_steps(corpus, count: int, tensor_every: int = 0) -> list[steps.Step]:
    maker = steps.StepMaker(corpus, tensor_every)
    made = [maker.make(number, "engine") for number in range(count)]
    for step in made:
        step["sent_at"] = time.monotonic_ns()
    return made


def entered(ledger: Ledger, sequence: list[steps.Step]) -> dict:
    for step in sequence:
        ledger.enter(step, step["sent_at"] + 50_000)
    return ledger.report()


def test_corpus_is_all_files_end_to_end_and_over_again(corpus) -> None:
    assert corpus.files == 2
    assert len(corpus.data) == 256 * 40 + 24
    whole = corpus.data.tobytes()
    assert corpus.passage(10, 20).tobytes() == whole[10:30]
    around = corpus.passage(len(whole) - 5, 2 * len(whole)).tobytes()
    assert around == (whole[-5:] + 3 * whole)[: 2 * len(whole)]


def test_a_path_without_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NothingToSend, match="no readable bytes"):
        read_corpus(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_corpus(tmp_path / "missing")
    with pytest.raises(NothingToSend, match="neither"):
        read_corpus(Path("/dev/null"))


@pytest.mark.full
def test_the_default_corpus_is_the_standard_library() -> None:
    corpus = read_corpus()
    assert corpus.files > 100
    assert b"import" in corpus.data[: 1 << 20].tobytes()


def test_steps_hold_the_bytes_of_the_corpus_in_order(corpus) -> None:
    text = b"".join(step["text"].tobytes() for step in made_steps(corpus, 12))
    repeated = corpus.data.tobytes() * (1 + len(text) // len(corpus.data))
    assert text == repeated[: len(text)]


@pytest.mark.parametrize("field", ["text", "tokens", "lengths", "tensor"])
def test_the_checksum_covers_every_array(corpus, field: str) -> None:
    step = made_steps(corpus, 1, tensor_every=1)[0]
    assert steps.checksum(step) == step["checksum"]
    changed = step[field].copy()
    changed.reshape(-1).view(np.uint8)[-1] ^= 1
    assert steps.checksum({**step, field: changed}) != step["checksum"]
    assert steps.checksum({**step, "step": 1}) != step["checksum"]
    assert steps.checksum({**step, "requests": ["another"]}) != step["checksum"]


def test_ledger_of_a_clean_run(corpus) -> None:
    sequence = made_steps(corpus, 30)
    report = entered(Ledger(expected=0), sequence)
    assert (report["first"], report["last"], report["received"]) == (0, 29, 30)
    assert (report["lost"], report["torn"], report["disordered"]) == (0, 0, 0)
    assert report["bytes"] == sum(map(steps.payload, sequence))
    assert report["latency"]["engine"].sum() == 30


def test_ledger_detects_missing_doubled_and_torn_steps(corpus) -> None:
    sequence = made_steps(corpus, 10)
    assert entered(Ledger(expected=0), sequence[:4] + sequence[6:])["lost"] == 2
    assert entered(Ledger(expected=0), sequence[2:])["lost"] == 2
    assert entered(Ledger(expected=None), sequence[2:])["lost"] == 0  # a replacement
    doubled = entered(Ledger(expected=0), [*sequence[:5], sequence[4], *sequence[5:]])
    assert (doubled["disordered"], doubled["lost"]) == (1, 0)
    sequence[3]["tokens"] = sequence[3]["tokens"] + 1
    assert entered(Ledger(expected=0), sequence)["torn"] == 1


def test_percentiles_are_within_a_bucket_of_the_truth() -> None:
    counts = latency.no_counts()
    spans = [1000 * (place + 1) for place in range(1000)]  # 1 µs to 1 ms
    latency.count(counts, spans)
    assert latency.percentile(counts, 0.50) == pytest.approx(500e-6, rel=0.05)
    assert latency.percentile(counts, 0.99) == pytest.approx(990e-6, rel=0.05)
    assert latency.percentile(latency.no_counts(), 0.5) is None
    latency.count(counts, [0, 10**15])  # out of range on both sides: counted at the ends
    assert counts.sum() == 1002


def account(**changes: object) -> result.Account:
    fields = {
        "rank": 0,
        "pid": 1,
        "fate": "finished",
        "replacement": False,
        "first": 0,
        "last": 9,
        "received": 10,
        "bytes": 100,
        "tensors": 0,
        "lost": 0,
        "disordered": 0,
        "torn": 0,
    }
    return result.Account(**{**fields, **changes})


def judged(*accounts: result.Account, problems: tuple[str, ...] = ()) -> result.Result:
    return result.Result(
        segment="demo-0",
        steps=10,
        bytes=100,
        tensors=0,
        seconds=1.0,
        accounts=list(accounts),
        kill=None,
        latency={"engine": {"p50": 1e-4, "p99": 1e-3}},
        rates={"engine": 10.0},
        problems=list(problems),
    )


def test_the_result_is_good_only_if_everything_is() -> None:
    assert judged(account(), account(rank=1, fate="killed")).ok
    assert not judged(account(lost=1)).ok
    assert not judged(account(torn=1)).ok
    assert not judged(account(disordered=1)).ok
    assert not judged(account(fate="silent")).ok
    assert not judged(account(), problems=("the kill was not noticed",)).ok
    assert judged(account(lost=2), account(lost=1, rank=1)).to_json()["lost"] == 3


def rendered(what: object) -> str:
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    console.print(what)
    return console.file.getvalue()


def test_the_live_picture_fits_and_says_it_all() -> None:
    rows = [
        Row(0, 123456, "checking", False, 1234567, 12345.0, 1.234e9, 345, 12e-3, 0.11, 0.45),
        Row(2, 123457, "killed", False, 41220),
        Row(2, 123458, "starting", True, 0),
    ]
    events = [Event(9.0, "SIGKILL to worker 2 (pid 123457)", "bad")]
    snapshot = Snapshot(
        0.5, 9.0, "flat out", 41230, 3 << 30, 5 << 20, rows, events, "reader 1 (pid 5), stopped"
    )
    text = rendered(screen.picture(snapshot))
    assert max(map(len, text.splitlines())) <= 80
    for word in (
        "50 %",
        "flat out",
        "1,234,567",
        "1.23",
        "45 %",
        "2'",
        "5.0 MiB",
        "SIGKILL",
        "stopped",
    ):
        assert word in text
    assert "…" not in text  # no text was cut


def test_the_account_fits_and_shows_losses() -> None:
    long = {"first": 1234567, "last": 1234567, "received": 1234567, "pid": 4194304}
    text = rendered(screen.account(judged(account(**long), account(**long, lost=7, fate="killed"))))
    assert max(map(len, text.splitlines())) <= 80
    assert "1,234,567" in text
    assert " 7 " in text
    assert "killed" in text
