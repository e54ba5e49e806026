"""The line that each process of vLLM logs, also where plugins come before its log is set up."""

from __future__ import annotations

import logging
from typing import Any

__all__ = ["announce"]

_log = logging.getLogger("vllm.penstock")


def announce(line: str) -> None:
    """Logs the line, now or as soon as vLLM's log is set up."""
    if _log.hasHandlers() or not _log_when_set_up(line):
        _log.info("%s", line)


def _log_when_set_up(line: str) -> bool:
    """Whether that is still to come."""
    try:
        from vllm import logger

        set_up = logger.configure_logging
    except (ImportError, AttributeError):
        return False

    def set_up_and_log(*args: Any, **kwargs: Any) -> Any:
        logger.configure_logging = set_up
        result = set_up(*args, **kwargs)
        _log.info("%s", line)
        return result

    logger.configure_logging = set_up_and_log
    return True
