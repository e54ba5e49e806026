"""How the processes of an engine end: soon, since vLLM kills what has not ended within five
seconds, and not later than the server. An EngineCore does not notice that its server was killed,
and would keep its workers, their memory and its segments for ever."""

from __future__ import annotations

import atexit
import gc
import logging
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait

__all__ = ["end_soon", "end_with_parent"]

_log = logging.getLogger("vllm.penstock")
_SECONDS = 30.0  # for vLLM's own shutdown, after which the process is killed

_watching = False
_is_hurried = False


def end_soon() -> None:
    """In the processes of an engine: the interpreter does not search all objects of vLLM and
    PyTorch for cycles once more when it ends, which takes seconds. Idempotent."""
    global _is_hurried
    if not _is_hurried and multiprocessing.parent_process() is not None:
        _is_hurried = True
        atexit.register(gc.freeze)


def end_with_parent() -> None:
    """If this process is an EngineCore: terminates it when the process that started it has died.
    Idempotent."""
    global _watching
    parent = multiprocessing.parent_process()
    name = multiprocessing.current_process().name
    if _watching or parent is None or not name.startswith("EngineCore"):
        return
    _watching = True

    def watch() -> None:
        wait([parent.sentinel])
        _log.error(
            "The process that started %s (pid %d) has died: shutting down", name, os.getpid()
        )
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="PenstockParentWatch").start()
