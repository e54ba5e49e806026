"""The HTTP face bounds what clients can make it hold: memory, time and connections."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import socket
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")
pytest.importorskip("msgspec")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

from http_server import REGISTRATION, WITHIN, make_group, served
from peers import eventually

import penstock
from penstock.integrations.atropos.http import build_app
from penstock.integrations.atropos.http.arrival import Unpacking
from penstock.integrations.atropos.http.bodies import group_from_json, group_from_text
from penstock.integrations.atropos.http.limits import Admission, Busy, Limits, TooBig, TooLong
from penstock.trajectories import TrajectoryGroup, TrajectoryReader

MiB = 1 << 20


@pytest.fixture
def client(name: str) -> Iterator[TestClient]:
    with TestClient(build_app(name, limits=Limits(body_bytes=256 * MiB))) as made:
        made.post("/register", json={**REGISTRATION, "batch_size": 2, "max_token_len": 0})
        yield made
        made.get("/reset_data")


def peak_of(act: Callable[[], Any]) -> int:
    """The peak memory of Python and NumPy in a call, in bytes."""
    act()  # first-time allocations
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def free(_cost: int) -> None:
    """Charge nothing."""


def refused(body: bytes) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        group_from_text(body, free)
    return str(caught.value)


def text_of(**fields: Any) -> bytes:
    return json.dumps({**make_group(1), **fields}).encode()


# --- types before arrays ----------------------------------------------------------------------


def test_no_array_is_made_of_text() -> None:
    """A long text among many short ones would become an array of equally long ones."""
    mixed = ["x" * 100_000] + ["a"] * 300
    for fields in (
        {"tokens": [mixed, [1]]},
        {"masks": [[1], mixed]},
        {"scores": mixed},
        {"advantages": [mixed, mixed]},
        {"distill_token_ids": [[mixed], [["a"]]]},
        {"distill_logprobs": [[[0.5]], [mixed]]},
    ):
        body = text_of(**fields)
        assert "holds something else than" in refused(body)
        assert peak_of(lambda body=body: refused(body)) < 8 * len(body) + MiB
        value = json.loads(body)
        with pytest.raises(ValueError, match="holds something else than"):
            group_from_json(value)


def test_a_few_bytes_of_gzip(client: TestClient) -> None:
    tokens = b'["' + b"x" * 100_000 + b'"' + b',"a"' * 20_000 + b"]"
    body = b'{"tokens":[' + tokens + b'],"masks":[[1]],"scores":[1]}'
    packed = gzip.compress(body)
    assert len(packed) < 1_000

    def post() -> None:
        answer = client.post("/scored_data", content=packed, headers={"Content-Encoding": "gzip"})
        assert answer.status_code == 422
        assert "sequence 0 of 'tokens'" in answer.json()["detail"]

    assert peak_of(post) < 6 * len(body) + 2 * MiB


LONG_COLUMNS = {
    "one sequence of small numbers": [[1] * 100_000],
    "one sequence of large numbers": [[2**40, 1] * 20_000],
    "many sequences": [[1]] * 40_000,
    "sequences of some length": [list(range(5_000))] * 8,
}


@pytest.mark.parametrize("column", LONG_COLUMNS.values(), ids=LONG_COLUMNS)
@pytest.mark.parametrize("name", ["masks", "advantages", "distill_token_ids", "distill_logprobs"])
def test_memory_is_a_small_multiple_of_the_body(column: Any, name: str) -> None:
    body: dict[str, Any] = {"tokens": column, "masks": column, "scores": [0.5] * len(column)}
    body[name] = [[[one] for one in row] for row in column] if "distill" in name else column
    text = json.dumps(body, separators=(",", ":")).encode()
    costs: list[int] = [len(text)]
    group = group_from_text(text, costs.append)
    assert group == TrajectoryGroup(**body)
    assert group == group_from_json(body)
    peak = peak_of(lambda: group_from_text(text, free))
    assert peak < 6 * sum(costs) + 2 * MiB  # of chunks


@pytest.mark.full
def test_long_columns_are_read_as_short_ones_are() -> None:
    """They are cut into chunks at any position, with blanks where JSON allows them."""
    rows = [[at, -at, 2**31 + at] * 9_000 for at in range(3)]
    reals = [[0.5 * one for one in row] for row in rows]
    distilled = [[[one, 7][: one % 3] for one in row] for row in rows]
    body = {
        "tokens": rows,
        "masks": rows,
        "scores": [1, 2.5, -3],
        "ref_logprobs": reals,
        "distill_token_ids": distilled,
    }
    for separators in ((",", ":"), (" ,\n ", " : ")):
        text = json.dumps(body, separators=separators).encode()
        assert group_from_text(text, free) == TrajectoryGroup(**body)
    bad = json.dumps({**body, "masks": [*rows[:2], [*rows[2][:-1], "x"]]}).encode()
    assert "sequence 2 of 'masks' holds something else than whole numbers" in refused(bad)
    bad = json.dumps({**body, "masks": [*rows[:2], "x"]}).encode()
    assert "sequence 2 of 'masks' is text: give a list" in refused(bad)
    distilled[1][20_000] = [1, None]
    bad = json.dumps(body).encode()
    assert "sequence 1 of 'distill_token_ids' holds something else" in refused(bad)


@pytest.mark.parametrize("name", ["tokens", "advantages", "distill_logprobs"])
def test_lists_where_numbers_should_be_are_refused_wherever_they_are_cut(name: str) -> None:
    for inner in ([7] * 60_000, [[7]] * 60_000, [[[7] * 60_000]], ["],"] * 60_000, "],[" * 60_000):
        for row in ([0, inner, 5], [inner], [[0, inner]], [[[0], inner], []]):
            assert f"'{name}'" in refused(text_of(**{name: [row, [5]]}))


def test_pythons_own_json_is_still_accepted(client: TestClient) -> None:
    """NaN and lone surrogates, which Python's clients write."""
    body = text_of(scores=[float("nan"), float("-inf")], images="\ud800", messages=[[], []])
    assert client.post("/scored_data", content=body).status_code == 200
    (group,) = client.get("/batch").json()["batch"]
    assert np.isnan(group["scores"][0])
    assert group["scores"][1] == -np.inf
    assert group["images"] == "\ud800"
    assert "'tokens' holds something else" in refused(text_of(tokens=[[float("nan")], [1]]))


def test_gzip_of_many_members_is_refused_in_words(client: TestClient) -> None:
    packed = gzip.compress(b"") * 50_000 + gzip.compress(text_of())
    answer = client.post("/scored_data", content=packed, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 422
    assert "members of gzip" in answer.json()["detail"]


# --- admission --------------------------------------------------------------------------------


def test_the_cost_of_concurrent_requests_is_bounded() -> None:
    admission = Admission(Limits(body_bytes=100, total_bytes=150, requests=2))
    with admission.enter() as one, admission.enter() as two:
        with pytest.raises(Busy, match="2 requests"), admission.enter():
            pass
        one.charge(100)
        with pytest.raises(TooBig, match="more than 100 bytes"):
            one.charge(1)
        two.charge(50)
        with pytest.raises(Busy, match="150 bytes of 150"):
            two.charge(1)
    with admission.enter() as three:
        three.charge(100)  # all of it was returned


def test_a_request_is_alone_after_a_calm_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("penstock.integrations.atropos.http.limits.monotonic", lambda: now[0])
    admission = Admission(Limits())
    with admission.enter() as one:
        assert one.is_alone
        with admission.enter() as two:
            assert not one.is_alone
            assert not two.is_alone
        assert one.is_alone
        assert not two.is_alone
    with admission.enter() as soon_after:
        assert not soon_after.is_alone
    now[0] += 1.0
    with admission.enter() as later:
        assert later.is_alone


def test_a_body_of_many_values_is_read_again_in_a_thread() -> None:
    with Admission(Limits(body_bytes=1000)).enter() as ticket:
        ticket.charge(100)
        with ticket.at_most(50):
            ticket.charge(50)
        assert ticket.cost == 150

        def too_much() -> None:
            with ticket.at_most(50):
                ticket.charge(40)
                ticket.charge(11)

        with pytest.raises(TooLong):
            too_much()
        assert ticket.cost == 150
        ticket.charge(850)
        with pytest.raises(TooBig):
            ticket.charge(1)


@pytest.mark.parametrize(
    ("field", "value"),
    [("images", [[]] * 100_000), ("masks", [[1.5, "1"] * 50_000]), ("tokens", [[1]] * 50_000)],
)
def test_a_lone_post_of_many_values_blocks_no_other(
    name: str, monkeypatch: pytest.MonkeyPatch, field: str, value: Any
) -> None:
    """A lone POST of plain numbers is read on the loop."""
    read_by: list[str] = []

    def read(body: bytes, charge: Any) -> TrajectoryGroup:
        read_by.append(threading.current_thread().name)
        return group_from_text(body, charge)

    monkeypatch.setattr("penstock.integrations.atropos.http.app.group_from_text", read)
    monkeypatch.setattr("penstock.integrations.atropos.http.limits._CALM", 0.0)
    with TestClient(build_app(name)) as client:
        client.post("/register", json=REGISTRATION)
        assert client.post("/scored_data", content=text_of()).status_code == 200
        (loop,) = read_by
        answer = client.post("/scored_data", content=text_of(**{field: value}))
        assert answer.status_code in (200, 422)
        assert read_by[-1] != loop
        client.get("/reset_data")


def test_gzip_is_no_longer_on_the_loop_than_it_says() -> None:
    """A body without a size, or with too small a size, is unpacked in a thread."""
    text = bytes(64 * MiB)
    packed = gzip.compress(text)
    lies = packed[:-4] + (100).to_bytes(4, "little")
    with Admission(Limits()).enter() as ticket:
        assert not Unpacking(packed, ticket).is_short(2 * MiB)
        assert ticket.cost == 0
        assert not Unpacking(lies, ticket).is_short(2 * MiB)
        assert ticket.cost <= 4 * MiB
        assert not Unpacking(gzip.compress(b"") * 100, ticket).is_short(2 * MiB)
        whole = Unpacking(gzip.compress(text[: 2 * MiB]), ticket)
        assert whole.is_short(2 * MiB)
        assert whole.finish() == text[: 2 * MiB]
        steps = Unpacking(packed, ticket)
        assert not steps.is_short(MiB)
        assert steps.finish() == text


def test_values_cost_more_than_their_text(name: str) -> None:
    """[] is three bytes, and a Python object."""
    with TestClient(build_app(name, limits=Limits(body_bytes=MiB))) as client:
        client.post("/register", json=REGISTRATION)
        for field in ("images", "messages", "overrides"):
            body = text_of(**{field: [[]] * 100_000})
            assert len(body) < MiB
            answer = client.post("/scored_data", content=body)
            assert answer.status_code == 413
            assert "more than 1048576 bytes" in answer.json()["detail"]
        listed = b"[" + b",".join([text_of()] * 1_000) + b"]"
        assert client.post("/scored_data_list", content=listed).status_code == 413


def test_groups_that_wait_for_room_are_under_way(name: str) -> None:
    with (
        TrajectoryReader.create(name, sequences=2, slots=2) as reader,
        TestClient(build_app(name, put_timeout=WITHIN, limits=Limits(requests=1))) as client,
    ):
        client.post("/register", json={**REGISTRATION, "batch_size": 2})
        for number in range(2):
            assert client.post("/scored_data", json=make_group(number)).status_code == 200
        statuses: list[int] = []

        def post() -> None:
            # The only place may belong to the request below, which checks whether this one has it.
            while (status := client.post("/scored_data", json=make_group(2)).status_code) == 503:
                pass
            statuses.append(status)

        poster = threading.Thread(target=post)
        poster.start()
        answer = eventually(lambda: refused_for_now(client), WITHIN)
        assert answer.headers["Retry-After"] == "1"
        assert "1 requests are under way" in answer.json()["error"]
        assert client.get("/status").status_code == 200  # has no body
        assert client.get("/batch").json()["batch"]
        poster.join(WITHIN)
        assert statuses == [200]
        assert reader.drop_waiting() == 2


def test_a_list_that_waits_for_room_goes_in_once(name: str) -> None:
    """Two at once, and the others when there is room: none twice."""
    with (
        TrajectoryReader.create(name, sequences=2, slots=2) as reader,
        TestClient(build_app(name, put_timeout=WITHIN)) as client,
    ):
        client.post("/register", json={**REGISTRATION, "batch_size": 2})
        answers: list[Any] = []
        groups = [make_group(number) for number in range(6)]
        poster = threading.Thread(
            target=lambda: answers.append(client.post("/scored_data_list", json=groups))
        )
        poster.start()
        taken = []
        while len(taken) < len(groups):
            batch = eventually(lambda: client.get("/batch").json()["batch"], WITHIN)
            taken += [group["tokens"][0][0] for group in batch]
        poster.join(WITHIN)
        assert answers[0].json() == {"status": "received", "groups_processed": len(groups)}
        assert taken == list(range(len(groups)))
        assert reader.drop_waiting() == 0


def refused_for_now(client: TestClient) -> Any:
    answer = client.post("/disconnect-env", json={"env_id": 99})
    return answer if answer.status_code == 503 else None


@pytest.mark.parametrize("name_of", ["body_bytes", "requests", "header_timeout"])
def test_limits_are_more_than_nothing(name_of: str) -> None:
    with pytest.raises(penstock.InvalidArgument, match=name_of):
        Limits(**{name_of: 0})


# --- time and connections, over real sockets ----------------------------------------------------


@pytest.fixture(params=["httptools", "h11"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The server's parser of requests: h11 where httptools is not installed."""
    name: str = request.param
    if name == "httptools":
        pytest.importorskip("httptools")
    else:
        (tmp_path / "httptools.py").write_text("raise ImportError('hidden by a test')\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return name


with_both_parsers = pytest.mark.usefixtures("parser")


def connect(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=WITHIN)


HEAD = b"POST /scored_data HTTP/1.1\r\nHost: localhost\r\n"


def all_of(connection: socket.socket) -> bytes:
    """All data until the other side closes."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            answer += part
    return answer


@with_both_parsers
def test_half_of_a_head_is_not_waited_for(name: str) -> None:
    with served(name, "--header-timeout", "0.5") as (_, address):
        halves = [connect(address) for _ in range(20)]
        for half in halves:
            half.sendall(HEAD)
        begun = time.monotonic()
        drip = halves[0]
        with contextlib.suppress(OSError):  # a byte at times is no head either
            while time.monotonic() - begun < WITHIN:
                drip.sendall(b"X")
                drip.settimeout(0.1)
                with contextlib.suppress(TimeoutError):
                    if not drip.recv(1):
                        break
        assert time.monotonic() - begun < WITHIN
        for half in halves[1:]:
            assert all_of(half) == b""
            half.close()
        drip.close()


@with_both_parsers
def test_half_of_a_body_is_not_waited_for(name: str) -> None:
    with served(name, "--body-timeout", "0.5") as (_, address), connect(address) as half:
        half.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        answer = all_of(half)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"did not arrive within 0.5 s" in answer


@with_both_parsers
def test_a_body_after_its_answer_is_not_waited_for(name: str) -> None:
    with served(name, "--header-timeout", "0.5") as (_, address), connect(address) as half:
        half.sendall(HEAD + b"Content-Encoding: br\r\nContent-Length: 100\r\n\r\n{")
        assert all_of(half).startswith(b"HTTP/1.1 415")


@pytest.mark.full
@with_both_parsers
def test_an_answer_that_is_not_read_is_given_up(name: str) -> None:
    with (
        TrajectoryReader.create(name, sequences=1, capacity="64MiB"),
        served(name, "--answer-timeout", "0.5") as (_, address),
    ):
        ask = json.dumps({**REGISTRATION, "batch_size": 1, "max_token_len": 0}).encode()
        post(address, "/register", ask)
        long = json.dumps({"tokens": [[123456] * MiB], "masks": [[1] * MiB], "scores": [1]})
        post(address, "/scored_data", long.encode())
        with connect(address) as reader:
            here, there = reader.getsockname(), reader.getpeername()
            reader.sendall(b"GET /batch HTTP/1.1\r\nHost: localhost\r\n\r\n")
            # Nothing is read until the server has closed its end of the connection.
            eventually(lambda: not is_connected(here, there) or None, WITHIN)
            assert len(all_of(reader)) < 8 * MiB


def post(address: str, route: str, body: bytes) -> bytes:
    head = f"POST {route} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    with connect(address) as connection:
        connection.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        answer = all_of(connection)
    assert answer.startswith(b"HTTP/1.1 200"), answer
    return answer


def is_connected(here: Any, there: Any) -> bool:
    """Whether the server's socket of a connection is established, according to the kernel."""

    def kernel(address: Any) -> str:
        host = socket.inet_aton(address[0])[::-1].hex().upper()
        return f"{host}:{address[1]:04X}"

    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split()[1:4] for line in table]
    return [kernel(there), kernel(here), "01"] in rows


@with_both_parsers
def test_connections_are_bounded_and_the_rest_refused(name: str) -> None:
    with served(name, "--max-connections", "4") as (_, address):
        held = [connect(address) for _ in range(4)]
        for one in held:
            one.sendall(HEAD + b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n")
            assert one.recv(65536).startswith(b"HTTP/1.1 100")  # the server waits for its body
        with connect(address) as more:
            answer = all_of(more)
            assert answer.startswith(b"HTTP/1.1 503")
            head, _, body = answer.partition(b"\r\n\r\n")
            assert b"Retry-After: 1" in head
            assert b"Content-Length: %d" % len(body) in head
            assert json.loads(body)["error"].startswith("too many connections")
        held.pop().close()
        eventually(lambda: can_ask(address), WITHIN)
        for one in held:
            one.close()


@with_both_parsers
def test_half_requests_keep_no_whole_one(name: str) -> None:
    with served(name, "--max-connections", "20") as (_, address):
        halves = [connect(address) for _ in range(60)]
        for half in halves:
            with contextlib.suppress(OSError):  # one of the first, already closed
                half.sendall(HEAD)
        for _ in range(5):
            assert can_ask(address)
        for half in halves:
            half.close()


def can_ask(address: str) -> bool:
    with connect(address) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return all_of(connection).startswith(b"HTTP/1.1 200")


BAD = b"Invalid HTTP request received."


@with_both_parsers
def test_long_heads_are_refused(name: str) -> None:
    with served(name) as (_, address):
        for part in (
            b"GET /" + b"x" * 70_000,
            HEAD + b"X-Y: " + b"z" * 70_000,
            HEAD + b"A: b\r\n" * 9_000,
        ):
            with connect(address) as connection:
                connection.sendall(part)
                answer = all_of(connection)
            # If it was closed with unread bytes, the answer may be lost.
            assert answer == b"" or (answer.startswith(b"HTTP/1.1 400") and BAD in answer)
        assert can_ask(address)


ENDLESS = {
    "a head": HEAD,
    "trailers": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
}


@with_both_parsers
@pytest.mark.parametrize("begin", ENDLESS.values(), ids=ENDLESS)
def test_framing_of_a_body_is_bounded(name: str, begin: bytes) -> None:
    with served(name) as (_, address), connect(address) as connection:
        connection.sendall(begin)
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 8 * MiB:
                connection.sendall(b"X-Y: %b\r\n" % (b"z" * 1000))
                sent += 1000
        assert sent < 8 * MiB


@with_both_parsers
@pytest.mark.parametrize("hosts", [b"", b"Host: localhost\r\nHost: example.org\r\n"])
def test_a_request_has_one_host(name: str, hosts: bytes) -> None:
    with served(name) as (_, address), connect(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" + hosts + b"\r\n")
        answer = all_of(connection)
        assert answer.startswith(b"HTTP/1.1 400")
        assert BAD in answer


def read_until(connection: socket.socket, end: bytes) -> None:
    answer = b""
    while not answer.endswith(end):
        part = connection.recv(65536)
        assert part, answer
        answer += part


@with_both_parsers
def test_a_body_may_come_in_any_pieces(name: str) -> None:
    group = json.dumps(make_group(1, sequences=4)).encode()
    with TrajectoryReader.create(name, sequences=4) as reader, served(name) as (_, address):
        post(address, "/register", json.dumps(REGISTRATION).encode())
        pieces = [group[at : at + 7] for at in range(0, len(group), 7)]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in pieces) + b"0\r\n\r\n"
        plain = HEAD + b"Content-Length: %d\r\n\r\n" % len(group)
        with connect(address) as connection:
            connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
            read_until(connection, b'{"status":"received"}')
            for one in (plain[:50], plain[50:] + group[:1], group[1:]):
                connection.sendall(one)
            read_until(connection, b'{"status":"received"}')
            connection.sendall(
                b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
            assert b'"queue_size":2' in all_of(connection)
        assert reader.drop_waiting() == 2


def test_requests_behind_one_another_are_answered_in_order(name: str, parser: str) -> None:
    """Requests beyond the bound are not answered, and the closed connection tells the client."""
    ask = b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with served(name) as (_, address):
        with connect(address) as connection:
            asked = [b"", b"info", b"missing", b"status"]
            connection.sendall(b"".join(ask % route for route in asked[:-1]))
            connection.sendall(
                (ask % asked[-1]).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
            )
            answer = all_of(connection)
            found = [
                answer.find(one)
                for one in (b"AtroposLib", b"batch_size", b"Not Found", b"queue_size")
            ]
            assert found == sorted(found)
            assert -1 not in found
        with connect(address) as connection:
            connection.sendall(ask % b"" * 300)
            answer = b""
            while answer.count(b"HTTP/1.1 200") < 300 and (part := connection.recv(65536)):
                answer += part
            answered = answer.count(b"HTTP/1.1 200")
            if parser == "h11":  # reads one after another
                assert answered == 300
            else:
                assert 1 <= answered < 100
                assert answer.lower().count(b"connection: close") == 1
        assert can_ask(address)


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


@with_both_parsers
@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_a_request_that_asks_for_an_upgrade_is_read_as_any(name: str, pieces: int) -> None:
    """As from clients that prefer HTTP/2. The body is no request."""
    group = json.dumps(make_group(1, sequences=4)).encode()
    hidden = b"GET /info HTTP/1.1\r\nHost: localhost\r\n\r\n"
    ask = b"GET /status HTTP/1.1\r\nHost: localhost\r\n"
    with TrajectoryReader.create(name, sequences=4) as reader, served(name) as (_, address):
        post(address, "/register", json.dumps(REGISTRATION).encode())
        sent = b"".join(
            (
                *(HEAD, UPGRADE, b"Content-Length: %d\r\n\r\n" % len(group), group),
                *(HEAD, UPGRADE, b"Content-Length: %d\r\n\r\n" % len(hidden), hidden),
                *(ask, UPGRADE, b"\r\n"),
                *(ask, b"Connection: close\r\n\r\n"),
            )
        )
        with connect(address) as connection:
            step = len(sent) // pieces + 1
            for at in range(0, len(sent), step):
                connection.sendall(sent[at : at + step])
            answer = all_of(connection)
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.count(b'{"status":"received"}') == 1
        assert answer.count(b"HTTP/1.1 422") == 1
        assert answer.count(b'"queue_size":1') == 2
        assert b"batch_size" not in answer, "the body of a request was answered as a request"
        assert reader.drop_waiting() == 1


@with_both_parsers
def test_an_invalid_request_spares_earlier_answers(name: str) -> None:
    ask = b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with served(name) as (_, address):
        for wrong in (
            b"nonsense\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        ):
            with connect(address) as connection:
                connection.sendall(ask + wrong)
                answer = all_of(connection)
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"queue_size" in answer
        assert can_ask(address)


@with_both_parsers
def test_trailers_are_no_headers(name: str) -> None:
    group = json.dumps(make_group(1, sequences=4)).encode()
    with TrajectoryReader.create(name, sequences=4) as reader, served(name) as (_, address):
        post(address, "/register", json.dumps(REGISTRATION).encode())
        with connect(address) as connection:
            connection.sendall(
                HEAD
                + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
                + b"%x\r\n%b\r\n0\r\nContent-Encoding: gzip\r\n\r\n" % (len(group), group)
            )
            assert b'{"status":"received"}' in all_of(connection)
        assert reader.drop_waiting() == 1


def test_nothing_is_read_while_requests_wait() -> None:
    pytest.importorskip("httptools")
    from penstock.integrations.atropos.http.parser import _Flow

    class Transport:
        is_reading = True

        def pause_reading(self) -> None:
            self.is_reading = False

        def resume_reading(self) -> None:
            self.is_reading = True

    transport, waiting = Transport(), ["a request"]
    flow = _Flow(transport, waiting)
    flow.pause_reading()
    flow.resume_reading()
    assert not transport.is_reading
    waiting.clear()
    flow.resume_reading()
    assert transport.is_reading
