"""How the tests start vLLM: on the CPU, with two workers, without the network and the compiler."""

from __future__ import annotations

import os

#: vLLM's own modules, or Penstock's.
OWN, PENSTOCK = "own", "penstock"

_VARIABLES = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "TORCHDYNAMO_DISABLE": "1",  # compiling a tiny model takes longer than running it
}

#: Arguments of LLM and, as options, of the server.
ENGINE = {
    "tensor_parallel_size": 2,
    "distributed_executor_backend": "mp",
    "max_model_len": 1024,
    "enforce_eager": True,
    "dtype": "float32",
}


def environment(modules: str) -> dict[str, str]:
    """The environment of a vLLM with these modules."""
    found = {name: value for name, value in os.environ.items() if name != "PENSTOCK_VLLM"}
    found.update(_VARIABLES)
    if modules == PENSTOCK:
        found["PENSTOCK_VLLM"] = "1"
    return found


def options(arguments: dict[str, object]) -> list[str]:
    """The same arguments as the server's command takes them."""
    found = []
    for name, value in arguments.items():
        found.append(f"--{name.replace('_', '-')}")
        if value is not True:
            found.append(str(value))
    return found
