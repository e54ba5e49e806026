"""Threads that wait on behalf of an event loop: as many as there are waits, kept for the next ones.

Not asyncio's executor: its few threads could all be waiting for messages that only a task which
waits for a thread would send.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

from . import _core
from .errors import Timeout

__all__ = ["Countdown", "try_until_done", "wait_in_thread"]

T = TypeVar("T")
Job = Callable[[], None]

_MOST_IDLE = 8
_idle: list[SimpleQueue[Job]] = []
_idle_lock = threading.Lock()


class Countdown:
    """What is left of a timeout, for calls that wait several times."""

    def __init__(self, timeout: float | None) -> None:
        _core.check_timeout(timeout)
        self._end = None if timeout is None else time.monotonic() + timeout

    def left(self) -> float | None:
        return None if self._end is None else max(0.0, self._end - time.monotonic())


async def try_until_done(
    attempt: Callable[[], T], wait: Callable[[_core.Cancel], None], countdown: Countdown
) -> T:
    """What ``attempt()`` gives; after each Timeout ``wait(cancel)`` runs in a thread before it."""
    while True:
        try:
            return attempt()
        except Timeout:
            if countdown.left() == 0:
                raise
        await wait_in_thread(wait)


async def wait_in_thread(wait: Callable[[_core.Cancel], None]) -> None:
    """``wait(cancel)`` in a thread. When the task is cancelled the thread's wait is ended first."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    cancel = _core.Cancel()

    def deliver(error: BaseException | None) -> None:
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    def post(error: BaseException | None) -> None:
        try:
            loop.call_soon_threadsafe(deliver, error)
        except RuntimeError:
            pass  # the loop was closed under the task: nobody waits any more

    def job() -> None:
        try:
            wait(cancel)
        except BaseException as error:
            post(error)
        else:
            post(None)

    _start(job)
    try:
        await asyncio.shield(future)
    except asyncio.CancelledError:
        cancel.cancel()
        # At most 80 ms, so that the handle is free again when the caller goes on.
        await asyncio.wait([future])
        future.exception()  # looked at, so that asyncio does not warn of it
        raise


def _start(job: Job) -> None:
    with _idle_lock:
        jobs = _idle.pop() if _idle else None
    if jobs is None:
        jobs = SimpleQueue()
        threading.Thread(target=_work, args=(jobs,), name="penstock-wait", daemon=True).start()
    jobs.put(job)


def _work(jobs: SimpleQueue[Job]) -> None:
    while True:
        jobs.get()()
        with _idle_lock:
            if len(_idle) >= _MOST_IDLE:
                return
            _idle.append(jobs)


def _forget_threads() -> None:
    """In a forked child: the parent's threads are not here."""
    global _idle_lock
    _idle.clear()
    _idle_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_threads)
