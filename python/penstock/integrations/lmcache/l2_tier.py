"""The store behind LMCache's L2 adapters: attached to where it is there, made where it is not, and
with a second tier behind it where one is named.

One store serves all the LMCache servers of a machine. It stays, with its chunks, when all of them
have gone, in good order or killed.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ... import _core
from ...errors import AlreadyExists, Error, InvalidArgument, NotFound
from ...store import Eviction, Store
from ...tiered_store import TieredStore

__all__ = ["TierOptions", "open_tier"]

_log = logging.getLogger(__name__)
_ROUNDING = 64 << 10  # of a store's capacity


@dataclass(frozen=True)
class TierOptions:
    """What an adapter's JSON may say; all but ``name`` has a default.

    ``capacity``, ``objects``, ``members``, ``eviction``, ``granule``, ``lock_memory`` and
    ``huge_pages`` are those of ``Store.create()`` and count for the server that makes the store;
    the others take it as it is. ``populate`` also maps it into each that attaches. ``threads``
    copy chunks. ``second_tier`` is a URL of Redis
    or Valkey, a list of them, or a dict: ``url`` and what ``TieredStore`` takes.
    """

    name: str
    capacity: int | str = "1GiB"
    objects: int | None = None
    members: int = 64
    eviction: Eviction = "sieve"
    granule: int | str | None = None
    populate: bool = False
    lock_memory: bool = False
    huge_pages: bool = False
    threads: int = 2
    second_tier: str | list[str] | dict[str, Any] | None = None
    owner: int | str | None = None

    def __post_init__(self) -> None:
        """Says at once what can't be meant, as a ValueError that names the field."""
        if not isinstance(self.name, str) or not self.name:
            raise ValueError("name must be a non-empty string: that of the store")
        if not isinstance(self.threads, int) or not 1 <= self.threads <= 256:
            raise ValueError(f"threads is {self.threads!r}: give 1 to 256")
        try:
            capacity_of(self.capacity)
        except (InvalidArgument, TypeError) as error:
            raise ValueError(f"capacity: {error}") from error

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> TierOptions:
        """From JSON; a field that there is not is a ValueError, in words."""
        known = {field.name for field in dataclasses.fields(cls)}
        # What LMCache's command line may leave among an adapter's own fields.
        unknown = sorted(set(given) - known - {"type"})
        if unknown:
            raise ValueError(f"unknown: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        if "name" not in given:
            raise ValueError("name is missing: that of the store, as of all who share it")
        return cls(**{field: given[field] for field in known & set(given)})


def capacity_of(size: int | str) -> int:
    """Bytes, rounded as a store rounds them."""
    nbytes = _core.parse_size(size) if isinstance(size, str) else size
    if isinstance(nbytes, bool) or not isinstance(nbytes, int) or nbytes <= 0:
        raise InvalidArgument(f"{size!r} is no size: give bytes, or a text like '64GiB'")
    return -(-nbytes // _ROUNDING) * _ROUNDING


def open_tier(options: TierOptions) -> Store | TieredStore:
    """Raises what ``Store.attach()``, ``Store.create()`` and ``TieredStore()`` raise."""
    store = _attach_or_create(options)
    if options.second_tier is None:
        return store
    try:
        return _with_second_tier(store, options.second_tier)
    except BaseException:
        store.close()
        raise


def _attach_or_create(options: TierOptions) -> Store:
    while True:
        try:
            store = Store.attach(options.name, owner=options.owner, populate=options.populate)
        except NotFound:
            try:
                return _create(options)
            except AlreadyExists:  # another server was first
                continue
        _tell_difference(store, options)
        return store


def _create(options: TierOptions) -> Store:
    return Store.create(
        options.name,
        capacity=options.capacity,
        objects=options.objects,
        members=options.members,
        eviction=options.eviction,
        granule=options.granule,
        persistent=True,
        populate=options.populate,
        lock_memory=options.lock_memory,
        huge_pages=options.huge_pages,
        owner=options.owner,
    )


def _tell_difference(store: Store, options: TierOptions) -> None:
    wanted = capacity_of(options.capacity)
    if store.capacity != wanted:
        _log.warning(
            "the store '%s' is there with a capacity of %d bytes, and %d were asked for: it stays "
            "as it is. For another size stop all who use it and remove it: penstock gc --data %s",
            store.name,
            store.capacity,
            wanted,
            store.name,
        )


def _with_second_tier(store: Store, given: str | list[str] | dict[str, Any]) -> TieredStore:
    if not isinstance(given, dict):
        return TieredStore(store, given)
    options = dict(given)
    urls = options.pop("url", None) or options.pop("urls", None)
    if urls is None:
        raise InvalidArgument("second_tier has no url: give {'url': 'redis://host:6379', …}")
    try:
        return TieredStore(store, urls, **options)
    except TypeError as error:
        if isinstance(error, Error):
            raise
        raise InvalidArgument(f"second_tier: {error}") from error
