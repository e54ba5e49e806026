"""Common fixtures. Helper modules are found by name, also in processes that tests start."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_models import save_llama

    return save_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def paligemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_models import save_paligemma

    return save_paligemma(tmp_path_factory.mktemp("models") / "paligemma")
