"""The routes: bodies in, answers out. Steps that wait or take long run in threads.

Small groups are put on the event loop, and so in the order in which they arrived.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import quote

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from .... import errors
from ....handle import Owner
from ....queue import EndsWith
from ....trajectories import TrajectoryGroup
from .answers import json_answer
from .arrival import Damaged, UnknownEncoding, Unpacking, check_encoding, read
from .bodies import Json, encode, field, group_from_text, groups_from_text, object_of
from .describe import openapi, page
from .limits import Admission, Busy, Limits, Ticket, TooBig, TooLong, TooSlow
from .numbers import Charge
from .origins import Origins, RefuseForeign
from .posts import PostsFirst
from .service import NoRoom, NotAccepted, Service, UnknownEnvironment
from .words import Invalid

__all__ = ["build_app"]

_T = TypeVar("_T")

_MOST_OF_AN_OBJECT = 1 << 20  # bytes of a body without groups
_WAITING_PUTS = 64
# Bytes of an unpacked body up to which a thread would take longer; and for a single post, which a
# thread would slow down without helping other requests: those that come meanwhile wait some
# milliseconds. Both hold for numbers in few lists; bodies with other values go to a thread at these
# costs.
_QUICK = 64 << 10
_QUICK_ALONE = 2 << 20
_QUICK_LISTS = 4096
_QUICK_VALUES = 1 << 20
_LIMITS = Limits()
# As Atropos's server answers pages of any site, so that their scripts may read the answers: the
# server's status on status routes, and the refusal on all others.
_ANY_ORIGIN: dict[str, Any] = {
    "allow_origins": ["*"],
    "allow_credentials": True,
    "allow_methods": ["*"],
    "allow_headers": ["*"],
}


def build_app(
    queue: str,
    *,
    sequences: int | None = None,
    ends_with: EndsWith = "creator",
    owner: Owner | None = None,
    put_timeout: float = 10.0,
    body_limit: int | None = None,
    limits: Limits = _LIMITS,
    host: str | None = None,
    allowed_hosts: Iterable[str] = (),
    allowed_origins: Iterable[str] = (),
) -> Starlette:
    """The application over the queue of that name; at its end it closes what it opened.

    ``sequences``: size of a batch, instead of the trainer's batch_size. ``ends_with``, as of a
    ``Queue``, is for a queue that does not exist yet, whose creator is then the application.
    Another user's queue is used only if ``owner`` names that user, by number or name. A group waits
    ``put_timeout`` seconds for room. ``limits`` bound what clients can make the server hold;
    ``body_limit`` is their ``body_bytes``. The limits of connections are for the code that accepts
    them.

    ``host`` is the address that it listens on. Requests for a Host that is not a name of this
    server are refused, as DNS rebinding would send them. Its names are the loopback names,
    ``host``, the machine's own name and ``allowed_hosts`` ("*.example.org" and "*" too); unless it
    listens on loopback alone, also addresses and names of one part. Web pages of sites other than
    this machine's and ``allowed_origins`` ("https://example.org", or "*") may read the server's
    status and no more.

    Raises InvalidName, or Incompatible if the name is that of something else.
    """
    if body_limit is not None:
        limits = replace(limits, body_bytes=body_limit)
    routes = _Routes(Service(queue, sequences, ends_with, owner), put_timeout, limits)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            routes.service.close()

    return Starlette(
        routes=routes.table(),
        lifespan=lifespan,
        middleware=[
            Middleware(CORSMiddleware, **_ANY_ORIGIN),
            Middleware(RefuseForeign, origins=Origins(host, allowed_hosts, allowed_origins)),
            Middleware(PostsFirst, endpoints=routes.posts(), handlers=_HANDLERS),
        ],
        exception_handlers=_HANDLERS,
    )


class _Routes:
    def __init__(self, service: Service, put_timeout: float, limits: Limits) -> None:
        self.service = service
        self._put_timeout = put_timeout
        self._limits = limits
        self._admission = Admission(limits)
        # Threads of their own: puts that wait for room must not delay the batch that makes room.
        self._puts = anyio.CapacityLimiter(_WAITING_PUTS)

    def posts(self) -> dict[str, _Endpoint]:
        """The routes of groups, which get most requests."""
        return {"/scored_data": self._scored_data, "/scored_data_list": self._scored_data_list}

    def table(self) -> list[Route]:
        service = self.service
        return [
            _get("/", _answer(lambda: {"message": "AtroposLib API"})),
            _post("/register", self._with_object(service.register)),
            _post("/register-env", self._with_object(service.register_environment)),
            _post("/disconnect-env", self._with_object(service.disconnect_environment)),
            *(_post(path, endpoint) for path, endpoint in self.posts().items()),
            _take("/batch", _text_answer(service.batch)),
            _get("/status", _answer(service.status)),
            _get("/status-env", self._status_env),
            _get("/info", self._info),
            _get("/wandb_info", _answer(service.wandb_info)),
            _get("/latest_example", _text_answer(service.latest_example)),
            _take("/reset_data", self._reset_data),
            _get("/openapi.json", _answer(openapi)),
            _get("/docs", _page),
        ]

    async def _with_body(
        self, request: Request, ticket: Ticket, act: Callable[[bytes], _T], is_quick: bool = False
    ) -> _T:
        """The result of ``act`` for the body: a small and quick one on the event loop, otherwise in
        one thread only, because each thread switch costs time."""
        is_packed = check_encoding(request) == "gzip"
        body = await read(request, ticket, self._limits)
        most = 0 if not is_quick else _QUICK_ALONE if ticket.is_alone else _QUICK
        if is_packed:
            unpacking = Unpacking(body, ticket)
            if not unpacking.is_short(most):
                return await run_in_threadpool(lambda: act(unpacking.finish()))
            body = unpacking.finish()
        if len(body) <= most and _has_few_lists(body):
            with contextlib.suppress(TooLong), ticket.at_most(_QUICK_VALUES):
                return act(body)
        return await run_in_threadpool(act, body)

    async def _object(self, request: Request) -> Json:
        with self._admission.enter() as ticket:
            return await self._with_body(request, ticket, _small_object, is_quick=True)

    def _with_object(self, act: Callable[[Json], Json]) -> _Endpoint:
        async def endpoint(request: Request) -> Response:
            with self._admission.enter() as ticket:
                return await self._with_body(
                    request, ticket, lambda body: _json(act(_small_object(body)))
                )

        return endpoint

    async def _scored_data(self, request: Request) -> Response:
        waiting = await self._put(
            request, lambda body, charge: [group_from_text(body, charge)], is_quick=True
        )
        if waiting[0] is not None:
            return _json({"status": "buffered", "buffer_size": waiting[0]})
        return _json({"status": "received"})

    async def _scored_data_list(self, request: Request) -> Response:
        done = await self._put(request, groups_from_text, is_quick=False)
        waiting = [one for one in done if one is not None]
        answer: Json = {"status": "received", "groups_processed": len(done)}
        if waiting:
            answer |= {"buffered": len(waiting), "last_buffer_size": waiting[-1]}
        return _json(answer)

    async def _put(
        self,
        request: Request,
        parse: Callable[[bytes, Charge], list[TrajectoryGroup]],
        is_quick: bool,
    ) -> list[int | None]:
        """Puts the groups of the body into the queue: at once, or in a thread that waits for room.

        They stay admitted until they lie in the queue, because they take memory until then.
        """
        done: list[int | None] = []

        def put_at_once(body: bytes) -> list[TrajectoryGroup]:
            groups = parse(body, ticket.charge)
            with contextlib.suppress(NoRoom):
                self.service.put(groups, 0.0, done)
            return groups

        with self._admission.enter() as ticket:
            groups = await self._with_body(request, ticket, put_at_once, is_quick)
            if len(done) < len(groups):
                end = time.monotonic() + self._put_timeout  # including the wait for a thread
                await anyio.to_thread.run_sync(
                    lambda: self.service.put(groups, end, done), limiter=self._puts
                )
        return done

    async def _status_env(self, request: Request) -> Response:
        if "env_id" in request.query_params:
            env_id = field(dict(request.query_params), "env_id", int)
        else:
            env_id = field(await self._object(request), "env_id", int)
        return _json(await run_in_threadpool(self.service.status_of, env_id))

    async def _info(self, _request: Request) -> Response:
        """The queue is named in a header, because the body is that of Atropos's own server."""
        answer = _json(await run_in_threadpool(self.service.info))
        handle = await run_in_threadpool(self.service.handle)
        if handle is not None:
            answer.headers["X-Penstock-Queue"] = f"{handle.instance} {quote(str(handle.name))}"
        return answer

    async def _reset_data(self, _request: Request) -> Response:
        dropped = await run_in_threadpool(self.service.reset)
        return PlainTextResponse(
            "Reset successful", headers={"X-Penstock-Dropped-Groups": str(dropped)}
        )


_Endpoint = Callable[[Request], Awaitable[Response]]


def _has_few_lists(body: bytes) -> bool:
    """By ``find()``, which passes over 1 MB in 0.04 ms where ``count()`` takes 0.4."""
    at = -1
    for _ in range(_QUICK_LISTS):
        at = body.find(b"[", at + 1)
        if at < 0:
            return True
    return False


def _small_object(body: bytes) -> Json:
    if len(body) > _MOST_OF_AN_OBJECT:
        raise TooBig(f"the body has more than {_MOST_OF_AN_OBJECT} bytes, and is no group")
    return object_of(body)


def _get(path: str, endpoint: _Endpoint) -> Route:
    return Route(path, endpoint, methods=["GET"])


def _take(path: str, endpoint: _Endpoint) -> Route:
    """A GET that changes state. No HEAD, which would discard the answer."""
    route = _get(path, endpoint)
    route.methods = {"GET"}
    return route


def _post(path: str, endpoint: _Endpoint) -> Route:
    return Route(path, endpoint, methods=["POST"])


def _answer(value: Callable[[], Json]) -> _Endpoint:
    async def endpoint(_request: Request) -> Response:
        return await run_in_threadpool(lambda: _json(value()))

    return endpoint


def _text_answer(text: Callable[[], bytes]) -> _Endpoint:
    """An answer of JSON text, which may be long: packed in the thread that makes it."""

    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(lambda: json_answer(text(), request))

    return endpoint


async def _page(_request: Request) -> Response:
    return HTMLResponse(page())


def _json(value: Json, status: int = 200) -> Response:
    return json_answer(encode(value), status=status)


# --- failures -----------------------------------------------------------------------------------


async def _on_http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = _json({"detail": error.detail}, error.status_code)
    answer.headers.update(error.headers or {})
    return answer


async def _on_not_accepted(_request: Request, error: Exception) -> Response:
    assert isinstance(error, NotAccepted)
    return _later({"error": str(error), "groups_processed": error.accepted})


async def _on_busy(_request: Request, error: Exception) -> Response:
    return _later({"error": str(error)})


def _later(value: Json) -> Response:
    answer = _json(value, 503)
    answer.headers["Retry-After"] = "1"
    return answer


async def _on_too_slow(_request: Request, error: Exception) -> Response:
    answer = _json({"detail": str(error)}, 408)
    answer.headers["Connection"] = "close"  # the rest of the body is not waited for
    return answer


async def _on_gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)  # the client is gone


def _detail(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handler(_request: Request, error: Exception) -> Response:
        return _json({"detail": str(error)}, status)

    return handler


async def _on_error(_request: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, 503)


_HANDLERS: dict[Any, Any] = {
    HTTPException: _on_http,
    NotAccepted: _on_not_accepted,
    Invalid: _detail(422),
    UnknownEnvironment: _detail(404),
    TooBig: _detail(413),
    TooSlow: _on_too_slow,
    Busy: _on_busy,
    ClientDisconnect: _on_gone,
    UnknownEncoding: _detail(415),
    Damaged: _detail(400),
    errors.InvalidArgument: _detail(422),
    errors.InvalidName: _detail(422),
    errors.TooLarge: _detail(422),
    errors.UnsupportedType: _detail(422),
    errors.Error: _on_error,
}
