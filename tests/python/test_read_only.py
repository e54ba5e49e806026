"""Views lie in memory that can't be written: a write that NumPy does not see, through a tensor or
an address, ends the writing process, and others see no change."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest
from mappings import access_at

import penstock
from penstock.integrations.lmcache import EngineContext, PoolClient, PoolServer

WITHIN = 60.0
VALUE = {"small": np.arange(10), "large": np.arange(1 << 18)}

OPEN_STORE = "store = penstock.Store.attach({name!r})\n"
OPEN_QUEUE = "queue = penstock.Queue.attach({name!r})\n"

# How a program gets a view of a value, and the array in it that is written to.
STORE_WAYS = {
    "get": ("store.get('value')", "value['large']"),
    "get, small": ("store.get('value')", "value['small']"),
    "get of a tensor": ("store.get('tensor')", "value"),
    "get of bytes": ("store.get('bytes')", "np.frombuffer(value, np.uint8)"),
    "get_many": ("store.get_many(['value'])", "value[0]['large']"),
    "wait": ("store.wait('value', timeout=0)", "value['large']"),
    "own put": ("store.put('own', np.zeros(9)) and store.get('own')", "value"),
}
QUEUE_WAYS = {
    "get_view": ("queue.get_view(timeout=0)", "value['large']"),
    "get_view, small": ("queue.get_view(timeout=0)", "value['small']"),
    "get_many": ("queue.get_many(max_items=1, timeout=0)", "value[0]['large']"),
}
WRITES = {
    "ctypes": "import ctypes; ctypes.memset(array.ctypes.data, 99, array.nbytes)",
    "torch": "import torch; torch.from_numpy(array).fill_(99)",
}


def run(program: str) -> subprocess.CompletedProcess[str]:
    start = """
    import resource
    import warnings
    import numpy as np
    import penstock
    warnings.simplefilter("ignore")  # PyTorch warns of what is about to happen
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(start) + program],
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )


def died_of_it(opened: str, way: tuple[str, str], write: str) -> None:
    place, array = way
    outcome = run(
        f"""{opened}
with {place} as value:
    array = {array}
    assert array.size and (array == array).all()
    print("read", flush=True)
    {write}
"""
    )
    assert outcome.stdout == "read\n", outcome.stderr
    assert outcome.returncode == -signal.SIGSEGV, outcome.stderr


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("way", "write"), [*((way, "ctypes") for way in STORE_WAYS), ("get", "torch")]
)
def test_a_write_into_a_view_of_a_store_faults(name: str, way: str, write: str) -> None:
    if write == "torch":
        pytest.importorskip("torch")
    with penstock.Store.create(name, capacity="8MiB") as store:
        store.put("value", VALUE)
        store.put_bytes("bytes", bytes(5000))
        with store.reserve("tensor", shape=1000, dtype="f4") as room:
            room[...] = 5
        died_of_it(OPEN_STORE.format(name=name), STORE_WAYS[way], WRITES[write])
        with store.get("value") as value:
            assert (value["large"] == VALUE["large"]).all()
            assert (value["small"] == VALUE["small"]).all()
        assert (store.get_copy("tensor") == 5).all()
        assert store.get_copy("bytes") == bytes(5000)


@pytest.mark.full
def test_a_write_into_a_tensor_of_a_store_faults(name: str) -> None:
    torch = pytest.importorskip("torch")
    with penstock.Store.create(name, capacity="1MiB") as store:
        store.put("w", torch.zeros(4))
        outcome = run(
            OPEN_STORE.format(name=name)
            + "t = store.get('w').__enter__()\nprint('read', flush=True)\nt += 1"
        )
        assert outcome.stdout == "read\n", outcome.stderr
        assert outcome.returncode == -signal.SIGSEGV, outcome.stderr
        assert (store.get_copy("w") == 0).all()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("way", QUEUE_WAYS)
def test_a_write_into_a_view_of_a_queue_faults(name: str, way: str) -> None:
    with penstock.Queue.create(name, capacity="8MiB") as queue:
        queue.put(VALUE)
        died_of_it(OPEN_QUEUE.format(name=name), QUEUE_WAYS[way], WRITES["ctypes"])
        message = queue.get(timeout=WITHIN)  # redelivered, unchanged
        assert (message["large"] == VALUE["large"]).all()
        assert (message["small"] == VALUE["small"]).all()


def address(array: Any) -> int:
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data_ptr()


def test_every_view_in_this_process_is_read_only(name: str) -> None:
    with penstock.Store.create(name + "s", capacity="8MiB") as store:
        store.put("value", VALUE)
        view = store.get("value")
        with view as value, store.get_ref(view.ref) as again:
            assert access_at(address(value["large"])) == "r--s"
            assert access_at(address(again["small"])) == "r--s"
    with penstock.Queue.create(name + "q", capacity="8MiB") as queue:
        queue.put(VALUE)
        with queue.get_view(timeout=0) as value:
            assert access_at(address(value["large"])) == "r--s"
    with (
        penstock.Broadcast.create(name + "b", readers=1) as writer,
        penstock.Broadcast.attach(name + "b", rank=0) as reader,
    ):
        for message in (VALUE, {"large": np.arange(10)}):
            writer.send(message)
            with reader.recv_view(timeout=0) as value:
                assert access_at(address(value["large"])) == "r--s"


def test_slots_of_a_kv_pool_are_read_only(name: str) -> None:
    context = EngineContext.of_one_group(
        "engine", "model", num_layers=1, token_shape=(2, 8), dtype="float16", block_size=16
    )
    tokens = np.arange(512)
    with PoolServer.open(name, capacity="8MiB"), PoolClient.attach(name) as client:
        client.register(context)
        ticket = client.prepare_store(tokens)
        for group, chunk in ticket.reserved:
            ticket.slot(group, chunk)[...] = 1
        client.commit_store(ticket)
        with client.prepare_retrieve(tokens) as held:
            assert held.hits
            for group, chunk in held.hits:
                assert access_at(address(held.slot(group, chunk))) == "r--s"


def test_private_memory_stays_writable(name: str) -> None:
    with penstock.Store.create(name, capacity="8MiB") as store:
        store.put("value", VALUE)
        store.get_copy("value")["large"][...] = 1
    with penstock.Queue.create(name, capacity="8MiB") as queue:
        queue.put(VALUE)
        queue.get(timeout=0)["large"][...] = 1


def test_populate_is_for_the_views_too(name: str) -> None:
    with penstock.Store.create(name, capacity="16MiB", populate=True) as store:
        with store.reserve("x", nbytes="8MiB") as buffer:
            buffer[:] = bytes(8 << 20)
        del buffer
        with store.get("x") as view:
            array = np.frombuffer(view, np.uint8)
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
            total = int(array[:: 1 << 12].sum())
            faults = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before
    assert total == 0
    assert faults < 64  # of 2048 pages


@pytest.mark.parametrize("what", ["Store", "Queue"])
def test_no_room_for_the_second_mapping_is_reported(name: str, what: str) -> None:
    with getattr(penstock, what).create(name, capacity="64MiB"):
        outcome = run(
            f"""
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), -1))
try:
    penstock.{what}.attach({name!r})
except penstock.NoSpace as error:
    print(error)
"""
        )
    assert "no room for" in outcome.stdout, outcome.stderr
    assert "ulimit -v" in outcome.stdout
