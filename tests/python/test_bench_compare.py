"""bench/compare.py: what counts as a change between two runs, and what as noise."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"

if not BENCH.exists():
    pytest.skip("the benchmark is not beside the tests", allow_module_level=True)
sys.path.insert(0, str(BENCH))

import compare  # noqa: E402
import readings  # noqa: E402
import results  # noqa: E402

CASE = {"bench": "latency", "size": 64, "readers": 1}
SPREAD = [0.96, 0.98, 0.99, 1.0, 1.0, 1.0, 1.01, 1.02, 1.03, 1.04]
OWN = "latency [64 B, 1]: penstock, p50_ns to bare ping-pong"


def record(who: str, median: float, **more: Any) -> dict[str, Any]:
    return {**CASE, "who": who, "turn_p50_ns": [median * one for one in SPREAD], **more}


def run_of(own: float, bare: float = 70.0, peer: float = 1400.0) -> readings.Readings:
    records = [record("bare ping-pong", bare), record("penstock", own), record("unix socket", peer)]
    return readings.readings_of(results.Results(records))


def changed(before: readings.Readings, after: readings.Readings) -> list[str]:
    return [one.name for one in compare.beyond_noise(compare.changes(before, after))]


def test_a_figure_is_the_ratio_to_its_yardstick_turn_by_turn() -> None:
    reading = run_of(own=105.0)[OWN]
    assert reading.middle == pytest.approx(1.5)
    assert reading.low == pytest.approx(1.5)  # the noise of a turn is in both
    assert reading.is_own


def test_a_machine_on_which_all_takes_twice_as_long_has_changed_nothing() -> None:
    assert changed(run_of(105, 70, 1400), run_of(210, 140, 2800)) == []


def test_a_figure_that_takes_half_as_long_again_has_changed() -> None:
    assert changed(run_of(105), run_of(157)) == [OWN]


def test_a_change_within_what_unchanged_programs_show_is_noise() -> None:
    assert changed(run_of(105), run_of(120, peer=1800)) == []


def test_bands_that_meet_are_noise() -> None:
    wide = [0.7, 0.8, 0.9, 1.0, 1.0, 1.0, 1.1, 1.2, 1.3, 1.4]

    def run(own: float) -> readings.Readings:
        parked = {"bench": "writer_cost", "who": "penstock", "mode": "pure", "readers": 1}
        turns = [own * one for one in wide]
        return readings.readings_of(results.Results([{**parked, "turn_processor_ns": turns}]))

    assert changed(run(20), run(26)) == []
    assert changed(run(20), run(60)) != []


def test_a_higher_rate_is_better() -> None:
    def run(own: float) -> readings.Readings:
        place = {"bench": "throughput", "size": 64, "readers": 1}
        peers = {"penstock": own, "unix socket": 1e6}
        records = [
            {**place, "who": who, "turn_messages_per_s": [rate] * 3} for who, rate in peers.items()
        ]
        return readings.readings_of(results.Results(records))

    (change,) = compare.beyond_noise(compare.changes(run(30e6), run(60e6)))
    assert change.factor == pytest.approx(2)
    assert [one.name for one in compare.worse_by(compare.changes(run(60e6), run(10e6)), 3)] == [
        change.name
    ]
    assert compare.worse_by(compare.changes(run(60e6), run(30e6)), 3) == []


def test_the_range_of_three_runs_is_their_band() -> None:
    merged = readings.merge([run_of(100), run_of(140), run_of(110)])[OWN]
    assert merged.middle == pytest.approx(110 / 70)
    assert (merged.low, merged.high) == (pytest.approx(100 / 70), pytest.approx(140 / 70))


def test_a_baseline_holds_ratios_alone_and_is_read_again(tmp_path: Path) -> None:
    runs = []
    for number, own in enumerate((100, 105, 110)):
        file = tmp_path / f"run{number}.json"
        records = [record("bare ping-pong", 70), record("penstock", own)]
        records.append({"bench": "parked", "who": "penstock", "worst_share": 0.001})
        file.write_text(json.dumps({"records": records}))
        runs.append(file)
    compare.write_baseline(tmp_path / "baseline.json", runs)
    read = readings.load(tmp_path / "baseline.json")
    assert list(read) == [OWN]
    assert read[OWN].middle == pytest.approx(1.5)
    assert read[OWN].count == 3


def test_grossly_worse_is_beyond_all_that_the_baseline_saw() -> None:
    baseline = readings.merge([run_of(100), run_of(140), run_of(110)])
    assert compare.worse_by(compare.changes(baseline, run_of(400)), 3) == []
    assert [one.name for one in compare.worse_by(compare.changes(baseline, run_of(430)), 3)] == [
        OWN
    ]
