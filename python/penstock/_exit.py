"""How a process ends: its handles are closed while others can still be told of it, and in the end
it leaves every segment, whatever still refers to one.

Handles close before anything that waits for children: multiprocessing and concurrent.futures join
processes that may be waiting for just that. But not before the program's own threads, and what it
has given to ``atexit``, have done their work: they may use handles to their end.
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

_SLICE = 0.05  # seconds between two looks at threads that are still at work
_LAST = -1_000_000  # of all finalizers of multiprocessing

# Open handles, each with its close function.
_open: weakref.WeakKeyDictionary[Closeable, Callable[..., object]] = weakref.WeakKeyDictionary()
_known_to_multiprocessing_in = 0  # the process whose multiprocessing calls us
_watcher_runs = False  # a thread closes when the program's threads are done
_hurries = False  # those threads are done
_had_daemons: list[str] = []  # names of segments that daemonic children are attached to


def close_at_exit(handle: T, close: Callable[[T], object] | None = None) -> None:
    """Closes the handle at the end of the process, unless it is gone by then.

    ``close`` is a function of its class, where another than ``close()`` is to do it.
    """
    _open[handle] = close or type(handle).close
    come_first()


def come_first() -> None:
    """Makes our hook the first to be called, whatever was imported meanwhile.

    ``threading`` calls its hooks, the last one first, before it joins threads and before any
    function of ``atexit`` runs. multiprocessing's children leave without ``atexit``.
    """
    hooks = getattr(threading, "_threading_atexits", None)
    if hooks is not None and not (hooks and getattr(hooks[-1], "func", None) is _main_ended):
        try:
            threading._register_atexit(_main_ended)  # type: ignore[attr-defined]
        except RuntimeError:
            pass  # the process is ending already: atexit is still to come
    global _known_to_multiprocessing_in
    if _known_to_multiprocessing_in != os.getpid():
        multiprocessing.util.Finalize(None, _before_children_are_joined, exitpriority=0)
        multiprocessing.util.Finalize(None, _children_are_joined, exitpriority=_LAST)
        _known_to_multiprocessing_in = os.getpid()


def _main_ended() -> None:
    """threading's hook. Closes only what would never end otherwise: functions that the program has
    given to ``atexit`` are still to come, and may use handles."""
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
    """multiprocessing's finalizer: in the main process by way of ``atexit``, and in a child when
    its function has returned; that one's threads are joined afterwards."""
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
    """Runs in a thread that the process waits for at its end, so that the main thread goes on: what
    others are at is theirs to end, and some look whether the main thread is alive."""
    try:
        threading.Thread(target=call, name="penstock-exit", daemon=False).start()
    except RuntimeError:  # from 3.12 on the interpreter starts none when it is ending
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
    # Daemon threads wake up to nothing rather than to a needless error; not where others
    # may still join them.
    try:
        if not threads_wait:
            _core.end_waits(_daemons())
    finally:
        _close_all()


def _names_that_daemons_have() -> list[str]:
    """multiprocessing is about to kill its daemonic children: they can't leave by themselves."""
    daemons = {child.pid for child in multiprocessing.active_children() if child.daemon}
    if not daemons:
        return []
    with contextlib.suppress(Exception):  # what can't be looked at keeps no handle from its close
        return [
            segment["name"]
            for segment in _core.list_segments()
            if any(participant["pid"] in daemons for participant in segment["participants"])
        ]
    return []


def _children_are_joined() -> None:
    """Called when all else is done; in a child of multiprocessing all but its threads, which are
    joined next: there is no atexit."""
    for name in _had_daemons:
        with contextlib.suppress(Error):
            _core.remove_if_abandoned(name, False)
    if _is_child() and not _watcher_runs:
        try:
            _close(threads_wait=False)
        finally:
            _core.leave_all()


def _leave() -> None:
    """No thread but daemons is left."""
    global _hurries
    _end_undisturbed()
    _hurries = True
    try:
        _core.join_thread()
        # First, so that threads which are still waiting don't wake up to a needless error.
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
    """Signals to a command that is closing are only noted."""
    if (interrupts := _interrupts()) is not None:
        interrupts.end_undisturbed()


def _interrupts() -> Any:
    """None: the process is no command."""
    return sys.modules.get(f"{__package__}._interrupts")


def _handles() -> list[Closeable]:
    """A copy, in one step: daemon threads may add handles."""
    return [handle for ref in _open.keyrefs() if (handle := ref()) is not None]


_TRIES = 3  # of closing a handle, where a signal's exception comes out of it


class _Closing:
    """One handle, and how often it may still be tried to close it."""

    def __init__(self, handle: Closeable, close: Callable[..., object]) -> None:
        self._handle = handle
        self._close = close
        self._tries = _TRIES

    def attempt(self) -> None:
        self._tries -= 1
        if self._tries >= 0:
            self._close(self._handle)


def _close_all() -> None:
    """Every handle, whatever is raised on the way; the first of it goes on at the end.

    A signal handler may raise anywhere, in the middle of a ``close()`` too: that one is called
    again, which does nothing where it was done.
    """
    left = [_Closing(handle, _open[handle]) for handle in _handles()]
    left.reverse()  # the oldest first, from the end
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
    """Their idle threads end now, and others when their work is done: as they would be told next,
    but by a hook that waits for all of them."""
    module: Any = sys.modules["concurrent.futures.thread"]
    try:
        lock, queues = module._global_shutdown_lock, module._threads_queues
    except AttributeError:
        return  # another Python than we know: idle threads count as busy then
    with lock:
        module._shutdown = True
    for queue in list(queues.values()):
        queue.put(None)


def _await_threads() -> bool:
    """Waits until every thread that is no daemon has ended, or can't but wait for us.

    True: some wait for what only this process could give them.
    """
    while not _hurries:
        threads = _program_threads()
        if not threads:
            break
        stuck = _core.waits_in_vain()
        busy = [one for one in threads if one.ident not in stuck]
        # A daemon thread might feed those that wait.
        feeders = [one for one in threading.enumerate() if _may_feed(one, stuck)]
        if not busy and not feeders:
            _core.end_awaited_streams()  # then they get what is left, and Closed, and end
            stuck = _core.waits_in_vain()
            if all(one.ident in stuck for one in threads):
                return True
        (busy or feeders or threads)[0].join(_SLICE)
    return False


def _program_threads() -> list[threading.Thread]:
    """Those that are no daemons, but for ours and those that wait for an executor's processes."""
    others = (threading.current_thread(), threading.main_thread())
    return [
        one
        for one in threading.enumerate()
        if not one.daemon and one not in others and not _waits_for_processes(one)
    ]


def _end_process_pools() -> None:
    """What the hook of concurrent.futures does next, around our close: its wake-up may meet the
    close of a pool that has just become idle, which up to CPython 3.11 is a Bad file descriptor."""
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


# Also before a child can come to know a handle: it may wait for us to close.
os.register_at_fork(before=come_first)
# In a forked child of multiprocessing, which begins by forgetting what its parent registered.
multiprocessing.util.register_after_fork(_open, lambda _: come_first())
atexit.register(_leave)
come_first()
