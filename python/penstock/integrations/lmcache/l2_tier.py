"""The store behind LMCache's L2 adapters: attached to if it exists, created otherwise, and with a
second tier behind it if one is named.

One store serves all the LMCache servers of a machine. It stays, with its chunks, after all of them
have ended or were killed.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from ... import _core
from ...errors import AlreadyExists, InvalidArgument, NotFound
from ...store import Eviction, SecondTier, Store

__all__ = ["TierOptions", "open_tier"]

_log = logging.getLogger(__name__)
_ROUNDING = 64 << 10  # unit of a store's capacity


@dataclass(frozen=True)
class TierOptions:
    """The fields of an adapter's JSON; all but ``name`` have defaults.

    ``capacity``, ``objects``, ``participants``, ``eviction``, ``granule``, ``lock_memory`` and
    ``huge_pages`` are those of ``Store.create()`` and apply when a server creates the store;
    servers that attach use it as it is. ``populate`` also maps it into each server that attaches.
    ``threads`` copy chunks. ``second_tier`` is a URL of Redis or Valkey, a list of them, or a dict:
    ``url`` and the arguments of ``SecondTier``.
    """

    name: str
    capacity: int | str = "1GiB"
    objects: int | None = None
    participants: int = 64
    eviction: Eviction = "sieve"
    granule: int | str | None = None
    populate: bool = False
    lock_memory: bool = False
    huge_pages: bool = False
    threads: int = 2
    second_tier: str | list[str] | dict[str, Any] | None = None
    owner: int | str | None = None

    def __post_init__(self) -> None:
        """Raises InvalidArgument, which names the field, for impossible values."""
        if not isinstance(self.name, str) or not self.name:
            raise InvalidArgument("name must be a non-empty string: that of the store")
        if isinstance(self.threads, bool) or self.threads not in range(1, 257):
            raise InvalidArgument(f"threads is {self.threads!r}: give 1 to 256")
        for flag in ("populate", "lock_memory", "huge_pages"):
            value = getattr(self, flag)
            if not isinstance(value, bool):
                raise InvalidArgument(f"{flag} must be true or false, not {value!r}")
        if self.eviction not in get_args(Eviction):
            kinds = ", ".join(get_args(Eviction))
            raise InvalidArgument(f"eviction is {self.eviction!r}: give one of {kinds}")
        try:
            capacity_of(self.capacity)
        except InvalidArgument as error:
            raise InvalidArgument(f"capacity: {error}") from error

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> TierOptions:
        """From JSON; an unknown field raises InvalidArgument, which is a ValueError."""
        known = {field.name for field in dataclasses.fields(cls)}
        # LMCache's command line may leave "type" among an adapter's own fields.
        _refuse_unknown("adapter_params", set(given) - {"type"}, known)
        if "name" not in given:
            raise InvalidArgument(
                "name is missing: that of the store, the same in all servers that share it"
            )
        return cls(**{field: given[field] for field in known & set(given)})


def _refuse_unknown(of: str, given: Iterable[str], known: Iterable[str]) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        there_are = ", ".join(sorted(known))
        raise InvalidArgument(f"{of}: unknown: {', '.join(unknown)}; there are {there_are}")


def capacity_of(size: int | str) -> int:
    """Bytes, rounded as a store rounds them."""
    nbytes = _core.parse_size(size) if isinstance(size, str) else size
    if isinstance(nbytes, bool) or not isinstance(nbytes, int) or nbytes <= 0:
        raise InvalidArgument(f"{size!r} is no size: give bytes, or a text like '64GiB'")
    return -(-nbytes // _ROUNDING) * _ROUNDING


def open_tier(options: TierOptions) -> Store:
    """Raises what ``Store.attach()`` and ``Store.create()`` raise."""
    second_tier = _second_tier_of(options.second_tier)
    while True:
        try:
            store = Store.attach(
                options.name,
                owner=options.owner,
                populate=options.populate,
                second_tier=second_tier,
            )
        except NotFound:
            try:
                return _create(options, second_tier)
            except AlreadyExists:  # another server created it first
                continue
        _tell_difference(store, options)
        return store


def _create(options: TierOptions, second_tier: SecondTier | None) -> Store:
    return Store.create(
        options.name,
        capacity=options.capacity,
        objects=options.objects,
        participants=options.participants,
        eviction=options.eviction,
        granule=options.granule,
        persistent=True,
        populate=options.populate,
        lock_memory=options.lock_memory,
        huge_pages=options.huge_pages,
        owner=options.owner,
        second_tier=second_tier,
    )


def _tell_difference(store: Store, options: TierOptions) -> None:
    wanted = capacity_of(options.capacity)
    if store.capacity != wanted:
        _log.warning(
            "the store '%s' is there with a capacity of %d bytes, and %d were asked for: it stays "
            "as it is. For another size stop its servers and remove it: penstock gc --data %s",
            store.name,
            store.capacity,
            wanted,
            store.name,
        )


def _second_tier_of(given: str | list[str] | dict[str, Any] | None) -> SecondTier | None:
    if not isinstance(given, dict):
        return SecondTier.of(given)
    options = dict(given)
    urls = options.pop("url", None) or options.pop("urls", None)
    if urls is None:
        raise InvalidArgument("second_tier has no url: give {'url': 'redis://host:6379', …}")
    known = {field.name for field in dataclasses.fields(SecondTier)}
    _refuse_unknown("second_tier", options, known - {"urls"})
    return SecondTier(urls, **options)
