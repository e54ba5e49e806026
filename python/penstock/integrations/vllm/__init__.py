"""For vLLM: its message queue and its object store over Penstock's (``shm_broadcast`` and
``shm_object_storage``, which an installed vLLM uses where PENSTOCK_VLLM=1), and its KV cache in a
pool of this machine, by a connector that vLLM loads by its own configuration:

    vllm serve MODEL --kv-transfer-config '{
        "kv_connector": "PenstockMPConnector",
        "kv_connector_module_path": "penstock.integrations.vllm",
        "kv_role": "kv_both",
        "kv_connector_extra_config": {"penstock.pool": "kv", "penstock.capacity": "64GiB"}}'

Every engine that names the same pool shares its chunks. No server is asked on the way: schedulers
look up and workers copy by themselves, through ``penstock.integrations.lmcache.PoolClient``.
"""

from __future__ import annotations

from typing import Any

__all__ = ["PenstockMPConnector"]


def __getattr__(name: str) -> Any:
    """The connector is loaded when vLLM asks for it: this package can be imported without vLLM."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .connector import PenstockMPConnector

    return PenstockMPConnector
