"""The queue's state as both servers report it to environments, after the same requests."""

from __future__ import annotations

import random
from typing import Any

import pytest

pytest.importorskip("atroposlib", reason="needs the real atroposlib")
import requests
from served import WITHIN, atropos_server, penstock_server, register
from tiers import in_full_tier

BATCH, STEPS = 64, 120
SIZES = (16, 2)


class Peer:
    """A trainer and two environments of one server, as requests."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._session = requests.Session()
        register(address, BATCH)
        assert self.batch() == 0
        for env_id, size in enumerate(SIZES):
            body = {
                "max_token_length": 9,
                "desired_name": f"of {size}",
                "weight": 1.0,
                "group_size": size,
            }
            assert self._ask("POST", "/register-env", body)["env_id"] == env_id

    def _ask(self, method: str, route: str, body: Any = None) -> Any:
        url = self._address + route
        answer = self._session.request(method, url, json=body, timeout=WITHIN)
        answer.raise_for_status()
        return answer.json()

    def put(self, env_id: int) -> None:
        """Post a group of the environment."""
        rows = [[1, 2]] * SIZES[env_id]
        body = {"tokens": rows, "masks": rows, "scores": [0.0] * len(rows), "env_id": env_id}
        self._ask("POST", "/scored_data", body)

    def batch(self) -> int:
        """The number of sequences received."""
        return sum(len(group["tokens"]) for group in self._ask("GET", "/batch")["batch"] or [])

    def waiting(self) -> int:
        """The waiting sequences, as reported to the environments."""
        answers = [self._ask("GET", "/status-env", {"env_id": env}) for env in range(len(SIZES))]
        told = zip(SIZES, answers, strict=True)
        return sum(size * int(answer["self_queue_size"]) for size, answer in told)


@in_full_tier
def test_environments_are_told_as_much_as_by_atropos_server() -> None:
    """Except for which groups are in the batches, and so in the rest: less than a large one."""
    dice = random.Random(1)
    batches = 0
    with atropos_server() as theirs, penstock_server() as ours:
        peers = [Peer(theirs), Peer(ours)]
        for step in range(STEPS):
            if dice.random() < 0.3:
                came, came_here = [one.batch() for one in peers]
                assert came == came_here, step
                batches += came == BATCH
            else:
                for env_id in dice.choices(range(len(SIZES)), k=dice.randint(1, 9)):
                    for one in peers:
                        one.put(env_id)
            told, told_here = [one.waiting() for one in peers]
            assert abs(told - told_here) <= max(SIZES), step
    assert batches >= 10
