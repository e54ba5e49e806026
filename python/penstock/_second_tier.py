"""SecondTier: what stands behind a store, and how it is used."""

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
    ``unix:[//user:password@]/path[?db=N]``; of a cluster
    ``redis+cluster://[user:password@]host[:port][,host[:port]…]``, which names some of its servers;
    where Sentinels say who the master is
    ``redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/db]``, which names
    Sentinels, while user and password are the master's. ``valkey`` stands for ``redis`` everywhere.
    Of a cluster and of Sentinels there may be several URLs.

    ``policy`` is ``"write_back"``: what is put is written by threads, ``writers`` of them;
    ``"write_through"``: put and commit return when the second tier has it too, or raise;
    ``"read_only"``: nothing is written or removed there. What waits to be written stays pinned in
    shared memory, at most ``max_inflight`` bytes and never more than half of it; beyond that
    ``when_full`` says whether the second tier does without (``"drop"``, which is counted) or put
    waits for room (``"wait"``, for at most ``full_timeout``, and not while a server is away).

    A request and its answer, a ``part`` of an object at most (4 KiB to 512 MiB), take at most
    ``request_timeout``, beside ``connect_timeout`` where there is no connection, and all of an
    object that for each begun ``part`` of it, and one more. A server that failed is tried again
    after ``retry_first``, then ever more seldom up to ``retry_most``. ``ttl`` is how long the
    second tier keeps an object. ``delete_corrupt`` deletes there what is found damaged. All times
    are seconds.

    ``Store.create()`` and ``Store.attach()`` raise InvalidArgument for what can't be (also where
    the package was built without hiredis) and PermissionDenied for a password that is not accepted.
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
        """One URL is a list of one."""
        object.__setattr__(self, "urls", _list_of(self.urls))

    @classmethod
    def of(cls, given: SecondTierLike) -> SecondTier | None:
        """What ``second_tier=`` was given."""
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
        kind = type(urls).__name__  # not what is in it: a password, perhaps
        raise InvalidType(f"a second tier takes a URL, or a list of them, not {kind}")
    return given
