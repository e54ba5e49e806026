"""Access to the HTTP face: programs have all of it, pages of other sites only the status."""

from __future__ import annotations

import http.client
import json
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

from http_server import REGISTRATION, WITHIN, make_group, served

from penstock.integrations.atropos.http import build_app

SITE = {"Origin": "https://example.org"}
FOREIGN: dict[str, dict[str, str]] = {
    "a script": SITE,
    "a sandboxed frame": {"Origin": "null"},
    "another port of another name": {"Origin": "http://example.org:8000"},
    "an image": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    "an image of a neighbour": {"Sec-Fetch-Site": "same-site"},
    "an image in an old browser": {"Referer": "http://example.org/page"},
    "a name that begins like ours": {"Origin": "http://localhost.example.org"},
    "a name in place of a user": {"Origin": "http://localhost@example.org"},
}
OWN: dict[str, dict[str, str]] = {
    "a program": {},
    "its own page": {"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"},
    "typed by hand": {"Sec-Fetch-Site": "none"},
    "a page of this machine": {"Origin": "http://localhost:8888", "Sec-Fetch-Site": "same-site"},
    "another one": {"Origin": "http://127.0.0.1:3000", "Sec-Fetch-Site": "cross-site"},
    "and another": {"Origin": "http://[::1]:3000"},
}
# Routes that change state, or show trajectories.
GUARDED = [
    ("POST", "/register"),
    ("POST", "/register-env"),
    ("POST", "/disconnect-env"),
    ("POST", "/scored_data"),
    ("POST", "/scored_data_list"),
    ("GET", "/batch"),
    ("GET", "/reset_data"),
    ("GET", "/latest_example"),
]


@pytest.fixture
def client(name: str) -> Iterator[TestClient]:
    with TestClient(build_app(name)) as made:
        made.post("/register", json={**REGISTRATION, "batch_size": 2})
        made.post("/scored_data", json=make_group(1))
        yield made
        made.get("/reset_data")


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize(("method", "route"), GUARDED)
def test_pages_of_other_sites_change_nothing(
    client: TestClient, method: str, route: str, headers: dict[str, str]
) -> None:
    body = {"POST": json.dumps(make_group(2)), "GET": None}[method]
    sent = {**headers, "Content-Type": "text/plain"}
    answer = client.request(method, route, content=body, headers=sent)
    assert answer.status_code == 403
    assert "another site" in answer.json()["detail"]
    assert client.get("/status").json() == {"current_step": 3, "queue_size": 1}


@pytest.mark.parametrize("route", ["/batch", "/reset_data"])
def test_a_head_takes_nothing(client: TestClient, route: str) -> None:
    assert client.head(route).status_code == 405
    assert client.get("/status").json()["queue_size"] == 1
    assert client.head("/status").status_code == 200


@pytest.mark.parametrize("headers", OWN.values(), ids=OWN)
def test_programs_and_pages_of_this_machine_do_as_before(
    client: TestClient, headers: dict[str, str]
) -> None:
    assert client.post("/scored_data", json=make_group(2), headers=headers).status_code == 200
    assert client.get("/latest_example", headers=headers).json()["tokens"][0][0] == 2
    assert client.get("/batch", headers=headers).json()["batch"][0]["tokens"][0][0] == 1
    dropped = client.get("/reset_data", headers=headers)
    assert dropped.headers["X-Penstock-Dropped-Groups"] == "1"


def test_pages_of_any_site_may_see_how_it_stands(client: TestClient) -> None:
    """As Atropos's own server allows; and they may read why everything else is refused."""
    for route in ("/", "/status", "/info", "/wandb_info"):
        answer = client.get(route, headers=SITE)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] in ("*", SITE["Origin"])
    refused = client.post("/register", json={}, headers=SITE)
    assert refused.status_code == 403
    assert refused.headers["access-control-allow-origin"] in ("*", SITE["Origin"])
    assert "access-control-allow-origin" not in client.get("/").headers


def test_a_site_that_is_trusted(name: str) -> None:
    with TestClient(build_app(name, allowed_origins=[SITE["Origin"]])) as client:
        asked = {
            **SITE,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type, x-other",
        }
        allowed = client.options("/scored_data", headers=asked)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == SITE["Origin"]
        assert "POST" in allowed.headers["access-control-allow-methods"]
        assert allowed.headers["access-control-allow-headers"] == "content-type, x-other"
        refused = client.post("/register", json={}, headers=SITE)
        assert refused.status_code == 422  # for its body
        assert refused.headers["access-control-allow-credentials"] == "true"
        other = client.post("/register", json={}, headers={"Origin": "https://example.com"})
        assert other.status_code == 403
    with TestClient(build_app(name, allowed_origins=["*"])) as client:
        assert client.post("/register", json={}, headers=SITE).status_code == 422


HOSTS = ["localhost", "localhost:8000", "LOCALHOST.", "127.0.0.1:1", "[::1]:8000", "a.localhost"]
NETWORK = ["10.0.0.5:8000", "[fe80::1]:8000", "trainer", "trainer:8000"]
NAMES = ["example.org", "localhost.example.org", "127.0.0.1.example.org:8000", "a b", "[", ""]


@pytest.mark.parametrize(
    ("options", "known", "unknown"),
    [
        ({"host": "127.0.0.1"}, HOSTS, [*NETWORK, *NAMES]),
        ({"host": "::1"}, HOSTS, [*NETWORK, *NAMES]),
        ({"host": "0.0.0.0"}, [*HOSTS, *NETWORK], NAMES),
        ({}, [*HOSTS, *NETWORK], NAMES),
        ({"host": "box.example.org"}, ["box.example.org:1"], ["other.example.org"]),
        ({"allowed_hosts": ["example.org"]}, ["EXAMPLE.org:1"], ["a.example.org"]),
        ({"allowed_hosts": ["*.example.org"]}, ["a.example.org"], ["example.org", "aexample.org"]),
        ({"host": "127.0.0.1", "allowed_hosts": ["*"]}, ["example.org"], []),
    ],
)
def test_names_of_the_server(
    name: str, options: dict[str, Any], known: list[str], unknown: list[str]
) -> None:
    """Otherwise a page under a hostile name that resolves here would count as this server's."""
    with TestClient(build_app(name, **options)) as client:
        for host in known:
            assert client.get("/status", headers={"Host": host}).status_code == 200, host
        for host in unknown:
            refused = client.get("/status", headers={"Host": host})
            assert refused.status_code == 403, host
            assert "--allowed-host" in refused.json()["detail"]


@pytest.mark.parametrize("options", [(), ("--allowed-host", "example.org")])
def test_the_command_refuses_other_names(name: str, options: tuple[str, ...]) -> None:
    with served(name, *options) as (_, address):
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=WITHIN)
        connection.request("GET", "/reset_data", headers={"Host": "example.org"})
        assert connection.getresponse().status == (200 if options else 403)
        connection.close()
