"""Registers Atropos' example trainer for the tests."""

from __future__ import annotations

from pathlib import Path

import example_trainer.api
from example_trainer.config import TrainingConfig


def register_example(address: str, batch_size: int, folder: Path) -> None:
    # Through the module: install() may have replaced the function.
    example_trainer.api.register_trainer(
        TrainingConfig(
            model_name="none",
            batch_size=batch_size,
            gradient_accumulation_steps=1,
            training_steps=1000,
            seq_len=64,
            save_path=str(folder),
            atropos_url=address,
        )
    )
