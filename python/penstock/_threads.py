"""Threads that wait on behalf of an event loop: one for each current wait, kept for reuse.

Not asyncio's executor: its few threads could all be waiting for messages that are sent only by a
task that itself waits for a thread.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from . import _core
from .errors import NotFound, Timeout
from .handle import Handle, Name, Owner, handle_of

__all__ = ["Countdown", "attach_when_there", "take_in_thread", "try_until_done", "wait_in_thread"]

T = TypeVar("T")
Job = Callable[[], None]

_MOST_IDLE = 8
_idle: list[SimpleQueue[Job]] = []
_idle_lock = threading.Lock()


class Countdown:
    """The rest of a timeout, for calls that wait several times."""

    def __init__(self, timeout: float | None) -> None:
        _core.check_timeout(timeout)
        self._end = None if timeout is None else time.monotonic() + timeout

    def left(self) -> float | None:
        return None if self._end is None else max(0.0, self._end - time.monotonic())


async def try_until_done(
    attempt: Callable[[], T], wait: Callable[[_core.Cancel], None], countdown: Countdown
) -> T:
    """The result of ``attempt()``; after each Timeout ``wait(cancel)`` runs in a thread before a
    retry."""
    while True:
        try:
            return attempt()
        except Timeout:
            if countdown.left() == 0:
                raise
        await wait_in_thread(wait)


async def wait_in_thread(wait: Callable[[_core.Cancel], None]) -> None:
    """Runs ``wait(cancel)`` in a thread. If the task is cancelled the thread's wait is ended
    first."""
    await _Errand(wait, lambda _: None).outcome()


async def take_in_thread(take: Callable[[], T], undo: Callable[[T], object]) -> T:
    """Runs ``take()`` in a thread and returns its result. If the task is cancelled its waits end.

    A result that does not reach the task is undone: ``undo(taken)`` is called once, before the task
    goes on, or by the thread if the loop is closed by then.
    """
    return await _Errand(lambda cancel: _core.run_cancellable(cancel, take), undo).outcome()


async def attach_when_there(
    kind: str,
    name: Name | Handle,
    attach: Callable[[], T],
    countdown: Countdown,
    owner: Owner | None,
) -> T:
    """The result of ``attach()``; after each NotFound a thread waits for the name to appear."""
    handle = handle_of(name)
    while True:
        try:
            return attach()
        except NotFound:
            if countdown.left() == 0:
                raise
        await wait_in_thread(
            lambda cancel: _core.run_cancellable(
                cancel,
                lambda: _core.wait_until_there(
                    kind, handle.name, handle.instance, countdown.left(), owner
                ),
            )
        )


class _Errand(Generic[T]):
    """A call in a thread; its result goes to the task, or else to ``undo``."""

    def __init__(self, call: Callable[[_core.Cancel], T], undo: Callable[[T], object]) -> None:
        self._call = call
        self._undo = undo
        self._cancel = _core.Cancel()
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[T] = self._loop.create_future()
        _start(self._run)

    async def outcome(self) -> T:
        try:
            return await asyncio.shield(self._future)
        except (asyncio.CancelledError, GeneratorExit) as end:
            self._cancel.cancel()
            try:
                if isinstance(end, asyncio.CancelledError):
                    # At most 80 ms, so that the handle is free again when the caller goes on.
                    await asyncio.wait([self._future])
            finally:
                if self._future.done():
                    self._end(self._future)
                else:
                    self._future.add_done_callback(self._end)
            raise

    def _run(self) -> None:
        """Runs in the thread."""
        try:
            taken = self._call(self._cancel)
        except BaseException as error:
            self._post(self._fail, error)
        else:
            if not self._post(self._succeed, taken):
                self._undo(taken)

    def _post(self, deliver: Callable[[Any], None], outcome: Any) -> bool:
        """False: the loop was closed, and no task waits."""
        try:
            self._loop.call_soon_threadsafe(deliver, outcome)
        except RuntimeError:
            return False
        return True

    def _succeed(self, taken: T) -> None:
        self._future.set_result(taken)

    def _fail(self, error: BaseException) -> None:
        self._future.set_exception(error)

    def _end(self, future: asyncio.Future[T]) -> None:
        """The task is gone: undoes the result."""
        if future.exception() is None:  # retrieved, so that asyncio does not warn of it
            self._undo(future.result())


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
    """In a forked child: the parent's threads do not exist here."""
    global _idle_lock
    _idle.clear()
    _idle_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_threads)
