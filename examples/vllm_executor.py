"""The traffic between vLLM's executor and its workers, without a model: each step is broadcast to
all workers, and one of them answers.

    python examples/vllm_executor.py                        # Penstock; needs no vLLM
    python examples/vllm_executor.py --modules vllm         # vLLM's own, where it is installed
    python examples/vllm_executor.py --kill                 # a worker is killed half-way
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import signal
import statistics
import sys
import time
from importlib import import_module
from typing import Any

MODULES = {
    "penstock": "penstock.integrations.vllm.shm_broadcast",
    "vllm": "vllm.distributed.device_communicators.shm_broadcast",
}
SUCCESS = 1
PATIENCE = 10.0  # seconds; vLLM's own queue does not notice deaths


def work(modules: str, handle: Any, rank: int, told: Any) -> None:
    """A worker: receives calls, and answers those that want its answer."""
    queues = import_module(MODULES[modules]).MessageQueue
    calls = queues.create_from_handle(handle, rank)
    answers = queues(1, 1)
    told.send(answers.export_handle())
    calls.wait_until_ready()
    answers.wait_until_ready()
    with contextlib.suppress(EOFError):  # Penstock: the executor has left
        while True:
            method, args, _, output_rank = calls.dequeue(indefinite=True)
            if method == "shutdown":
                return
            if output_rank in (None, rank):
                answers.enqueue((SUCCESS, sum(args[0])))


class Executor:
    """One queue to all workers, and one back from each, as in vLLM's MultiprocExecutor."""

    def __init__(self, modules: str, workers: int) -> None:
        queues = import_module(MODULES[modules]).MessageQueue
        context = multiprocessing.get_context("spawn")
        self.calls = queues(workers, workers, max_chunk_bytes=16 << 20)
        self.workers, self.answers = [], []
        pipes = []
        for rank in range(workers):
            ours, theirs = context.Pipe(duplex=False)
            arguments = (modules, self.calls.export_handle(), rank, theirs)
            self.workers.append(context.Process(target=work, args=arguments, daemon=True))
            self.workers[-1].start()
            pipes.append(ours)
        for ours in pipes:
            self.answers.append(queues.create_from_handle(ours.recv(), 0))
        self.calls.wait_until_ready()
        for one in self.answers:
            one.wait_until_ready()

    def call(self, method: str, *args: Any, output_rank: int | None = None) -> list[Any]:
        """The answers of all workers, or of one."""
        self.calls.enqueue((method, args, {}, output_rank), timeout=PATIENCE)
        asked = self.answers if output_rank is None else [self.answers[output_rank]]
        return [one.dequeue(timeout=PATIENCE)[1] for one in asked]

    def end(self) -> None:
        self.calls.enqueue(("shutdown", (), {}, None))
        for one in self.workers:
            one.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modules", choices=MODULES, default="penstock")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--gap-ms", type=float, default=5.0)
    parser.add_argument("--kill", action="store_true", help="kill the last worker half-way")
    arguments = parser.parse_args()
    executor = Executor(arguments.modules, arguments.workers)
    tokens = list(range(64))
    seconds = []
    for step in range(arguments.steps):
        if arguments.kill and step == arguments.steps // 2:
            os.kill(executor.workers[-1].pid, signal.SIGKILL)
        began = time.perf_counter()
        try:
            (answer,) = executor.call("execute_model", tokens, output_rank=0)
        except (ConnectionError, TimeoutError) as error:
            waited = time.perf_counter() - began
            print(f"step {step}: {type(error).__name__} after {waited:.3f} s: {error}")
            return 1
        assert answer == sum(tokens)
        seconds.append(time.perf_counter() - began)
        time.sleep(arguments.gap_ms / 1e3)
    executor.end()
    print(
        f"{arguments.modules}: {arguments.steps} steps of {arguments.workers} workers, "
        f"{statistics.median(seconds) * 1e6:.0f} us each"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
