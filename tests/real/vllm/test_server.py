"""vLLM's API server on Penstock: images over HTTP, and SIGKILL of each kind of process. What died
is named in the error that the user gets, nothing hangs, and nothing is left."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import WITHIN, penstocks_files
from servers import Server, data_url, server, wait_until
from tiny_models import IMAGE_SIDE

pytestmark = pytest.mark.timeout(2 * WITHIN)

GONE = 60.0  # seconds for what vLLM does at its end, on a busy machine


@pytest.fixture
def text_server(llama: Path, tmp_path: Path) -> Iterator[Server]:
    with server(llama, tmp_path) as started:
        status, said = started.complete("w1 w2 w3", 5)
        assert status == 200, said
        yield started


class Asking:
    """A request that takes long, in a thread. ``answer()``: its status, text and end."""

    def __init__(self, of: Server) -> None:
        self._found: list[tuple[int, Any, float]] = []
        self._thread = threading.Thread(target=self._ask, args=(of,))
        self._thread.start()

    def _ask(self, of: Server) -> None:
        try:
            status, said = of.complete("w4 w5 w6", 1000)
        except OSError as error:  # the server itself is gone
            status, said = 0, str(error)
        self._found.append((status, said, time.monotonic()))

    def answer(self) -> tuple[int, Any, float]:
        self._thread.join(WITHIN)
        return self._found[0]


def kill_while_asked(of: Server, pid: int) -> tuple[int, Any, float]:
    """Status and text of the answer, and seconds from the death to it."""
    asking = Asking(of)
    time.sleep(1.0)  # not to synchronise: so that steps are under way
    died = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    status, said, ended = asking.answer()
    return status, said, ended - died


def check_nothing_is_left(of: Server) -> None:
    wait_until(lambda: not of.processes(), GONE)
    wait_until(lambda: penstocks_files() == [], GONE)  # by multiprocessing's tracker, after them


def test_images_over_http(paligemma: Path, tmp_path: Path) -> None:
    images = [data_url(seed, IMAGE_SIDE) for seed in range(4)]
    with server(paligemma, tmp_path, mm_processor_cache_type="shm") as started:
        first = [started.describe(one, "w7", 30) for one in images]
        again = [started.describe(one, "w7", 30) for one in images]
        assert again == first
        assert len(set(first)) == 4, "each image has its own answer"
        assert any(name.startswith("penstock.vllm_mm_") for name in penstocks_files())
        started.process.send_signal(signal.SIGTERM)
        check_nothing_is_left(started)


def test_a_killed_worker_is_named(text_server: Server) -> None:
    status, said, seconds = kill_while_asked(text_server, text_server.workers[1])
    assert status == 500, said
    assert f"(pid {text_server.workers[1]}) died" in said
    assert seconds < 1, said
    check_nothing_is_left(text_server)


def test_a_killed_worker_of_an_idle_engine_is_named(text_server: Server) -> None:
    os.kill(text_server.workers[0], signal.SIGKILL)
    # the executor says so at once; the next request gets the error
    wait_until(lambda: "died unexpectedly" in text_server.log(), GONE)
    began = time.monotonic()
    status, said = text_server.complete("w1", 5)
    assert time.monotonic() - began < 1
    assert status == 500, said
    assert f"(pid {text_server.workers[0]}) died" in said
    check_nothing_is_left(text_server)


def test_a_killed_engine_is_named(text_server: Server) -> None:
    status, said, seconds = kill_while_asked(text_server, text_server.engine)
    assert status == 500, said
    assert f"(pid {text_server.engine}) died" in said
    assert seconds < 1, said
    check_nothing_is_left(text_server)


def test_a_killed_server_takes_its_engine_with_it(text_server: Server) -> None:
    kill_while_asked(text_server, text_server.process.pid)
    text_server.process.wait()
    check_nothing_is_left(text_server)
    assert "The process that started EngineCore" in text_server.log()
