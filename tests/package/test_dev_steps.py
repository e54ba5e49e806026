"""The steps of `./dev test` themselves: background jobs, and the budgets of the steps."""

import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def bash(script: str, budgets: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script with the functions of ./dev, without CI's environment."""
    parts = ["budget", "report", "lane", "setup", "build", "lint"]
    sources = "\n".join(f"source {ROOT}/tools/dev/{part}.sh" for part in parts)
    table = f"BUDGETS={budgets}" if budgets else ""
    return subprocess.run(
        ["bash", "-c", f"set -euo pipefail\nunset CI\nROOT={ROOT}\n{sources}\n{table}\n{script}"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        cwd=ROOT,
        check=False,
    )


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_piece_of_the_lane_fails_its_own_step_and_no_other():
    result = bash("""
        bad() { echo about to fail; false; echo went on; }
        lane_add bad bad
        lane_add good echo fine
        lane_add skipped skip "no such thing here"
        lane_start
        step one lane_collect bad
        step two lane_collect good
        step three lane_collect skipped
        finish_report
    """)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "about to fail" in result.stdout
    assert "went on" not in result.stdout
    assert "fine" in result.stdout
    assert "three skipped: no such thing here" in result.stdout
    assert "steps: 1 passed, 1 failed, 1 skipped" in result.stdout


def test_the_lane_ends_with_the_command():
    result = bash("""
        endless() { echo "lane $BASHPID"; sleep 1000; }
        lane_add endless endless
        lane_start
        until grep -q lane "$LANE_FOLDER/endless.log" 2>/dev/null; do sleep 0.01; done
        cat "$LANE_FOLDER/endless.log"
        echo "folder $LANE_FOLDER"
    """)
    words = result.stdout.split()
    assert result.returncode == 0, result.stderr
    assert not Path(words[3]).exists()
    while is_running(words[1]):  # the signal is on its way; pytest's timeout is the bound
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("tier", "others", "outcome"),
    [
        ("full", 3, "FAILED by time"),
        ("full", 40, "over its budget of 10 s (others had 40 % of the processors)"),
        ("short", 3, "over its budget of 10 s"),
    ],
)
def test_a_step_over_its_budget_is_reported_and_fails_unless_it_is_noise(
    tmp_path: Path, tier: str, others: int, outcome: str
):
    table = tmp_path / "budgets.tsv"
    table.write_text("slow step\t10\t10\nother\t1\t1\n")
    result = bash(
        f"""
        BUDGET_TIER={tier}
        budget_others() {{ printf {others}; }}
        budget_judge "slow step" 10
        echo within
        budget_judge "unknown" 1000
        echo unknown
        budget_judge "slow step" 21
        """,
        table,
    )
    assert result.stdout.startswith("within\nunknown\n"), result.stderr
    assert outcome in result.stdout.splitlines()[2]


def test_the_steps_load_is_told_from_the_load_of_others():
    # The work is the test's own, so the others' part is at most the rest of the machine.
    words = bash("""
        BUDGET_TIER=full
        budget_start
        timeout 1 bash -c 'while :; do :; done' || true
        budget_others
        say " $BUDGET_CLOCK $(processor_ticks)"
    """).stdout.split()
    others, own, busy, all_before, own_after, busy_after, all_after = map(int, words)
    worked = own_after - own
    assert worked > 5, "a second of work, on however busy a machine"
    share = 100 * (busy_after - busy - worked) / (all_after - all_before)
    assert 0 <= others <= 100
    assert abs(others - share) < 20, "the two readings are a moment apart"


def test_every_step_has_a_budget_and_every_budget_a_step():
    text = (ROOT / "tools/dev/test.sh").read_text() + (ROOT / "tools/dev/lint.sh").read_text()
    named = {
        line.split('"')[1].replace("$LLVM", "19")
        for line in text.splitlines()
        if line.strip().startswith(("step ", "must ")) and '"' in line
    }
    budgets = {
        line.split("\t")[0]
        for line in (ROOT / "tools/dev/budgets.tsv").read_text().splitlines()
        if not line.startswith("#")
    }
    assert named - {"set-up"} == budgets - {"all"}
