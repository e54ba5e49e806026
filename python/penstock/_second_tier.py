"""SecondTier: options of the Redis or Valkey behind a store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

from .errors import InvalidType

__all__ = ["SecondTier", "SecondTierLike"]


@dataclass(frozen=True)
class SecondTier:
    """Redis or Valkey behind a store: ``Store.attach("kv", second_tier=SecondTier(url, …))``.

    ``urls`` is ``redis://[user:password@]host[:port][/db]`` or
    ``unix:[//user:password@]/path[?db=N]``; for a cluster
    ``redis+cluster://[user:password@]host[:port][,host[:port]…]``, which names some of its servers;
    for a master that Sentinels name
    ``redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/db]``, which names
    Sentinels, with user and password of the master. ``valkey`` may replace ``redis``. A cluster,
    and Sentinels, may have several URLs.

    ``policy`` is ``"write_back"``: ``writers`` threads write objects after put has returned;
    ``"write_through"``: put and commit return once the second tier has the object too, or raise;
    ``"read_only"``: nothing is written or removed there. Objects that wait to be written stay
    pinned in shared memory: at most ``max_inflight`` bytes of them, and never more than half of its
    capacity. When that is full, ``when_full="drop"`` does not write the object, and counts it as
    dropped; ``"wait"`` makes put wait for room first, at most ``full_timeout`` and not during an
    outage.

    Data of more than 16 MiB, or of more than ``part`` bytes and 64 KiB, is written in parts of
    ``part`` bytes (4 KiB to 512 MiB). One request with its answer takes at most
    ``request_timeout``, and ``connect_timeout`` more on a new connection; a get takes one for
    the head of the object, and 2 + size / ``part`` for its parts. A failed server is retried
    after ``retry_first``, then after pauses that double up to ``retry_most``. ``ttl`` is the
    lifetime of an object in the second tier. ``delete_corrupt`` deletes damaged values there.
    All times are seconds.

    ``Store.create()`` and ``Store.attach()`` raise InvalidArgument for invalid options (and if the
    package was built without hiredis), and PermissionDenied for credentials that are refused.
    """

    urls: str | Sequence[str] = field(repr=False)  #: may hold a password
    _: KW_ONLY
    prefix: str = "penstock:"  #: before every key there; the same for all that share objects
    policy: Literal["write_back", "write_through", "read_only"] = "write_back"
    connect_timeout: float = 1.0
    request_timeout: float = 2.0
    retry_first: float = 0.05
    retry_most: float = 5.0
    max_inflight: int | str = "256MiB"
    when_full: Literal["drop", "wait"] = "drop"
    full_timeout: float = 1.0
    writers: int = 1
    part: int | str = "64MiB"
    ttl: float | None = None
    delete_corrupt: bool = False

    def __post_init__(self) -> None:
        """Makes ``urls`` a list."""
        object.__setattr__(self, "urls", _list_of(self.urls))

    @classmethod
    def of(cls, given: SecondTierLike) -> SecondTier | None:
        """The SecondTier of a ``second_tier=`` argument, which may be URLs."""
        return given if given is None or isinstance(given, SecondTier) else cls(given)


SecondTierLike = str | Sequence[str] | SecondTier | None


def _list_of(urls: str | Iterable[str]) -> list[str]:
    if isinstance(urls, str):
        return [urls]
    try:
        given = list(urls)
    except TypeError:
        given = []
    if not given or not all(isinstance(url, str) for url in given):
        kind = type(urls).__name__  # its content may be a password
        raise InvalidType(f"a second tier takes a URL, or a list of them, not {kind}")
    return given
