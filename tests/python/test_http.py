"""The HTTP face of a queue of trajectories: every route, and batches equal to those in memory."""

from __future__ import annotations

import asyncio
import gzip
import json
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # newer versions ask for another httpx
    from starlette.testclient import TestClient
import httpx
from http_server import REGISTRATION, WITHIN, make_group, served
from peers import eventually

import penstock
from penstock.integrations.atropos.http import build_app
from penstock.integrations.atropos.http.bodies import group_from_json, group_to_text
from penstock.trajectories import (
    TrajectoryGroup,
    TrajectoryReader,
    TrajectoryWriter,
    inspect_trajectories,
)

ENVIRONMENT = {"max_token_length": 2048, "desired_name": "math", "weight": 1.0, "group_size": 2}

# A group with every field; the fuzzer of bodies starts from it, too.
FULL: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "fuzz/corpus/http/group.json").read_text()
)


def numbers(answer: dict[str, Any]) -> list[int]:
    return [group["tokens"][0][0] for group in answer["batch"]]


@pytest.fixture
def client(name: str) -> Iterator[TestClient]:
    with TestClient(build_app(name, put_timeout=0.05, body_limit=1 << 20)) as made:
        yield made
        made.get("/reset_data")  # an empty queue leaves nothing behind


@pytest.fixture
def trainer(client: TestClient) -> TestClient:
    """A client whose trainer has registered and requested its first batch."""
    assert client.post("/register", json=REGISTRATION).status_code == 200
    assert client.get("/batch").json() == {"batch": None}
    return client


def register_env(client: TestClient, **fields: Any) -> dict[str, Any]:
    answer: dict[str, Any] = client.post("/register-env", json={**ENVIRONMENT, **fields}).json()
    assert answer["status"] == "success"
    return answer


# --- the trainer -------------------------------------------------------------------------------


def test_before_a_trainer_registers(client: TestClient) -> None:
    assert client.get("/").json() == {"message": "AtroposLib API"}
    answer = client.get("/batch").json()
    assert answer == {"status": "error", "message": "no trainer has registered yet", "batch": []}
    assert client.get("/status").json() == {"current_step": 0, "queue_size": 0}
    assert client.get("/info").json() == {"batch_size": -1, "max_token_len": -1}
    assert client.get("/wandb_info").json() == {"group": None, "project": None}
    keys = "tokens masks scores advantages ref_logprobs generation_params inference_logprobs"
    no_example = {name: [] for name in (*keys.split(), "messages", "images")}
    assert client.get("/latest_example").json() == no_example
    assert client.get("/reset_data").text == "Reset successful"
    refused = client.post("/scored_data", json=make_group(1))
    assert refused.status_code == 503
    assert "no trainer" in refused.json()["error"]
    waiting = {"status": "wait for trainer to start"}
    assert client.post("/register-env", json=ENVIRONMENT).json() == waiting


def test_registration_keeps_the_first_values(client: TestClient) -> None:
    first = client.post("/register", json=REGISTRATION).json()
    second = client.post("/register", json={**REGISTRATION, "batch_size": 8}).json()
    assert isinstance(first["uuid"], int)
    assert first["uuid"] != second["uuid"]
    assert client.get("/info").json() == {"batch_size": 4, "max_token_len": 2048}
    assert client.get("/wandb_info").json() == {"group": "g", "project": "p"}
    # The trainer has registered; its first GET /batch says that it has started.
    assert client.post("/register-env", json=ENVIRONMENT).json()["status"].startswith("wait")


@pytest.mark.parametrize("ends_with", ["creator", "last_producer"])
def test_the_stream_ends_with_its_owners_leave(
    name: str, ends_with: Literal["creator", "last_producer"]
) -> None:
    with TestClient(build_app(name, ends_with=ends_with)) as client:
        assert client.post("/register", json=REGISTRATION).status_code == 200
        client.get("/batch")
        with TrajectoryWriter.attach(name) as environment:
            env_id = register_env(client)["env_id"]
            client.post("/disconnect-env", json={"env_id": env_id})
            environment.put(TrajectoryGroup([[1, 2]]))
        assert not inspect_trajectories(name).stats.closed, "environments come and go"
        other = TrajectoryWriter.attach(name, environment="other")
    info = inspect_trajectories(name)  # the server has left
    assert info.ends_with == ends_with
    assert info.stats.closed == (ends_with == "creator")
    other.close()
    assert inspect_trajectories(name).stats.closed
    with TrajectoryReader.attach(name) as heir:
        assert heir.discard() == 1


def test_batches_are_whole_groups_oldest_first(trainer: TestClient) -> None:
    for number in range(6):
        answer = trainer.post("/scored_data", json=make_group(number))
        assert answer.json() == {"status": "received"}
    assert trainer.get("/status").json() == {"current_step": 3, "queue_size": 6}
    assert [numbers(trainer.get("/batch").json()) for _ in range(3)] == [[0, 1], [2, 3], [4, 5]]
    assert trainer.get("/batch").json() == {"batch": None}
    assert trainer.get("/status").json() == {"current_step": 6, "queue_size": 0}


def test_the_step_is_the_version_of_the_policy(name: str, trainer: TestClient) -> None:
    with TrajectoryWriter.attach(name, environment="local") as writer:
        trainer.post("/scored_data", json=make_group(1, 4))
        assert numbers(trainer.get("/batch").json()) == [1]
        assert writer.version == 4


def test_sequences_instead_of_the_batch_size(name: str) -> None:
    with TestClient(build_app(name, sequences=2)) as client:
        client.post("/register", json=REGISTRATION)
        client.post("/scored_data", json=make_group(1))
        assert numbers(client.get("/batch").json()) == [1]


def test_latest_example(trainer: TestClient) -> None:
    trainer.post("/scored_data_list", json=[make_group(1), make_group(2)])
    assert trainer.get("/latest_example").json()["tokens"] == make_group(2)["tokens"]


def test_reset_goes_on_afterwards(trainer: TestClient) -> None:
    # "rare" is to have half of each batch: that must not hold back the groups of others.
    rare = register_env(trainer, desired_name="rare", min_batch_allocation=0.5)["env_id"]
    trainer.post("/scored_data_list", json=[make_group(number, 3) for number in range(5)])
    answer = trainer.get("/reset_data")
    assert answer.text == "Reset successful"
    assert answer.headers["X-Penstock-Dropped-Groups"] == "5"
    assert trainer.get("/status").json() == {"current_step": 0, "queue_size": 0}
    trainer.post("/register", json=REGISTRATION)
    trainer.get("/batch")
    assert register_env(trainer, desired_name="rare", min_batch_allocation=0.5)["env_id"] == rare
    trainer.post("/scored_data_list", json=[make_group(number) for number in (6, 7)])
    assert trainer.get("/batch").json() == {"batch": None}  # its share is reserved again
    trainer.post("/scored_data", json=make_group(8, env_id=rare))
    assert sorted(numbers(trainer.get("/batch").json())) == [6, 8]


def test_info_names_the_queue_to_those_that_take_part_in_it(client: TestClient, name: str) -> None:
    assert "X-Penstock-Queue" not in client.get("/info").headers
    assert client.post("/register", json=REGISTRATION).status_code == 200
    info = client.get("/info")
    assert info.json() == {"batch_size": 4, "max_token_len": 2048}
    instance, queue = info.headers["X-Penstock-Queue"].split(" ", 1)
    assert queue == name
    with TrajectoryWriter.attach(penstock.Handle(queue, instance)) as writer:
        assert writer.handle.instance == instance


def test_reset_forgets_all_settings(name: str, trainer: TestClient) -> None:
    register_env(trainer)
    trainer.post("/scored_data", json=make_group(1))
    with TrajectoryWriter.attach(name, environment="local") as local:
        trainer.get("/reset_data")
        assert trainer.get("/info").json() == {"batch_size": -1, "max_token_len": 2048}
        assert trainer.get("/wandb_info").json() == {"group": None, "project": None}
        assert trainer.get("/status").json() == {"current_step": 0, "queue_size": 0}
        waiting = {"status": "wait for trainer to start"}
        assert trainer.post("/register-env", json=ENVIRONMENT).json() == waiting
        assert trainer.post("/scored_data", json=make_group(1)).status_code == 503
        assert trainer.get("/batch").json()["status"] == "error"
        again = {**REGISTRATION, "batch_size": 2, "starting_step": 7, "wandb_group": "other"}
        trainer.post("/register", json=again)
        assert trainer.get("/info").json()["batch_size"] == 2
        assert trainer.get("/wandb_info").json()["group"] == "other"
        local.put(TrajectoryGroup([[8], [8]]))  # it kept its slot
        assert numbers(trainer.get("/batch").json()) == [8]
        assert trainer.get("/status").json() == {"current_step": 8, "queue_size": 0}
        answer = register_env(trainer)
        assert (answer["env_id"], answer["wandb_name"]) == (0, "math_0")
        assert answer["starting_step"] == 8
        trainer.get("/reset_data")
        trainer.post("/register", json=REGISTRATION)
        assert trainer.get("/info").json()["batch_size"] == 4
        assert not inspect_trajectories(name).stats.closed


def test_small_groups_come_in_the_order_that_they_were_sent_in(name: str) -> None:
    """Large ones among them, packed or not, for any number of concurrent clients."""
    app = build_app(name)

    async def post(client: Any, number: int) -> None:
        words = [[{"role": "user", "content": "word " * (400 if number % 5 == 0 else 1)}]]
        body, headers = json.dumps(make_group(number, 1, messages=words)).encode(), {}
        if number % 3 == 0:
            body, headers = gzip.compress(body), {"Content-Encoding": "gzip"}
        answer = await client.post("/scored_data", content=body, headers=headers)
        assert answer.json() == {"status": "received"}

    async def run() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            await client.post("/register", json={**REGISTRATION, "batch_size": 60})
            await asyncio.gather(*(post(client, number) for number in range(60)))
            return numbers((await client.get("/batch")).json())

    assert asyncio.run(run()) == list(range(60))


# --- environments ------------------------------------------------------------------------------


def test_environments_come_and_go(trainer: TestClient) -> None:
    one = register_env(trainer, min_batch_allocation=0.25)
    two = register_env(trainer, weight=3, group_size=4)
    assert one == {
        "status": "success",
        "env_id": one["env_id"],
        "wandb_name": "math_0",
        "checkpoint_dir": "/ckpt",
        "starting_step": 3,
        "checkpoint_interval": 7,
        "num_steps": 100,
    }
    assert two["wandb_name"] == "math_1"
    assert (one["env_id"], two["env_id"]) == (0, 1)
    trainer.post("/scored_data", json=make_group(1, env_id=one["env_id"]))
    status = {
        "current_step": 3,
        "queue_size": 1,
        "unallocated_fraction": 0.75,
        "self_queue_size": 1,
        "max_group_size": 2,
        "env_weight": 0.25,
    }
    in_body = trainer.request("GET", "/status-env", json={"env_id": one["env_id"]})
    assert in_body.json() == status
    in_query = trainer.get("/status-env", params={"env_id": two["env_id"]})
    none_of_two = {"queue_size": 0, "self_queue_size": 0, "env_weight": 0.75}
    assert in_query.json() == {**status, **none_of_two}
    gone = {"env_id": two["env_id"]}
    for _ in range(2):
        assert trainer.post("/disconnect-env", json=gone).json() == {"status": "success"}
    assert trainer.get("/status-env", params=gone).json()["env_weight"] == 3.0
    alone = trainer.get("/status-env", params={"env_id": one["env_id"]}).json()
    assert alone == {**status, "env_weight": 1.0}
    unknown = trainer.post("/disconnect-env", json={"env_id": 9}).json()
    assert unknown["status"] == "failure"
    assert "9" in unknown["error"]
    assert trainer.get("/status-env", params={"env_id": 9}).status_code == 404


def test_an_environments_queue_size_is_in_its_own_groups(trainer: TestClient) -> None:
    large = register_env(trainer, group_size=4, desired_name="large")["env_id"]
    small = register_env(trainer, group_size=1, min_batch_allocation=0.5)["env_id"]
    for number in range(5):
        trainer.post("/scored_data", json=make_group(number, 1, env_id=small))
    trainer.post("/scored_data", json=make_group(9, 4, env_id=large))

    def status(env_id: int) -> tuple[int, int, int]:
        answer = trainer.get("/status-env", params={"env_id": env_id}).json()
        return answer["queue_size"], answer["self_queue_size"], answer["max_group_size"]

    # Of the small one's five, in packs of 4, its half of a batch of 4 counts for it alone.
    assert status(large) == ((4 + 8 - 2) // 4, 1, 4)
    assert status(small) == (5 + 4, 5, 4)
    assert trainer.get("/status").json()["queue_size"] == 6  # groups


def test_batches_that_can_be_made_at_once_dont_wait(trainer: TestClient) -> None:
    """As in Atropos' server, which forms batches when it has none ready and is asked for one."""
    large = register_env(trainer, group_size=4, desired_name="large")["env_id"]
    small = register_env(trainer, group_size=1)["env_id"]

    def waiting() -> tuple[int, int]:
        ids = [{"env_id": one} for one in (large, small)]
        answers = [trainer.get("/status-env", params=one).json() for one in ids]
        return answers[0]["self_queue_size"], answers[1]["self_queue_size"]

    for number in range(3):
        trainer.post("/scored_data", json=make_group(number, 4, env_id=large))
    for number in range(6):
        trainer.post("/scored_data", json=make_group(number, 1, env_id=small))
    assert waiting() == (3, 6)  # 18 sequences, and a batch has 4
    assert trainer.get("/batch").json()["batch"]
    assert waiting() == (0, 2)
    assert trainer.get("/status").json()["queue_size"] == 8  # everything in the queue
    for _ in range(3):
        assert trainer.get("/batch").json()["batch"]
    assert waiting() == (0, 2)
    assert trainer.get("/batch").json() == {"batch": None}
    trainer.post("/scored_data", json=make_group(9, 4, env_id=large))
    assert waiting() == (1, 2)
    assert trainer.get("/batch").json()["batch"]
    assert sum(waiting()) in (1, 2)  # either the large one is left, or two with two of its four
    trainer.get("/reset_data")
    trainer.post("/register", json=REGISTRATION)
    trainer.get("/batch")
    again = register_env(trainer, group_size=2)["env_id"]
    for number in range(5):
        trainer.post("/scored_data", json=make_group(number, 2, env_id=again))
    status = trainer.get("/status-env", params={"env_id": again}).json()
    assert status["self_queue_size"] == 5


def test_a_group_larger_than_registered_counts_as_one(trainer: TestClient) -> None:
    env_id = register_env(trainer, group_size=2)["env_id"]
    for number in range(3):
        trainer.post("/scored_data", json=make_group(number, 3, env_id=env_id))
    assert trainer.get("/status-env", params={"env_id": env_id}).json()["self_queue_size"] == 3


def test_shares_that_are_too_large_together_are_scaled(trainer: TestClient) -> None:
    one = register_env(trainer, min_batch_allocation=0.75)["env_id"]
    two = register_env(trainer, min_batch_allocation=0.75)["env_id"]
    status = trainer.get("/status-env", params={"env_id": one}).json()
    assert status["unallocated_fraction"] == 0
    trainer.post("/scored_data_list", json=[make_group(at, 1, env_id=one) for at in range(4)])
    assert trainer.get("/batch").json() == {"batch": None}
    trainer.post("/scored_data_list", json=[make_group(at, 1, env_id=two) for at in range(7, 9)])
    assert numbers(trainer.get("/batch").json()) == [0, 1, 7, 8]


@pytest.mark.parametrize(
    "fields",
    [
        {"min_batch_allocation": 1.5},
        {"min_batch_allocation": -1},
        {"weight": 0},
        {"weight": -1.0},  # has a meaning in Atropos' own configuration
        {"desired_name": "n" * 200},
        {"desired_name": "a line\nand another"},
        {"desired_name": ""},
        {"group_size": 0},
        {"group_size": 10**6},
        {"weight": "0.5", "group_size": "2", "max_token_length": 9.0, "min_batch_allocation": None},
    ],
)
def test_an_environment_is_taken_as_it_is(trainer: TestClient, fields: dict[str, Any]) -> None:
    registered = register_env(trainer, **fields)
    env_id = registered["env_id"]
    desired = {**ENVIRONMENT, **fields}["desired_name"]
    assert registered["wandb_name"] == f"{desired}_0"
    assert trainer.get("/status-env", params={"env_id": env_id}).status_code == 200
    trainer.post("/scored_data_list", json=[make_group(at, env_id=env_id) for at in range(2)])
    assert trainer.get("/status-env", params={"env_id": env_id}).json()["self_queue_size"] >= 0
    assert numbers(trainer.get("/batch").json()) == [0, 1]


def test_descriptions_of_environments_are_bounded(
    trainer: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_env(trainer, desired_name="n" * 1024)
    longer = trainer.post("/register-env", json={**ENVIRONMENT, "desired_name": "n" * 1025})
    assert longer.status_code == 422
    assert "1025 characters" in longer.json()["detail"]
    monkeypatch.setattr("penstock.integrations.atropos.http.service._MOST_ENVIRONMENTS", 2)
    register_env(trainer)
    assert trainer.post("/register-env", json=ENVIRONMENT).status_code == 503
    trainer.get("/reset_data")
    trainer.post("/register", json=REGISTRATION)
    trainer.get("/batch")
    register_env(trainer)


def test_more_environments_than_the_queue_has_places_for(name: str) -> None:
    with (
        TrajectoryReader.create(name, sequences=4, participants=4),
        TestClient(build_app(name)) as client,
    ):
        client.post("/register", json=REGISTRATION)
        client.get("/batch")
        ids = [register_env(client)["env_id"] for _ in range(6)]
        assert ids == list(range(6))
        client.post("/scored_data_list", json=[make_group(at, 1, env_id=at) for at in ids[2:]])
        assert numbers(client.get("/batch").json()) == ids[2:]


def test_groups_smaller_than_registered_are_reported_as_buffered(trainer: TestClient) -> None:
    env_id = register_env(trainer, group_size=4)["env_id"]

    def post(*sizes: int) -> dict[str, Any]:
        groups = [make_group(size, size, env_id=env_id) for size in sizes]
        route, body = ("_list", groups) if len(groups) > 1 else ("", groups[0])
        answer: dict[str, Any] = trainer.post(f"/scored_data{route}", json=body).json()
        return answer

    assert post(3) == {"status": "buffered", "buffer_size": 3}
    assert post(2) == {"status": "buffered", "buffer_size": 5}
    assert post(1) == {"status": "buffered", "buffer_size": 2}
    assert post(4) == {"status": "received"}
    assert post(4, 1) == {
        "status": "received",
        "groups_processed": 2,
        "buffered": 1,
        "last_buffer_size": 3,
    }
    assert numbers(trainer.get("/batch").json()) == [3, 1]  # these wait for no others
    assert [numbers(trainer.get("/batch").json()) for _ in range(2)] == [[4], [4]]
    post(1)
    assert numbers(trainer.get("/batch").json()) == [2, 1, 1]
    assert post(2)["buffer_size"] == 2  # of the batch that has gone none is left


# --- groups ------------------------------------------------------------------------------------


def test_every_field_comes_back(trainer: TestClient) -> None:
    trainer.post("/scored_data_list", json=[FULL, make_group(9)])
    full, plain = trainer.get("/batch").json()["batch"]
    assert full == FULL
    assert plain.keys() == FULL.keys()
    assert plain["ref_logprobs"] is None
    assert plain["messages"] is None


def test_http_and_memory_give_equal_batches(name: str, trainer: TestClient) -> None:
    bodies = [FULL, make_group(1, 1, env_id=3), make_group(2, 1, env_id=3)]
    groups = [
        TrajectoryGroup(body["tokens"], **{key: body[key] for key in body if key != "tokens"})
        for body in bodies
    ]
    assert [group_from_json(body) for body in bodies] == groups
    with TrajectoryWriter.attach(name, environment="local") as writer:
        for group in groups:
            writer.put(group)
        from_memory = trainer.get("/batch").json()
    trainer.post("/scored_data_list", json=bodies)
    from_http = trainer.get("/batch").json()
    assert from_http == from_memory
    assert len(from_http["batch"]) == 3

    trainer.post("/scored_data_list", json=bodies)
    with TrajectoryReader.attach(name, sequences=4) as reader:
        batch = reader.next_batch(layout="groups", timeout=WITHIN)
        assert list(batch.groups) == groups
        texts = [group_to_text(group) for group in batch.groups]
        assert [json.loads(text) for text in texts] == from_http["batch"]
        batch.ack()


def test_fields_that_only_memory_can_carry(name: str, trainer: TestClient) -> None:
    with TrajectoryWriter.attach(name) as writer:
        writer.put(
            TrajectoryGroup(
                [np.array([1, 2], np.int32)] * 4,
                masks=[np.array([1, 2], np.int32)] * 4,
                scores=[float("nan"), 1, 2, 3],
                ref_logprobs=[np.array([0.5, 0.25], np.float16)] * 4,
                images=[b"hi"],
                distill_token_ids=[[[1], [2, 3]]] * 4,
            )
        )
        (group,) = trainer.get("/batch").json()["batch"]
    assert group["images"] == ["aGk="]
    assert group["scores"][0] != group["scores"][0]
    assert group["ref_logprobs"][0] == [0.5, 0.25]
    assert group["distill_token_ids"][0] == [[1], [2, 3]]


@pytest.mark.parametrize("text", ["naïve – 日本語 😀", "half a character: \ud800"])
def test_text_comes_back_as_it_was(trainer: TestClient, text: str) -> None:
    body = make_group(1, 4, images=text)
    assert trainer.post("/scored_data", content=json.dumps(body)).status_code == 200
    assert trainer.get("/batch").json()["batch"][0]["images"] == text


def test_gzip_both_ways(trainer: TestClient) -> None:
    groups = [make_group(number) for number in range(2)]
    groups[0]["messages"] = [[{"role": "user", "content": "again " * 300}], []]
    text = json.dumps(groups).encode()
    half = len(text) // 2
    packed = gzip.compress(text[:half]) + gzip.compress(text[half:])
    answer = trainer.post("/scored_data_list", content=packed, headers={"Content-Encoding": "gzip"})
    assert answer.json() == {"status": "received", "groups_processed": 2}
    assert "content-encoding" not in answer.headers  # too short to compress
    batch = trainer.get("/batch")
    assert batch.headers["content-encoding"] == "gzip"
    assert batch.json()["batch"][0]["messages"] == groups[0]["messages"]


@pytest.mark.parametrize(
    ("content", "encoding", "status"),
    [
        (gzip.compress(b" " * (2 << 20)), "gzip", 413),
        (b" " * (2 << 20), "identity", 413),
        (b"{}", "gzip", 400),
        (gzip.compress(b"{}")[:-5], "gzip", 400),
        (gzip.compress(b"{}")[:-8] + b"12345678", "x-gzip", 400),
        (b"{}", "br", 415),
        (b"{", "identity", 422),
        (b"\xff", "identity", 422),
        (b"", "identity", 422),
    ],
)
def test_bodies_that_cannot_be_read(
    trainer: TestClient, content: bytes, encoding: str, status: int
) -> None:
    headers = {"Content-Encoding": encoding}
    answer = trainer.post("/scored_data", content=content, headers=headers)
    assert answer.status_code == status
    assert "the body" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tokens": None}, "'tokens' is missing"),
        ({"masks": None}, "'masks' is missing"),
        ({"scores": None}, "'scores' is missing"),
        ({"tokens": 3}, "'tokens' is a whole number: give a list"),
        ({"tokens": [[1, 2, 3], "text"]}, "sequence 1 of 'tokens' is text"),
        ({"tokens": [[1, 2, 3], [1.5, 2, 3]]}, "sequence 1 of 'tokens' holds something else"),
        ({"tokens": [[1, 2, 3], [2**70, 2, 3]]}, "sequence 1 of 'tokens' holds something else"),
        ({"tokens": [[1, 2, 3], [[1], 2, 3]]}, "sequence 1 of 'tokens' holds something else"),
        ({"tokens": []}, "'tokens' of a group is empty"),
        ({"tokens": [[1, 2, 3], ["1.5", 2, 3]]}, "sequence 1 of 'tokens' holds something else"),
        ({"tokens": [[1, 2, 3], [None, 2, 3]]}, "sequence 1 of 'tokens' holds something else"),
        ({"masks": [[1, 2, 3], {"1": 1}]}, "sequence 1 of 'masks' is an object: give a list"),
        ({"scores": ["one"]}, "'scores' holds something else than numbers"),
        ({"messages": [[{"role": "user"}]]}, "'messages' is not an object with role"),
        ({"overrides": [1, 2]}, "item 0 of the field 'overrides'"),
        ({"generation_params": []}, "'generation_params' is a list: give an object"),
        ({"env_id": "one"}, "'env_id' is text: give a whole number"),
        ({"env_id": 0.5}, "'env_id' is a number: give a whole number"),
        ({"distill_token_ids": [[1, 2, 3]] * 2}, "'distill_token_ids' is a whole number"),
    ],
)
def test_groups_that_are_refused(trainer: TestClient, fields: dict[str, Any], words: str) -> None:
    body = {**make_group(1), **fields}
    alone = trainer.post("/scored_data", json=body)
    assert alone.status_code == 422
    assert words in alone.json()["detail"]
    listed = trainer.post("/scored_data_list", json=[make_group(2), body])
    assert listed.status_code == 422
    assert listed.json()["detail"].startswith("group 1 of the list: ")
    assert trainer.get("/status").json()["queue_size"] == 0  # a list goes in whole or not at all


@pytest.mark.parametrize(
    ("route", "body", "words"),
    [
        ("/register", [], "the body is a list: give an object"),
        ("/register", {**REGISTRATION, "batch_size": "four"}, "'batch_size' is text"),
        ("/register", {**REGISTRATION, "batch_size": 0}, "'batch_size' is 0"),
        ("/register", {"batch_size": 4}, "'wandb_group' is missing"),
        ("/register-env", {**ENVIRONMENT, "weight": "x"}, "'weight' is text"),
        ("/register-env", {**ENVIRONMENT, "group_size": None}, "'group_size' is missing"),
        ("/register-env", {**ENVIRONMENT, "weight": 10**400}, "'weight' is beyond"),
        ("/register-env", {**ENVIRONMENT, "desired_name": "\ud800"}, "'desired_name' holds half"),
        ("/disconnect-env", {}, "'env_id' is missing"),
        ("/scored_data", [make_group(1)], "the body is a list"),
        ("/scored_data_list", make_group(1), "give a list of groups"),
    ],
)
def test_bodies_that_do_not_validate(
    trainer: TestClient, route: str, body: Any, words: str
) -> None:
    answer = trainer.post(route, content=json.dumps(body))
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


TWO: dict[str, Any] = {"tokens": [[1, 2], [3, 4]], "masks": [[1, 2], [3, 4]], "scores": [0, 1]}


@pytest.mark.parametrize(
    ("fields", "back"),
    [
        # Fields that a BaseEnv sends where an environment leaves them out.
        ({name: [] for name in ("advantages", "ref_logprobs", "messages", "overrides")}, {}),
        ({name: [] for name in ("inference_logprobs", "images", "distill_logprobs")}, {}),
        ({"masks": []}, {}),
        ({"scores": []}, {}),
        ({"masks": [[1], [3, 4, 5]]}, {}),
        ({"masks": [[1, 2]]}, {}),
        ({"advantages": [[0.5], [0.25]]}, {}),
        ({"advantages": [[1], [2]]}, {"advantages": [[1.0], [2.0]]}),
        ({"ref_logprobs": [[0.5, 0.5], [0.25]]}, {}),
        ({"distill_token_ids": [[[1]]] * 2}, {}),
        ({"distill_token_ids": [[[1], [2]]] * 2, "distill_logprobs": [[[0.5, 1.5], []]] * 2}, {}),
        ({"scores": [0.5]}, {}),
        ({"scores": [0.5, 1, 2]}, {}),
        ({"scores": ["1", True]}, {"scores": [1.0, 1.0]}),
        ({"masks": [[True, False], ["-100", 4.0]]}, {"masks": [[1, 0], [-100, 4]]}),
        ({"tokens": [["1", " 2 "], [3.0, True]]}, {"tokens": [[1, 2], [3, 1]]}),
        ({"tokens": [[], [3, 4]], "masks": [[], [3, 4]]}, {}),
        ({"tokens": [[], []], "masks": [[], []], "distill_token_ids": [[], []]}, {}),
        ({"inference_logprobs": [["-0.5", "nan"], []]}, None),
        ({"env_id": "7"}, {"env_id": 7}),
        ({"group_overrides": {}, "generation_params": {}}, {}),
        ({"extra": 1}, None),
    ],
)
def test_groups_come_back_as_from_atropos_server(
    name: str, trainer: TestClient, fields: dict[str, Any], back: dict[str, Any] | None
) -> None:
    body = {**TWO, **fields}
    assert group_from_json(json.loads(json.dumps(body))) == group_from_json(body)
    for _ in range(2):
        assert trainer.post("/scored_data", json=body).json() == {"status": "received"}
    first, _ = trainer.get("/batch").json()["batch"]
    if back is not None:
        wanted = {**dict.fromkeys(FULL), **body, **back}
        assert first == wanted
        assert repr(first["scores"]) == repr([float(one) for one in wanted["scores"]])
    # Trainers on the queue itself read the fields that fit its tokens as arrays.
    for _ in range(2):
        trainer.post("/scored_data", json=body)
    with TrajectoryReader.attach(name, sequences=4) as reader:
        with reader.next_batch(layout="padded", causal_shift=True, timeout=WITHIN) as batch:
            assert batch.tokens.shape[0] == 4
            (group, _) = batch.groups
        assert json.loads(group_to_text(group))["tokens"] == first["tokens"]
        for column in group.columns:
            assert isinstance(group.flat(column), np.ndarray)
        if body["masks"] != first["masks"] or "masks" not in group.columns:
            assert group.masks is not None


def test_a_group_larger_than_the_batch(trainer: TestClient) -> None:
    refused = trainer.post("/scored_data", json=make_group(1, 5))
    assert refused.status_code == 422
    assert "5 sequences" in refused.json()["detail"]


def test_a_group_without_env_id_comes_back_without(trainer: TestClient) -> None:
    trainer.post("/scored_data", json=make_group(4, sequences=4))
    (group,) = trainer.get("/batch").json()["batch"]
    assert group["env_id"] is None


def test_its_routes_are_documented(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.")
    routes = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert ("post", "/scored_data") in routes
    assert ("get", "/status-env") in routes
    assert len(routes) == 13
    scored = document["components"]["schemas"]["ScoredData"]
    assert scored["required"] == ["tokens", "masks", "scores"]
    assert scored["properties"].keys() == FULL.keys()
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    for _, path in routes:
        assert f">{path}<" in page.text


def test_unknown_routes(client: TestClient) -> None:
    assert client.get("/nowhere").status_code == 404
    assert client.get("/nowhere").json() == {"detail": "Not Found"}
    assert client.get("/register").status_code == 405
    assert client.get("/status-env", params={"env_id": "x"}).status_code == 422


def test_a_full_queue_says_so_and_takes_nothing(name: str) -> None:
    with TrajectoryReader.create(name, sequences=2, slots=2) as reader:
        with TestClient(build_app(name, put_timeout=0.05)) as client:
            client.post("/register", json={**REGISTRATION, "batch_size": 2})
            accepted = 0
            while (answer := client.post("/scored_data", json=make_group(accepted))).is_success:
                accepted += 1
            assert answer.status_code == 503
            assert answer.json()["error"]
            assert client.get("/status").json()["queue_size"] == accepted
            assert numbers(client.get("/batch").json()) == [0]
            more = client.post("/scored_data_list", json=[make_group(accepted), make_group(99)])
            assert more.status_code == 503
            assert more.json()["groups_processed"] == 1
            got = [numbers(client.get("/batch").json()) for _ in range(accepted)]
            assert got == [[number] for number in range(1, accepted + 1)]
        assert not reader.closed


def test_a_post_that_waits_for_room_gets_it(name: str) -> None:
    with (
        TrajectoryReader.create(name, sequences=2, slots=2),
        TestClient(build_app(name, put_timeout=WITHIN)) as client,
    ):
        client.post("/register", json={**REGISTRATION, "batch_size": 2})
        statuses: list[int] = []

        def post(number: int) -> None:
            statuses.append(client.post("/scored_data", json=make_group(number)).status_code)

        # More than the server has threads for other requests: batches must get through.
        posters = [threading.Thread(target=post, args=(number,)) for number in range(60)]
        for poster in posters:
            poster.start()
        got = []
        for _ in posters:
            got += numbers(eventually(lambda: _batch_of(client), WITHIN))
        for poster in posters:
            poster.join(WITHIN)
        assert statuses == [200] * 60
        assert sorted(got) == list(range(60))


def _batch_of(client: TestClient) -> dict[str, Any] | None:
    answer: dict[str, Any] = client.get("/batch").json()
    return answer if answer["batch"] else None


# --- the command -------------------------------------------------------------------------------


def ask(address: str, route: str, body: Any = None, method: str | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        address + route, data, {"Content-Type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=WITHIN) as answer:
        return json.load(answer)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_end_to_end(name: str, number: signal.Signals) -> None:
    with served(name) as (process, address):
        assert ask(address, "/") == {"message": "AtroposLib API"}
        ask(address, "/register", REGISTRATION)
        assert ask(address, "/batch") == {"batch": None}
        env_id = ask(address, "/register-env", ENVIRONMENT)["env_id"]
        for at in range(4):
            ask(address, "/scored_data", make_group(at, env_id=env_id))
        status = ask(address, "/status-env", {"env_id": env_id}, "GET")
        assert status["self_queue_size"] == 4
        assert [numbers(ask(address, "/batch")) for _ in range(2)] == [[0, 1], [2, 3]]
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(address, "/scored_data", {})
        assert refused.value.code == 422
        refused.value.close()
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=WITHIN)
        assert (process.returncode, stdout, stderr) == (0, "", "")


@pytest.mark.full
def test_untaken_groups_survive_a_restart(name: str) -> None:
    for round_ in range(2):
        with served(name, "--json") as (process, address):
            ask(address, "/register", REGISTRATION)
            if round_ == 0:
                ask(address, "/scored_data_list", [make_group(1), make_group(2)])
            else:
                ask(address, "/scored_data_list", [make_group(3), make_group(4)])
                assert numbers(ask(address, "/batch")) == [1, 2]
                assert numbers(ask(address, "/batch")) == [3, 4], "and it goes on"
                assert ask(address, "/batch") == {"batch": None}
            process.send_signal(signal.SIGINT)
            stdout, _ = process.communicate(timeout=WITHIN)
            assert process.returncode == 0
            assert json.loads(stdout) == {"queue": name, "address": address}


def test_a_port_that_is_taken(name: str) -> None:
    with served(name) as (_, address):
        port = address.rpartition(":")[2]
        command = [sys.executable, "-m", "penstock.cli.main", "trajectories", "serve"]
        result = subprocess.run(
            [*command, "--queue", name, "--port", port],
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr.startswith("penstock: ")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--queue", "a b", "InvalidName"),
        ("--queue", "", "InvalidName"),
        ("--queue", "../x", "InvalidName"),
        ("--port", "http", "'http' is no whole number from 0 to 65535"),
        ("--port", "70000", "'70000' is no whole number from 0 to 65535"),
        ("--port", "-1", "-1"),
    ],
)
def test_invalid_options_are_refused_before_it_listens(
    name: str, option: str, value: str, words: str
) -> None:
    options = {"--queue": name, "--port": "0", option: value}
    result = subprocess.run(
        [
            *(sys.executable, "-m", "penstock.cli.main", "trajectories", "serve"),
            *(f"{key}={value}" for key, value in options.items()),
        ],
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert result.returncode != 0
    assert words in result.stderr
    assert "http://" not in result.stderr
    assert "Traceback" not in result.stderr


def test_a_taken_name_is_refused_before_it_listens(name: str) -> None:
    with penstock.Queue.create(name, capacity="1MiB"), pytest.raises(penstock.Incompatible):
        build_app(name)
    with penstock.Store.create(name, capacity="1MiB"), pytest.raises(penstock.Incompatible):
        build_app(name)


def test_without_the_extra_it_says_what_to_install(name: str) -> None:
    script = (
        "import sys; sys.modules['starlette'] = None; from penstock.cli.main import main;"
        f"sys.exit(main(['trajectories', 'serve', '--queue', '{name}', '--port', '0']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=WITHIN, check=False
    )
    assert result.returncode == 1
    assert "pip install penstock[http]" in result.stderr
    assert len(result.stderr.splitlines()) == 1
