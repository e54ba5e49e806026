"""`penstock lmcache serve` where lmcache is missing, or has an untested version: a message only."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import penstock
from penstock.integrations.lmcache import server_run

WITHIN = 60.0
_COMMANDS = {
    "penstock lmcache": ["penstock.cli.main", "lmcache"],
    "python -m": ["penstock.integrations.lmcache"],
}


@pytest.mark.parametrize("command", _COMMANDS.values(), ids=_COMMANDS.keys())
def test_without_lmcache_it_says_what_to_install(
    command: list[str], name: str, tmp_path: Path
) -> None:
    hidden = (  # even where it is installed
        "import importlib.metadata, runpy, sys\n"
        "def version(of): raise importlib.metadata.PackageNotFoundError(of)\n"
        "importlib.metadata.version = version\n"
        f"sys.argv = ['penstock', *{[*command[1:], 'serve', '--pool', name]!r}]\n"
        f"runpy.run_module({command[0]!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", hidden], capture_output=True, text=True, timeout=WITHIN, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "pip install lmcache==0.5.6" in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path(f"/dev/shm/penstock.{name}").exists()


def test_another_version_is_refused_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.9.0")
    with pytest.raises(penstock.Error, match=r"lmcache 0\.9\.0 .* tested with 0\.5\.6"):
        server_run.check_lmcache()
    assert server_run.check_lmcache(any_version=True) == "0.9.0"
    monkeypatch.setattr(importlib.metadata, "version", lambda _: server_run.TESTED[-1])
    assert server_run.check_lmcache() == "0.5.6"


@pytest.mark.parametrize("wrong", [["--port", "65536"], ["--capacity", "much"], ["--silence", "0"]])
def test_wrong_options_are_usage(wrong: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "penstock.cli.main", "lmcache", "serve", "--pool", "kv", *wrong],
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert done.returncode == 2
    assert wrong[0] in done.stderr
