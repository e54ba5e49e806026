"""A connector for LMCache's ``native_plugin`` L2 adapter: C++ from its queue to the store.

    lmcache server … --l2-adapter '{"type": "native_plugin",
        "module_path": "penstock.integrations.lmcache.native", "class_name": "PenstockConnector",
        "adapter_params": {"name": "kv", "capacity": "64GiB"}}'

It imports nothing of LMCache. docs/lmcache.md says when to take it, and when the plugin of
``penstock.integrations.lmcache.l2``.
"""

from __future__ import annotations

from typing import Any

from ... import _core
from ..._exit import close_at_exit
from .l2_tier import TierOptions, open_tier

__all__ = ["PenstockConnector"]


class PenstockConnector(_core.StoreConnector):
    """Batches of ``submit_batch_get``, ``_set``, ``_exists`` and ``_delete`` on one store.

    Takes the fields of ``l2_tier.TierOptions`` as keywords. Any thread may use it; in a forked
    child every call raises WrongProcess.
    """

    def __init__(self, name: str | None = None, **options: Any) -> None:
        """Attach to the store, or create it. Raises InvalidArgument for invalid options."""
        named = {} if name is None else {"name": name}
        given = TierOptions.from_mapping({**named, **options})
        tier = open_tier(given)
        try:
            super().__init__(tier, threads=given.threads)
        except BaseException:
            tier.close()
            raise
        self._tier = tier
        close_at_exit(self)

    def close(self) -> None:
        """End the threads, and leave the store, which stays. Idempotent."""
        super().close()
        self._tier.close()
