"""`help()` of everything public, and the types of all objects that users meet, which must be
importable for annotations."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import importlib.util
import inspect
import pickle
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from peers import WITHIN

import penstock
from penstock import _core, errors, trajectories
from penstock.integrations import atropos, lmcache
from penstock.integrations.vllm import shm_broadcast, shm_object_storage
from penstock.trajectories import TrajectoryGroup, TrajectoryReader, TrajectoryWriter

STUBS = Path(__file__).resolve().parents[2] / "tools" / "dev" / "stubs.py"
MODULES = [
    *(penstock, penstock.errors, penstock.inspect, trajectories, atropos, lmcache),
    *(shm_broadcast, shm_object_storage),
]


def documented() -> dict[str, Any]:
    """Each reachable class, function, method and property, by its title."""
    found: dict[str, Any] = {}
    for module in MODULES:
        found[module.__name__] = module
        for name in module.__all__:
            one = getattr(module, name)
            if isinstance(one, type):
                found[f"{one.__module__}.{one.__name__}"] = one
                found.update(members_of(one))
            elif inspect.isroutine(one) or hasattr(one, "__nb_signature__"):
                found[f"{module.__name__}.{name}"] = one
    return found


def members_of(cls: type) -> dict[str, Any]:
    if issubclass(cls, BaseException | enum.Enum):
        return {}  # inherited from Python
    fields = {field.name for field in dataclasses.fields(cls)} if is_data(cls) else set()
    return {
        f"{cls.__name__}.{name}": member
        for name in dir(cls)
        if not name.startswith("_") and name not in fields
        for member in [inspect.getattr_static(cls, name)]
        if callable(getattr(cls, name)) or isinstance(member, property)
    }


def is_data(cls: type) -> bool:
    return dataclasses.is_dataclass(cls)


def words_of(one: Any) -> str:
    """The docstring, without the signature that the binding puts before it."""
    if isinstance(one, staticmethod | classmethod):
        one = one.__func__
    text = one.__doc__ or ""
    if hasattr(one, "__nb_signature__"):
        text = text.partition("\n\n")[2]
    if isinstance(one, property) and text.startswith("(self)"):
        text = ""
    return text.strip()


def test_everything_public_has_a_docstring() -> None:
    everything = documented()
    assert len(everything) > 250
    known = {"penstock.queue.Queue", "Queue.put", "Store.retain", "Queue.closed"}
    assert known <= everything.keys()
    silent = [title for title, one in everything.items() if len(words_of(one)) < 12]
    assert silent == []
    made_by_dataclass = [
        title
        for title, one in everything.items()
        if isinstance(one, type) and words_of(one).startswith(one.__name__ + "(")
    ]
    assert made_by_dataclass == []


def test_waiting_calls_document_their_timeout() -> None:
    """Or names its twin, or the call whose timeout it has."""
    silent = [
        title
        for title, one in documented().items()
        if "timeout" in signature_of(one)
        and not any(word in words_of(one) for word in ("timeout", "``"))
    ]
    assert silent == []


def signature_of(one: Any) -> str:
    function = one.__func__ if isinstance(one, staticmethod) else one
    if bound := getattr(function, "__nb_signature__", ()):
        return str(bound[0][0])
    return str(inspect.signature(function)) if inspect.isfunction(function) else ""


def test_help_shows_the_docstrings() -> None:
    text = pydoc_of("penstock.Store.retain")
    assert "Never evict it until ``release()``" in text
    assert "Put a value. Waits while the queue is full." in pydoc_of("penstock.Queue")


def pydoc_of(name: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "pydoc", name],
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=True,
    ).stdout


@pytest.mark.skipif(not STUBS.exists(), reason="not in a checkout")
def test_the_stub_agrees_with_the_module() -> None:
    outcome = subprocess.run(
        [sys.executable, str(STUBS), "--check"],
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@pytest.mark.skipif(not STUBS.exists(), reason="not in a checkout")
def test_the_check_of_the_stub_can_fail() -> None:
    spec = importlib.util.spec_from_file_location("stubs", STUBS)
    assert spec is not None
    assert spec.loader is not None
    stubs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stubs)
    text = stubs.STUB.read_text()
    assert stubs.Comparison(text, _core).faults == []
    for old, new, fault in (
        ("def has_redis()", "def has_redi()", "has_redi is not in the module"),
        ("def has_redis()", "def has_redi()", "has_redis is not in the stub"),
        ("def parse_size(text: str)", "def parse_size(size: str)", "parse_size has the param"),
        ("Put a value. Waits", "Put a value, and wait", "Queue.put has another docstring"),
    ):
        assert old in text
        faults = stubs.Comparison(text.replace(old, new), _core).faults
        assert any(one.startswith(fault) for one in faults)
        mended = stubs.Comparison(text.replace(old, new), _core).mended()
        if "docstring" in fault:
            assert mended == text


# ---- types


def met_by_a_user(name: str) -> list[Any]:
    """One object of each type that calls return."""
    with (
        penstock.Broadcast.create(name + "-b", readers=1) as writer,
        penstock.Broadcast.attach(name + "-b", 0) as reader,
        penstock.Queue.create(name + "-q", capacity="1MiB") as queue,
        penstock.Store.create(name + "-s", capacity="1MiB") as store,
        TrajectoryReader.create(name + "-t", sequences=1, capacity="1MiB") as trainer,
        TrajectoryWriter.attach(name + "-t") as environment,
    ):
        store.put("key", 1)
        met = [writer, reader, queue, store, trainer, environment]
        met += [writer.loan(1), writer.handle, writer.stats(), writer.loan_async(1)]
        met += writer.readers()
        met += [reader.recv_view(), reader.recv_view_async()]
        met += [queue.get_view(), queue.get_many(), queue.get_many_async(), queue.stats()]
        met += [store.get("key"), store.look("key"), store.stats()]
        met += [store.reserve("new", nbytes=1), store.wait_async("key")]
        met += [
            environment.begin(timeout=WITHIN),
            environment.stats(),
            *environment.stats().environments,
        ]
        environment.put(TrajectoryGroup([[1]]))
        batch = trainer.next_batch(timeout=WITHIN)
        met += [batch, *batch.groups]
        for look in (penstock.inspect.list_segments(), penstock.inspect.list_segments()):
            met += [one for one in look if one.name.startswith(name)]
        met += [trajectories.inspect_trajectories(name + "-t")]
        batch.ack()
    return met


def test_the_type_of_all_that_a_user_meets_can_be_imported(name: str) -> None:
    for one in met_by_a_user(name):
        cls = type(one)
        assert not any(part.startswith("_") for part in cls.__module__.split(".")), cls
        assert not cls.__name__.startswith("_")
        assert getattr(importlib.import_module(cls.__module__), cls.__name__) is cls


def test_each_public_type_is_in_its_module() -> None:
    for module in MODULES:
        for name in module.__all__:
            one = getattr(module, name)
            if isinstance(one, type):
                assert getattr(importlib.import_module(one.__module__), one.__name__) is one


# ---- errors travel


def exceptions() -> list[type[BaseException]]:
    """All exceptions that the package raises, public or not."""
    found: set[type[BaseException]] = set()
    for info in pkgutil.walk_packages(penstock.__path__, "penstock."):
        if info.name.endswith("__main__") or ".demo" in info.name:
            continue
        try:
            module = importlib.import_module(info.name)
        except ImportError:  # an extra that is not installed
            continue
        found |= {
            one
            for one in vars(module).values()
            if isinstance(one, type)
            and issubclass(one, BaseException)
            and one.__module__.startswith("penstock")
        }
    return sorted(found, key=lambda cls: cls.__name__)


def test_errors_come_through_a_pickle() -> None:
    assert len(exceptions()) > 20
    for cls in exceptions():
        parameters = inspect.signature(cls.__init__).parameters.values()
        named = [one for one in parameters if one.kind == one.POSITIONAL_OR_KEYWORD]
        error: Any = cls("a sentence", *[2] * max(0, len(named) - 2))  # self and the message
        error.rank = 3
        error.beside = 4
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is cls
        assert str(again) == str(error) == "a sentence"
        assert (again.rank, again.beside) == (3, 4)


def test_all_errors_are_there() -> None:
    for name in errors.__all__:
        assert getattr(penstock, name) is getattr(errors, name)
        assert not getattr(errors, name).__name__.startswith("_")
