"""The command itself: ended at any moment, a taken port."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("lmcache", reason="lmcache is not installed in this environment")

from ports import free_port
from server_workers import CHUNK, WITHIN, Server, overlap, tokens_of, wait_until, worker

from penstock.integrations.lmcache import PoolServer

pytestmark = [pytest.mark.timeout(400), pytest.mark.usefixtures("all_imported")]

UNSHARED = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Addressed:
    """A server process, as workers address it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        said = process.stdout.readline()
        while not said.rstrip().endswith("}"):
            line = process.stdout.readline()
            assert line, said
            said += line
        told = json.loads(said)
        self.pool, self.address = told["pool"], told["address"]


@contextlib.contextmanager
def command(
    name: str, *options: str, module: str = "cli.main", before: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    begin = [*before, sys.executable, "-m", f"penstock.{module}"]
    lmcache = ["lmcache"] if module == "cli.main" else []
    with subprocess.Popen(
        [*begin, *lmcache, "serve", "--pool", name, "--port", "0", "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_module_serves_too_and_ends_with_0(name: str) -> None:
    with command(name, module="integrations.lmcache") as process:
        assert Addressed(process).pool == name
        assert Path(f"/dev/shm/penstock.{name}").exists()
        process.send_signal(signal.SIGTERM)
        out, error = process.communicate(timeout=WITHIN)
    assert process.returncode == 0, error
    assert out == ""
    assert "Traceback" not in error
    assert not list(Path("/dev/shm").glob(f"*{name}*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_before_it_is_up_ends_it_with_0(number: signal.Signals, name: str) -> None:
    with command(name) as process:
        started = Path(f"/proc/{process.pid}/status")
        while not _listens(started):
            assert process.poll() is None
        process.send_signal(number)
        _, error = process.communicate(timeout=WITHIN)
    assert process.returncode == 0, error
    assert "Traceback" not in error
    assert not list(Path("/dev/shm").glob(f"*{name}*"))


def _listens(status: Path) -> bool:
    """Whether the process has our signal handlers by now: Python itself has none for SIGHUP."""
    fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
    return bool(int(fields["SigCgt"], 16) >> (signal.SIGHUP - 1) & 1)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_it_serves_ends_it_with_0(number: signal.Signals, name: str) -> None:
    with Server(name) as server:
        assert server.end(number) == 0
    assert not list(Path("/dev/shm").glob(f"*{name}*"))


def test_it_speaks_grpc_too(name: str) -> None:
    port = str(free_port())
    options = ("--transport", "grpc", "--port", port, "--chunk-tokens", str(CHUNK))
    with Server(name, *options) as server, worker(server) as peer:
        assert server.address == f"grpc://127.0.0.1:{port}"
        stored = peer.call("chunks", 0)
        assert peer.call("store", tokens_of(1), 0) is True
        assert peer.call("lookup", tokens_of(1)) == 1
        assert peer.call("retrieve", tokens_of(1), 1) is True
        assert peer.call("chunks", 1) == stored
        assert server.end() == 0


def test_a_taken_port_is_reported(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with command(name, "--port", port) as process:
            _, error = process.communicate(timeout=WITHIN)
    assert process.returncode == 1
    assert port in error
    assert "Traceback" not in error
    assert not list(Path("/dev/shm").glob(f"*{name}*"))


def test_errors_are_reported_before_lmcache_is_imported(name: str) -> None:
    """That import takes seconds."""
    wrong: list[tuple[list[str], str]] = [
        (["--pool", name, "--capacity", "8TiB"], "8"),
        (["--pool", "no/such/name"], "no/such/name"),
    ]
    with PoolServer.open(name + "-used", capacity="2MiB"):
        for options, word in (
            (["--capacity", "4MiB"], "capacity"),
            (["--capacity", "2MiB", "--chunk-tokens", "64"], "64"),
        ):
            wrong.append((["--pool", name + "-used", *options], word))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            wrong.append((["--pool", name, "--port", port], port))
            for options, word in wrong:
                command = [sys.executable, "-X", "importtime", "-m", "penstock.cli.main"]
                done = subprocess.run(
                    [*command, "lmcache", "serve", "--port", "0", *options],
                    capture_output=True,
                    text=True,
                )
                *imported, said = done.stderr.splitlines()
                assert done.returncode == 1, said
                assert said.startswith("penstock: "), said
                assert word in said
                assert not any("lmcache.v1" in line for line in imported)
    assert not list(Path("/dev/shm").glob(f"*{name}*"))


@pytest.mark.skipif(
    subprocess.run([*UNSHARED, "true"], capture_output=True, check=False).returncode != 0,
    reason="no PID namespace can be made here",
)
def test_a_worker_that_cannot_be_seen_is_known_by_its_pings(name: str) -> None:
    tokens = tokens_of(1)
    options = ("--capacity", "1MiB", "--chunk-tokens", str(CHUNK), "--silence", "0.5")
    with command(name, *options, before=UNSHARED) as process:
        server = Addressed(process)
        with worker(server) as silent, worker(server) as other:
            (offset,) = silent.call("prepare_store", tokens)
            assert silent.call("request", "ping", silent.call("instance")) is True
            wait_until("the silent one's chunk is free", lambda: other.call("store", tokens, 0))
            for number in range(300):  # more than fit in the pool
                taken = other.call("prepare_store", tokens_of(10 + number), f"u{number}")
                assert not overlap(offset, taken)
                other.call("commit_store")
            silent.call("fill", 666.0)
            assert silent.call("commit_store") is False, "it is not registered any more"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        os.kill(int(children), signal.SIGTERM)  # unshare itself ignores it
        assert process.wait(WITHIN) == 0
