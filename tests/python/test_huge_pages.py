"""``huge_pages=True``: without privileges, in every concept; what it spares processes that attach,
and the share in the statistics."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from creations import CREATIONS

import penstock
from penstock import inspect
from penstock.cli.main import main

MIB = 1 << 20
CAPACITY = 64 * MIB


@pytest.fixture(autouse=True)
def given(name: str) -> None:
    """Skips with the library's reason where the kernel makes no huge pages of files."""
    try:
        penstock.Store.create(name, capacity=CAPACITY, huge_pages=True).close()
    except penstock.InvalidArgument as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("create", CREATIONS.values(), ids=CREATIONS.keys())
def test_every_concept_has_them(name: str, create: Callable[..., Any], capsys: Any) -> None:
    with create(name, capacity=CAPACITY, huge_pages=True):
        info: Any = inspect.inspect(name)
        stats = info.stats
        assert CAPACITY <= stats.huge_page_bytes <= stats.reserved_bytes
        assert main(["info", name, "--interval", "0"]) == 0
        assert " of it in huge pages" in capsys.readouterr().out
        assert main(["info", name, "--json", "--interval", "0"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["stats"]["huge_page_bytes"] == stats.huge_page_bytes
        assert main(["metrics", name]) == 0
        assert "huge_page_bytes{" in capsys.readouterr().out


@pytest.mark.parametrize("create", CREATIONS.values(), ids=CREATIONS.keys())
def test_without_them_there_are_none(name: str, create: Callable[..., Any], capsys: Any) -> None:
    with create(name, capacity=CAPACITY):
        info: Any = inspect.inspect(name)
        assert info.stats.huge_page_bytes == 0
        assert main(["info", name, "--interval", "0"]) == 0
        assert "in huge pages" not in capsys.readouterr().out.split("statistics")[0]


READER = """
    import json, resource, sys
    import numpy as np, penstock

    def mapped() -> int:
        for line in open("/proc/self/smaps_rollup"):
            if line.startswith("ShmemPmdMapped:"):
                return int(line.split()[1]) * 1024
        return 0

    with penstock.Store.attach(sys.argv[1]) as store, store.get("array") as array:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        total = int(array[::4096].sum())
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        print(json.dumps({"total": total, "faults": faults, "mapped": mapped()}))
"""


def read_elsewhere(name: str) -> dict[str, int]:
    command = [sys.executable, "-c", textwrap.dedent(READER), name]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=True)
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("huge", [True, False])
def test_the_first_use_of_another_process_maps_huge_pages(name: str, huge: bool) -> None:
    size = 48 * MIB
    with penstock.Store.create(name, capacity=CAPACITY, huge_pages=huge) as store:
        store.put("array", np.ones(size, dtype=np.uint8))
        seen = read_elsewhere(name)
    assert seen["total"] == size // 4096
    if huge:
        assert seen["mapped"] >= size
        # Of 12,288 in small pages. Python's own are included, and a sanitizer's.
        assert seen["faults"] <= size // (2 * MIB) + 200
    else:
        assert seen["mapped"] == 0
        assert seen["faults"] >= size // (64 << 10)  # a fault maps 16 pages


def test_a_capacity_below_a_huge_page_is_refused(name: str) -> None:
    with pytest.raises(penstock.InvalidArgument, match=r"with huge_pages: .* MiB at least"):
        penstock.Store.create(name, capacity="1MiB", huge_pages=True)


def test_a_creation_is_interrupted(name: str) -> None:
    """By an exception of a signal handler; nothing is left, and a later one succeeds."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    handler = signal.signal(signal.SIGPROF, interrupt)
    try:
        signal.setitimer(signal.ITIMER_PROF, 0.02)  # processor time: creation takes longer
        with pytest.raises(KeyboardInterrupt):
            penstock.Store.create(name, capacity="1GiB", huge_pages=True)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
    assert not Path(f"/dev/shm/penstock.{name}").exists()
    penstock.Store.create(name, capacity=CAPACITY, huge_pages=True).close()


def test_doctor_tries_them(capsys: Any) -> None:
    main(["doctor", "--json"])
    findings = json.loads(capsys.readouterr().out)["findings"]
    (one,) = [each for each in findings if each["what"] == "huge pages, shmem"]
    assert one["level"] == "ok"
    assert "MiB" in one["found"]
