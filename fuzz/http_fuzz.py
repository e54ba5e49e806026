"""Bodies for the HTTP face, made from valid ones by random changes.

    python fuzz/http_fuzz.py [--seconds 20] [--seed N]

A child serves the application in its own process, with bounded memory, and gets one body after
another: no answer may be 500, none may take more than a second of processor time, and no body more
memory than its cost allows. Bodies that are not JSON are never accepted, damaged gzip data is
answered with 400 and nothing else is. Between them come valid groups in loose notations: each is
accepted, and comes back once, with the numbers that it means. A failing body is kept in
build/fuzz/http-*, with its route.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import random
import resource
import sys
import time
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from loose_groups import MARK, loose_group

from penstock.integrations.atropos.http import build_app
from penstock.integrations.atropos.http.limits import Limits
from penstock.trajectories import TrajectoryReader

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # newer versions ask for another httpx
    from starlette.testclient import TestClient

_MOST = 1 << 20  # bytes of a body, and its cost
_MEMORY = 6 * 8 * _MOST + (64 << 20)  # for that and the interpreter, beyond the start
_SLOW = 1.0  # seconds of processor time
_KEPT = Path("build/fuzz")
_GROUP: dict[str, Any] = json.loads((Path(__file__).parent / "corpus/http/group.json").read_text())
_SMALL = {name: _GROUP[name] for name in ("tokens", "masks", "scores")}
_REGISTRATION = {
    "wandb_group": "g",
    "wandb_project": "p",
    "batch_size": 4,
    "max_token_len": 0,
    "checkpoint_dir": "/ckpt",
    "save_checkpoint_interval": 7,
    "starting_step": 3,
    "num_steps": 100,
}
_ENVIRONMENT = {"max_token_length": 9, "desired_name": "math", "weight": 1.0, "group_size": 2}
_SEEDS: list[tuple[str, Any]] = [
    ("/scored_data", _GROUP),
    ("/scored_data", _SMALL),
    ("/scored_data_list", [_SMALL, _GROUP]),
    ("/register", _REGISTRATION),
    ("/register-env", _ENVIRONMENT),
    ("/disconnect-env", {"env_id": 1}),
]
_ODD: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1.0,
        1e308,
        2**31,
        2**53,
        2**63,
        2**64,
        10**400,
        "",
        "1",
        "x" * 999,
    ),
    *([], {}, [[]], [[[]]], [None], {"role": 1}, float("nan"), float("inf"), "\ud800", "\u0000"),
]
_BITS = [b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"NaN", b"1e999", b"\x00", b"\xff", b" "]


def _odd_value(dice: random.Random) -> Any:
    if dice.random() < 0.7:
        return dice.choice(_ODD)
    one = dice.choice([1, 0.5, "ab", [], [1], {}, {"a": 1}, None, [[1]], 2**40])
    return [one] * int(10 ** dice.uniform(0, 4.5))


def _with_odd_values(value: Any, dice: random.Random) -> Any:
    """A copy with some of its values replaced."""
    if dice.random() < 0.08:
        return _odd_value(dice)
    if isinstance(value, list):
        return [_with_odd_values(one, dice) for one in value]
    if isinstance(value, dict):
        kept = {name: _with_odd_values(one, dice) for name, one in value.items()}
        if kept and dice.random() < 0.1:
            del kept[dice.choice(list(kept))]
        return kept
    return value


def _with_odd_bytes(text: bytes, dice: random.Random) -> bytes:
    """Pieces removed, inserted, repeated."""
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(text) + 1)
        end = min(len(text), at + int(10 ** dice.uniform(0, 2)))
        kind = dice.randrange(4)
        if kind == 0:
            text = text[:at] + text[end:]
        elif kind == 1:
            text = text[:at] + dice.choice(_BITS) * int(10 ** dice.uniform(0, 4)) + text[at:]
        elif kind == 2:
            text = text[:at] + text[at:end] * dice.randint(2, 200) + text[end:]
        else:
            text = text[:at]
    return text


def _body(dice: random.Random) -> tuple[str, bytes, dict[str, str]]:
    route, value = dice.choice(_SEEDS)
    if dice.random() < 0.1:
        route, _ = dice.choice(_SEEDS)
    if dice.random() < 0.7:
        value = _with_odd_values(value, dice)
    blanks = dice.choice([(",", ":"), (", ", ": "), (" ,\n", " :\t")])
    text = json.dumps(value, separators=blanks).encode()
    if dice.random() < 0.4:
        text = _with_odd_bytes(text, dice)
    if dice.random() < 0.05:
        text = _nested(dice)
    text = text[:_MOST]
    if dice.random() > 0.3:
        return route, text, {}
    packed = gzip.compress(text, 1)
    if dice.random() < 0.3:
        packed = _with_odd_bytes(packed, dice)
    if dice.random() < 0.1:
        packed = gzip.compress(b"") * int(10 ** dice.uniform(0, 4)) + packed
    return route, packed[:_MOST], {"Content-Encoding": "gzip"}


def _nested(dice: random.Random) -> bytes:
    deep = int(10 ** dice.uniform(1, 5))
    opened, closed = dice.choice([(b"[", b"]"), (b'{"a":', b"}"), (b'{"tokens":[', b"]}")])
    return opened * deep + b"1" + closed * deep


def _bound_memory() -> None:
    """More memory than that is a MemoryError, and so a 500."""
    now = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = now * resource.getpagesize() + _MEMORY + (1 << 30)  # thread stacks are large
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


_LIMITED = frozenset({413, 503})  # for any body


def _is_gzip(body: bytes) -> bool:
    try:
        gzip.decompress(body)
    except (OSError, EOFError, zlib.error):
        return False
    return True


def _is_json(body: bytes) -> bool:
    """False only where that is certain."""
    try:
        json.loads(body.decode())
    except json.JSONDecodeError:
        return False
    except (ValueError, RecursionError):
        return True
    return True


def _has_unchecked_flags(body: bytes) -> bool:
    """Whether the gzip header has a checksum or reserved flags: Python's gzip looks at neither, the
    server's library at both."""
    return len(body) > 3 and bool(body[3] & 0xE2)


def _why_wrong(body: bytes, headers: dict[str, str], status: int) -> str | None:
    """The fault of an answer, or None."""
    if status >= 500 and status != 503:
        return f"was answered with {status}"
    if status in _LIMITED:
        return None
    if headers and not _is_gzip(body):
        many_participants = status == 422
        return None if status == 400 or many_participants else f"is no gzip, and got {status}"
    padded = bool(headers) and body.endswith(b"\0")  # accepted by gzip's own program
    if status == 400 and not padded and not (headers and _has_unchecked_flags(body)):
        return "is sound gzip, or none, and got 400"
    plain = gzip.decompress(body) if headers else body
    if status == 200 and not _is_json(plain):
        return "is no JSON, and got 200"
    return None


class _Loose:
    """The valid groups, and those that have not come back."""

    def __init__(self, client: Any, dice: random.Random) -> None:
        self._client = client
        self._dice = dice
        self._wanted: dict[int, dict[str, Any]] = {}
        self.count = 0

    def put(self) -> str | None:
        """Post one; return the fault of the answer, or None."""
        group = loose_group(self._dice, self.count)
        body = json.dumps(group.sent).encode()
        headers = {}
        if self._dice.random() < 0.5:
            body, headers = gzip.compress(body, 1), {"Content-Encoding": "gzip"}
        status = self._client.post("/scored_data", content=body, headers=headers).status_code
        if status == 503:  # the queue is full
            return None
        if status != 200:
            return f"a group that is right got {status}: {group.sent}"
        self._wanted[self.count] = group.wanted
        self.count += 1
        return None

    def check(self, groups: list[dict[str, Any]]) -> str | None:
        """Check groups that came back; return the fault, or None."""
        for group in groups:
            number = (group["generation_params"] or {}).get(MARK)
            if number is None:  # another one
                continue
            wanted = self._wanted.pop(number, None)
            if group != wanted:
                return f"{wanted} came back as {group}"
        return None

    def check_all_came(self) -> str | None:
        """Check that all came, after single sequences filled up the last batch."""
        single = {"tokens": [[1]], "masks": [[1]], "scores": [0]}
        for _ in range(_REGISTRATION["batch_size"] * (1 + len(self._wanted))):
            for groups in _batches(self._client):
                if why := self.check(groups):
                    return why
            if not self._wanted:
                return None
            self._client.post("/scored_data", json=single)
        return f"{len(self._wanted)} groups never came"


def _batches(client: Any) -> Iterator[list[dict[str, Any]]]:
    """All batches that can be had."""
    while groups := client.get("/batch").json()["batch"]:
        yield groups


def _run(client: Any, seconds: float, seed: int, tell: Callable[[str], None]) -> int:
    dice = random.Random(seed)
    loose = _Loose(client, dice)
    begun, tried, statuses = time.monotonic(), 0, dict[int, int]()
    least = _peak()
    while time.monotonic() - begun < seconds:
        route, body, headers = _body(dice)
        before = time.process_time()
        status = client.post(route, content=body, headers=headers).status_code
        took = time.process_time() - before
        tried += 1
        statuses[status] = statuses.get(status, 0) + 1
        why = _why_wrong(body, headers, status)
        if took > _SLOW:
            why = f"took {took:.2f} s of a processor"
        elif _peak() > least + _MEMORY:
            why = f"took {(_peak() - least) >> 20} MiB, and {_MEMORY >> 20} are allowed"
        if why is not None:
            _KEPT.mkdir(parents=True, exist_ok=True)
            kept = _KEPT / f"http-{seed}-{tried}"
            kept.write_bytes(body)
            tell(f"{kept} for {route} {headers}: {why}")
            return 1
        why = loose.put() if tried % 2 == 0 else None
        if why is None and tried % 4 == 0:
            why = next(filter(None, map(loose.check, _batches(client))), None)
        if why is not None:
            tell(f"after body {tried} of seed {seed}: {why}")
            return 1
    if why := loose.check_all_came():
        tell(f"at the end of seed {seed}: {why}")
        return 1
    tell(f"{tried} bodies, answers {dict(sorted(statuses.items()))}; {loose.count} loose groups")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    args = parser.parse_args()
    warnings.simplefilter("ignore", RuntimeWarning)  # about dead letters
    logging.getLogger("penstock.integrations.atropos.http").setLevel(
        logging.ERROR
    )  # nor about the length of the queue
    print(f"http: seed {args.seed}", flush=True)
    limits = Limits(body_bytes=8 * _MOST, total_bytes=16 * _MOST)
    queue = f"fuzz-http-{uuid.uuid4().hex[:8]}"
    app = build_app(queue, put_timeout=0, limits=limits)
    with TestClient(app, raise_server_exceptions=False) as client:
        client.post("/register", json=_REGISTRATION)
        client.get("/batch")
        _bound_memory()
        try:
            return _run(client, args.seconds, args.seed, lambda line: print(f"http: {line}"))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
            with TrajectoryReader.attach(queue) as last:
                last.discard()


if __name__ == "__main__":
    sys.exit(main())
