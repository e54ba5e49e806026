"""Access by origin: programs may do everything, web pages of other sites may only read the status.

A browser lets any page send requests to this server. Three rules keep pages from misusing that:

- The Host must be a name of this server. Otherwise a page's own name, made to lead here (DNS
  rebinding), would make the page one of this server's.
- A request from another site is refused where it changes state or shows trajectories. The method
  says nothing of that: `GET /batch` takes groups for good. Nor does the type of the body: a page
  may post text/plain without asking first.
- What browsers say of a request's origin (Origin, Sec-Fetch-Site, Referer) no page can forge, and
  programs don't say: they are not affected.

Pages of any site may use the status routes, as in Atropos's server. These tell how long the queue
is, and nothing of its contents.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Origins", "RefuseForeign"]

_WILDCARDS = ("", "0.0.0.0", "::")
_ONE_PART = re.compile(r"[a-z0-9_-]+")
#: Paths that pages of any site may request, and whose answers they may read.
_OPEN = frozenset({"/", "/status", "/status-env", "/info", "/wandb_info", "/openapi.json", "/docs"})


class Origins:
    """The names of this server, and the sites that are trusted like it."""

    def __init__(
        self, host: str | None, allowed_hosts: Iterable[str], allowed_origins: Iterable[str]
    ) -> None:
        own = socket.gethostname().lower()
        self._hosts = {own, *(_plain(one) for one in allowed_hosts)}
        self._origins = {one.lower().rstrip("/") for one in allowed_origins}
        # A server that listens on a network, or does not know where it listens, has more names than
        # it knows: its addresses, and names in a private network (without a dot: no page of the
        # internet has such a name).
        self._is_public = host is None or not _is_loopback(host)
        if host is not None and host not in _WILDCARDS:
            self._hosts.add(_plain(host))

        # The same few hosts come again and again, and parsing one takes long.
        self.knows_host = lru_cache(maxsize=64)(self._knows_host)

    def _knows_host(self, header: str) -> bool:
        """Whether a Host header is a name of this server."""
        name = _name_of("//" + header)
        if name is None:
            return False
        if "*" in self._hosts or name in self._hosts or _is_loopback(name):
            return True
        if any(one.startswith("*.") and name.endswith(one[1:]) for one in self._hosts):
            return True
        return self._is_public and (_is_address(name) or _ONE_PART.fullmatch(name) is not None)

    def trusts(self, headers: Headers) -> bool:
        """Whether a request comes from a program, or from a page of this server or a trusted
        site."""
        origin = headers.get("origin")
        if origin is not None:
            return self._trusts_site(origin, headers.get("host", ""))
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site in ("same-origin", "none")
        referer = headers.get("referer")
        return referer is None or self._trusts_site(referer, headers.get("host", ""))

    def _trusts_site(self, url: str, host: str) -> bool:
        try:
            parts = urlsplit(url.lower())
        except ValueError:
            return False
        site = f"{parts.scheme}://{parts.netloc}"
        if "*" in self._origins or site in self._origins:
            return True
        if parts.netloc and parts.netloc == host.lower():
            return True
        # A page that this machine serves: its author could reach the port anyway.
        name = _name_of(url)
        return name is not None and _is_loopback(name)


class RefuseForeign:
    """ASGI middleware: answers 403 to requests that ``Origins`` does not trust."""

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        why = self._why_not(scope) if scope["type"] == "http" else None
        if why is None:
            await self._app(scope, receive, send)
        else:
            await JSONResponse({"detail": why}, 403)(scope, receive, send)

    def _why_not(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        host = headers.get("host")
        if host is not None and not self._origins.knows_host(host):
            return (
                f"the Host {host!r} is no name of this server: if it is to be one, start it with "
                f"--allowed-host"
            )
        if scope["path"] in _OPEN and scope["method"] in ("GET", "HEAD"):
            return None
        if self._origins.trusts(headers):
            return None
        return (
            "a web page of another site asks: it may see how the server stands, and no more; if "
            "it is to be trusted, start the server with --allowed-origin"
        )


def _plain(host: str) -> str:
    return host.strip().lower().strip("[]").rstrip(".")


def _name_of(url: str) -> str | None:
    """The host of a URL, without its port."""
    try:
        name = urlsplit(url.lower()).hostname
    except ValueError:
        return None
    return name.rstrip(".") if name else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    if _is_address(name):
        return ipaddress.ip_address(name).is_loopback
    return name == "localhost" or name.endswith(".localhost")
