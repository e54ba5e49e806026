"""Dispatches posts of groups by a look-up: the router tries one pattern after another, and wraps
each request in several layers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["PostsFirst"]


class PostsFirst:
    """ASGI middleware, innermost. Answers as the router behind it, with the same endpoints and
    error handlers; passes all other methods on to it."""

    def __init__(
        self,
        app: ASGIApp,
        endpoints: Mapping[str, Callable[[Request], Awaitable[Response]]],
        handlers: Mapping[type[Exception], Callable[[Request, Exception], Awaitable[Response]]],
    ) -> None:
        self._app = app
        self._endpoints = endpoints
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_post = scope["type"] == "http" and scope["method"] == "POST"
        endpoint = self._endpoints.get(scope["path"]) if is_post else None
        if endpoint is None or scope.get("root_path"):
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            answer = await endpoint(request)
        except Exception as error:
            answer = await self._answer_to(request, error)
        await answer(scope, receive, send)

    async def _answer_to(self, request: Request, error: Exception) -> Any:
        handler = next(
            (self._handlers[one] for one in type(error).__mro__ if one in self._handlers), None
        )
        if handler is None:
            raise error
        return await handler(request, error)
