"""Functions that test_lmcache runs in other processes: a serving peer, or one worker each."""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock.integrations.lmcache import ChunkStatus, EngineContext, PoolClient, PoolServer


def serve(objects: dict[str, Any], name: str, capacity: str) -> None:
    objects["server"] = PoolServer.open(name, capacity=capacity)


def register(objects: dict[str, Any], name: str, record: dict[str, Any]) -> None:
    objects["client"] = PoolClient.attach(name)
    objects["client"].register(EngineContext.from_record(record))


def prepare_store(objects: dict[str, Any], tokens: Any, **options: Any) -> list[str]:
    """Reserve chunks, and write half of them."""
    ticket = objects["ticket"] = objects["client"].prepare_store(tokens, **options)
    for group, chunk in ticket.reserved:
        ticket.slot(group, chunk)[0] = 1
    return [status.value for status in ticket.statuses[0]]


def commit_store(objects: dict[str, Any]) -> list[str]:
    result = objects["client"].commit_store(objects["ticket"])
    return [status.value for status in result.statuses[0]]


def prepare_retrieve(objects: dict[str, Any], tokens: Any) -> int:
    ticket = objects["ticket"] = objects["client"].prepare_retrieve(tokens)
    return int(ticket.tokens)


def store_rounds(objects: dict[str, Any], rounds: int) -> dict[str, int]:
    """Store prefixes that others store too, and check what is found of them."""
    client: PoolClient = objects["client"]
    stored = wrong = 0
    for turn in range(rounds):
        seed = turn % 40
        tokens = np.random.default_rng(seed).integers(0, 100_000, 4 * client.chunk_tokens)
        with client.prepare_store(tokens) as ticket:
            for group, chunk in ticket.reserved:
                ticket.slot(group, chunk)[...] = seed + chunk
            stored += ticket.commit().count(ChunkStatus.STORED)
        with client.prepare_retrieve(tokens) as reading:
            for group, chunk in reading.hits:
                wrong += int((reading.slot(group, chunk) != seed + chunk).any())
    return {"stored": stored, "wrong": wrong}
