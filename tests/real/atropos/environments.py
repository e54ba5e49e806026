"""Environments written as in Atropos' documentation, over the real BaseEnv."""

from __future__ import annotations

import asyncio
import copy
import random
from pathlib import Path
from typing import Any

from atroposlib.envs.base import BaseEnv, BaseEnvConfig, ServerBaseline
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

__all__ = ["Grouped", "Single", "config_for", "save_tokenizer"]

VOCABULARY = 512


def save_tokenizer(folder: Path) -> str:
    """A tokenizer without a download: token n is the word wn."""
    words = {f"w{number}": number for number in range(VOCABULARY)}
    model = models.WordLevel(words, unk_token="w0")
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model)).save_pretrained(folder)
    return str(folder)


def config_for(address: str, tokenizer: str, name: str, **fields: Any) -> BaseEnvConfig:
    settings = {
        "rollout_server_url": address,
        "tokenizer_name": tokenizer,
        "wandb_name": name,
        "use_wandb": False,
        "group_size": 4,
        "max_num_workers": 8,
        "max_token_length": 64,
        "steps_per_eval": 0,
        "total_steps": 100_000,
        "ensure_scores_are_not_same": False,
        "include_messages": False,
        "min_items_sent_before_logging": 1_000_000,  # the engine has no figures
    }
    return BaseEnvConfig(**{**settings, **fields})


class _Counted(BaseEnv):
    """Yields ``items`` items, and keeps what it sent."""

    def __init__(self, config: BaseEnvConfig, items: int, seconds: float = 0.0) -> None:
        super().__init__(config, ServerBaseline(), testing=True)
        self.sent: list[dict[str, Any]] = []
        self._left = items
        self._seconds = seconds

    async def setup(self) -> None:
        pass

    async def evaluate(self, *_args: Any, **_options: Any) -> None:
        pass

    async def get_next_item(self) -> Any:
        if self._left == 0:
            return None
        self._left -= 1
        return {"number": self._left}

    async def _send_scored_data_to_api(self, scored_data: Any) -> None:
        await super()._send_scored_data_to_api(scored_data)
        groups = scored_data if isinstance(scored_data, list) else [scored_data]
        self.sent.extend(copy.deepcopy(groups))

    def _sequence(self, item: Any) -> tuple[list[int], list[int]]:
        dice = random.Random(item["number"])
        tokens = [dice.randrange(VOCABULARY) for _ in range(dice.randint(5, 40))]
        return tokens, [-100, -100, *tokens[2:]]


class Single(_Counted):
    """``collect_trajectory``: one sequence at a time, without optional fields."""

    name = "single"

    async def collect_trajectory(self, item: Any) -> Any:
        await asyncio.sleep(self._seconds)
        tokens, masks = self._sequence(item)
        return {"tokens": tokens, "masks": masks, "scores": float(item["number"])}, []


class Grouped(_Counted):
    """``collect_trajectories``: whole groups, with the fields that an engine adds to the tokens."""

    name = "grouped"

    async def collect_trajectories(self, item: Any) -> Any:
        await asyncio.sleep(self._seconds)
        both = [self._sequence(item) for _ in range(self.config.group_size)]
        return {
            "tokens": [tokens for tokens, _ in both],
            "masks": [masks for _, masks in both],
            "scores": [item["number"] + 0.25 * at for at in range(len(both))],
            "inference_logprobs": [[-0.1 * one for one in tokens] for tokens, _ in both],
            "messages": [[{"role": "user", "content": "naïve 😀"}] for _ in both],
            "generation_params": {"temperature": 0.7},
            "overrides": [{"set_advantage_to_zero": False} for _ in both],
        }, []
