"""Stands in for the conftest.py of vLLM's own tests, which imports models by the hundred: a plugin
with the one fixture that the tests here use."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def caplog_vllm(caplog: Any) -> Iterator[Any]:
    """caplog, with what the logger of vLLM gets, which passes nothing on."""
    logger = logging.getLogger("vllm")
    passes_on = logger.propagate
    logger.propagate = True
    with caplog.at_level(logging.INFO):
        yield caplog
    logger.propagate = passes_on
