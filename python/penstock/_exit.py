"""The end of a process: its handles are closed while other processes can still be told, and finally
it leaves every segment, even if objects still refer to one.

Handles close before anything that waits for children: multiprocessing and concurrent.futures join
processes that may be waiting for that close. They close after the program's own threads and its
``atexit`` functions have finished, because these may use handles to their end.
"""

from __future__ import annotations

import atexit
import concurrent.futures.process
import concurrent.futures.thread  # noqa: F401
import contextlib
import multiprocessing.util
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from . import _core
from .errors import Error

__all__ = ["close_at_exit", "come_first"]


class Closeable(Protocol):
    def close(self) -> object: ...


T = TypeVar("T", bound=Closeable)

_SLICE = 0.05  # seconds between two checks of threads that are still at work
_LAST = -1_000_000  # after all finalizers of multiprocessing

# Open handles, with their close functions.
_open: weakref.WeakKeyDictionary[Closeable, Callable[..., object]] = weakref.WeakKeyDictionary()
# pid of the process in which multiprocessing's finalizer is registered
_known_to_multiprocessing_in = 0
_watcher_runs = False  # a thread will close the handles when the program's threads are done
_hurries = False  # the program's threads are done
_had_daemons: list[str] = []  # segments that daemonic children are attached to, by name


def close_at_exit(handle: T, close: Callable[[T], object] | None = None) -> None:
    """Closes the handle at the end of the process, unless it is gone by then.

    ``close`` is a function of its class, to be called instead of ``close()``.
    """
    _open[handle] = close or type(handle).close
    come_first()


def come_first() -> None:
    """Makes this module's hook the first to be called, whatever was imported meanwhile.

    ``threading`` calls its hooks in reverse order, before it joins threads and before any function
    of ``atexit`` runs. multiprocessing's children leave without ``atexit``.
    """
    hooks = getattr(threading, "_threading_atexits", None)
    if hooks is not None and not (hooks and getattr(hooks[-1], "func", None) is _main_ended):
        try:
            threading._register_atexit(_main_ended)  # type: ignore[attr-defined]
        except RuntimeError:
            pass  # the process is ending already; atexit still comes
    global _known_to_multiprocessing_in
    if _known_to_multiprocessing_in != os.getpid():
        multiprocessing.util.Finalize(None, _before_children_are_joined, exitpriority=0)
        multiprocessing.util.Finalize(None, _children_are_joined, exitpriority=_LAST)
        _known_to_multiprocessing_in = os.getpid()


def _main_ended() -> None:
    """threading's hook. Closes only handles that would keep the process from ending: functions
    given to ``atexit`` still run, and may use handles."""
    global _watcher_runs
    _end_undisturbed()
    if _watcher_runs or not _has_open():
        return
    _tell_executors()
    if _program_threads():
        _watcher_runs = True
        _start(_watch)
    elif _executors_wait():
        _end_process_pools()


def _before_children_are_joined() -> None:
    """multiprocessing's finalizer: in the main process through ``atexit``, and in a child when its
    function has returned; the child's threads are joined afterwards."""
    global _watcher_runs
    _had_daemons.extend(_names_that_daemons_have())
    if (_watcher_runs and _is_child()) or not _has_open():
        return
    if _is_child() and _program_threads():
        _watcher_runs = True
        _start(_watch)
    else:
        _close(threads_wait=False)


def _start(call: Callable[[], None]) -> None:
    """Runs in a thread that the process waits for at its end, so that the main thread goes on:
    threads at work must end by themselves, and some check whether the main thread is alive."""
    try:
        threading.Thread(target=call, name="penstock-exit", daemon=False).start()
    except RuntimeError:  # from 3.12 on the interpreter starts no thread while it is ending
        _core.start_thread(call)


def _watch() -> None:
    threads_wait = _await_threads()
    try:
        if threads_wait or _executors_wait() or _is_child():
            _close(threads_wait)
    finally:
        if _is_child():
            _core.leave_all()


def _close(threads_wait: bool) -> None:
    # Parks daemon threads instead of waking them to a needless error; not where others may still
    # join them.
    try:
        if not threads_wait:
            _core.end_waits(_daemons())
    finally:
        _close_all()


def _names_that_daemons_have() -> list[str]:
    """Records the segments of daemonic children: multiprocessing is about to kill them, so they
    can't leave by themselves."""
    daemons = {child.pid for child in multiprocessing.active_children() if child.daemon}
    if not daemons:
        return []
    with contextlib.suppress(Exception):  # a failed look must keep no handle from being closed
        return [
            segment["name"]
            for segment in _core.list_segments()
            if any(participant["pid"] in daemons for participant in segment["participants"])
        ]
    return []


def _children_are_joined() -> None:
    """Called after everything else; in a child of multiprocessing before its threads are joined,
    because there is no atexit."""
    for name in _had_daemons:
        with contextlib.suppress(Error):
            _core.remove_if_abandoned(name, False)
    if _is_child() and not _watcher_runs:
        try:
            _close(threads_wait=False)
        finally:
            _core.leave_all()


def _leave() -> None:
    """Leaves every segment. Only daemon threads are left."""
    global _hurries
    _end_undisturbed()
    _hurries = True
    try:
        _core.join_thread()
        # First, so that threads that are still waiting don't wake up to a needless error.
        _core.end_waits(None)
    finally:
        _close_and_leave_all()
    if (interrupts := _interrupts()) is not None:
        interrupts.ignore()


def _close_and_leave_all() -> None:
    try:
        _close_all()
    finally:
        _core.leave_all()


def _is_child() -> bool:
    return multiprocessing.process.parent_process() is not None


def _end_undisturbed() -> None:
    """Makes signals to a command that is closing have no effect but a note."""
    if (interrupts := _interrupts()) is not None:
        interrupts.end_undisturbed()


def _interrupts() -> Any:
    """The module ``_interrupts`` if this process is a command; None otherwise."""
    return sys.modules.get(f"{__package__}._interrupts")


def _handles() -> list[Closeable]:
    """A copy, made in one step: daemon threads may add handles."""
    return [handle for ref in _open.keyrefs() if (handle := ref()) is not None]


_TRIES = 3  # attempts to close a handle, if a signal's exception interrupts its close


class _Closing:
    """One handle, and how many attempts to close it are left."""

    def __init__(self, handle: Closeable, close: Callable[..., object]) -> None:
        self._handle = handle
        self._close = close
        self._tries = _TRIES

    def attempt(self) -> None:
        self._tries -= 1
        if self._tries >= 0:
            self._close(self._handle)


def _close_all() -> None:
    """Closes every handle, whatever is raised; the first exception is raised at the end.

    A signal handler may raise anywhere, even in the middle of a ``close()``: that is called again,
    which has no effect on a closed handle.
    """
    left = [_Closing(handle, _open[handle]) for handle in _handles()]
    left.reverse()  # the oldest is taken first, from the end
    failures: list[BaseException] = []
    while left:
        with _collect(failures):
            while left:
                left[-1].attempt()
                left.pop()
    if failures:
        raise failures[0]


@contextlib.contextmanager
def _collect(failures: list[BaseException]) -> Iterator[None]:
    try:
        yield
    except BaseException as failure:
        failures.append(failure)


def _has_open() -> bool:
    return any(not getattr(handle, "closed", False) for handle in _handles())


def _daemons() -> list[int]:
    own = threading.get_ident()
    return [
        one.ident for one in threading.enumerate() if one.daemon and one.ident not in (None, own)
    ]


def _tell_executors() -> None:
    """Makes executors' idle threads end now, and busy ones after their work: as their own hook does
    next, which waits for all of them."""
    module: Any = sys.modules["concurrent.futures.thread"]
    try:
        lock, queues = module._global_shutdown_lock, module._threads_queues
    except AttributeError:
        return  # an unknown version of Python: idle threads then count as busy
    with lock:
        module._shutdown = True
    for queue in list(queues.values()):
        queue.put(None)


def _await_threads() -> bool:
    """Waits until every non-daemon thread has ended, or waits for this process in vain.

    True: some threads wait for what only this process could give them.
    """
    while not _hurries:
        threads = _program_threads()
        if not threads:
            break
        stuck = _core.waits_in_vain()
        busy = [one for one in threads if one.ident not in stuck]
        # A daemon thread might end the waits of the others.
        feeders = [one for one in threading.enumerate() if _may_feed(one, stuck)]
        if not busy and not feeders:
            # the waiting threads get what is left, then Closed, and end
            _core.end_awaited_streams()
            stuck = _core.waits_in_vain()
            if all(one.ident in stuck for one in threads):
                return True
        (busy or feeders or threads)[0].join(_SLICE)
    return False


def _program_threads() -> list[threading.Thread]:
    """Non-daemon threads, except this module's and those that wait for an executor's processes."""
    others = (threading.current_thread(), threading.main_thread())
    return [
        one
        for one in threading.enumerate()
        if not one.daemon and one not in others and not _waits_for_processes(one)
    ]


def _end_process_pools() -> None:
    """Does what the hook of concurrent.futures does next, before handles are closed: its wake-up
    may meet the close of a pool that has just become idle, which up to CPython 3.11 is a Bad file
    descriptor."""
    pools: Any = sys.modules["concurrent.futures.process"]
    pools._global_shutdown = True
    waiting = list(getattr(pools, "_threads_wakeups", {}).items())
    for _, wakeup in waiting:
        with contextlib.suppress(OSError):
            wakeup.wakeup()
    try:
        _close(threads_wait=False)
    finally:
        for thread, _ in waiting:
            thread.join()


def _executors_wait() -> bool:
    return any(_waits_for_processes(one) for one in threading.enumerate())


def _waits_for_processes(thread: threading.Thread) -> bool:
    return type(thread).__name__ == "_ExecutorManagerThread"


def _may_feed(thread: threading.Thread, stuck: set[int]) -> bool:
    return (
        thread.daemon
        and thread is not threading.current_thread()
        and thread.ident not in stuck
        and not thread.name.startswith(("penstock-wait", "QueueFeederThread"))
    )


# Also before a child can get a handle: it may wait for this process to close it.
os.register_at_fork(before=come_first)
# In a forked child of multiprocessing, which first drops what its parent registered.
multiprocessing.util.register_after_fork(_open, lambda _: come_first())
atexit.register(_leave)
come_first()
