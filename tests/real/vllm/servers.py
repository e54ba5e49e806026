"""vLLM's API server as a process of a test, and its processes by name."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import WITHIN
from environment import ENGINE, PENSTOCK, environment, options
from ports import free_port

HOST = "127.0.0.1"


class Server:
    """A server of the model in a folder, with two workers. ``log()`` is what all processes said."""

    def __init__(self, model: Path, folder: Path, modules: str = PENSTOCK, **engine: Any) -> None:
        self.port = free_port(HOST)
        self._file = folder / "log"
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", str(model), "--served-model-name", "tiny"]
        command += ["--host", HOST, "--port", str(self.port), *options({**ENGINE, **engine})]
        with self._file.open("w") as written:
            self.process = subprocess.Popen(
                command,
                env=environment(modules),
                cwd=folder,
                stdout=written,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until(lambda: self._is_up(), WITHIN)
            self.engine = self._pid_of("VLLM::EngineCore")
            self.workers = [self._pid_of(f"VLLM::Worker_TP{rank}") for rank in range(2)]
        except BaseException:
            self.end()
            raise

    def _is_up(self) -> bool:
        assert self.process.poll() is None, self.log()[-6000:]
        return self.health() == 200

    def health(self) -> int:
        """The status of /health; 0 if the server does not answer."""
        try:
            return int(self.request("/health")[0])
        except OSError:
            return 0

    def request(self, path: str, body: Any = None, timeout: float = WITHIN) -> tuple[int, Any]:
        """Status and text of an answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        asked = urllib.request.Request(f"http://{HOST}:{self.port}{path}", data, headers)
        try:
            with urllib.request.urlopen(asked, timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def complete(self, prompt: str, tokens: int) -> tuple[int, Any]:
        body = {"model": "tiny", "prompt": prompt, "max_tokens": tokens, "temperature": 0}
        return self.request("/v1/completions", {**body, "ignore_eos": True})

    def describe(self, image: str, words: str, tokens: int) -> str:
        """What the model says to an image, a data URL."""
        content = [
            {"type": "image_url", "image_url": {"url": image}},
            {"type": "text", "text": words},
        ]
        body = {"model": "tiny", "messages": [{"role": "user", "content": content}]}
        status, said = self.request(
            "/v1/chat/completions",
            {**body, "max_tokens": tokens, "temperature": 0, "ignore_eos": True},
        )
        assert status == 200, said
        return str(json.loads(said)["choices"][0]["message"]["content"])

    def log(self) -> str:
        return self._file.read_text(errors="replace")

    def _pid_of(self, title: str) -> int:
        found = [pid for pid, name in self.processes().items() if name.startswith(title)]
        assert len(found) == 1, (title, self.processes())
        return found[0]

    def processes(self) -> dict[int, str]:
        """Of the server's session, the living ones."""
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[3]) == self.process.pid and fields[0] != "Z":
                    title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found[int(entry.name)] = title.strip()
        return found

    def end(self) -> None:
        """Ends all of its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        wait_until(lambda: not self.processes(), 30)


@contextlib.contextmanager
def server(model: Path, folder: Path, modules: str = PENSTOCK, **engine: Any) -> Iterator[Server]:
    started = Server(model, folder, modules, **engine)
    try:
        yield started
    finally:
        started.end()


def wait_until(condition: Callable[[], Any], within: float) -> float:
    """Seconds until it holds; fails after ``within``."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > within:
            pytest.fail(f"not within {within} s")
        time.sleep(0.02)
    return time.monotonic() - began


def data_url(seed: int, side: int) -> str:
    """A PNG of noise."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "PNG", compress_level=0)
        return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
