"""How an installed vLLM gets Penstock's modules, with a package that has vLLM's names and order of
imports: whole modules or none, in every process, and a line that says which."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peers import WITHIN, eventually

from penstock.integrations.vllm import versions

OWN = """
class {first}: pass
class {second}: pass
def check_shm_free_space(*args): raise RuntimeError("vLLM's own")
"""
FILES = {
    "vllm/__init__.py": "",
    "vllm/_version.py": "__version__ = version = '{version}'\n",
    "vllm/distributed/__init__.py": "",
    "vllm/distributed/device_communicators/__init__.py": "",
    "vllm/distributed/device_communicators/shm_broadcast.py": OWN.format(
        first="MessageQueue", second="Handle"
    ),
    "vllm/distributed/device_communicators/shm_object_storage.py": OWN.format(
        first="SingleWriterShmRingBuffer", second="SingleWriterShmObjectStorage"
    ),
    # Imports the names when it is imported, as the real one.
    "vllm/executor.py": """
        from vllm.distributed.device_communicators.shm_broadcast import Handle, MessageQueue
        from vllm.distributed.device_communicators import shm_broadcast
        """,
    "vllm/cache.py": """
        from vllm.distributed.device_communicators.shm_object_storage import (
            SingleWriterShmRingBuffer,
        )
        """,
}
REPORT = """
    import sys
    def whose(name):
        module = sys.modules.get("vllm.distributed.device_communicators." + name)
        return module and module.__name__.partition(".")[0]
    print(whose("shm_broadcast"), whose("shm_object_storage"),
          vllm.executor.MessageQueue.__module__.partition(".")[0],
          vllm.executor.shm_broadcast.__name__.partition(".")[0],
          vllm.cache.SingleWriterShmRingBuffer.__module__.partition(".")[0])
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    """Runs a script beside a vLLM of some version, with Penstock asked for or not."""

    def run(script: str, version: str = "0.32.0", asked: str = "1", **environment: str) -> Any:
        for name, text in FILES.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(text).replace("{version}", version))
        path = [str(tmp_path), *(one for one in sys.path if one)]
        (tmp_path / "script.py").write_text(textwrap.dedent(script))
        settings = {"PENSTOCK_VLLM": asked, "PYTHONPATH": os.pathsep.join(path), **environment}
        return subprocess.run(
            [sys.executable, str(tmp_path / "script.py")],
            env=os.environ | settings,
            capture_output=True,
            text=True,
            timeout=WITHIN * 2,
            check=False,
        )

    return run


BEGIN = """
    import logging
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    import vllm
    from penstock.integrations.vllm import plugin
"""
OURS = "penstock penstock penstock penstock penstock"
THEIRS = "vllm vllm vllm vllm vllm"


def test_the_platform_plugin_puts_whole_modules_under_their_own_names(run: Any) -> None:
    done = run(
        BEGIN
        + "    assert plugin.platform() is None\n"
        + "    import vllm.executor, vllm.cache\n    plugin.general()\n"
        + REPORT
    )
    assert done.stdout.strip() == OURS, done.stderr
    assert "INFO Penstock is vLLM 0.32.0's message queue and object store in MainProcess" in (
        done.stderr
    )
    assert "rebound" not in done.stderr


def test_the_line_is_logged_when_vllm_has_set_up_its_log(run: Any) -> None:
    """LLM loads plugins before."""
    done = run(
        """
        import logging, sys, types
        import vllm
        vllm.logger = sys.modules["vllm.logger"] = types.ModuleType("vllm.logger")
        vllm.logger.configure_logging = lambda level: logging.basicConfig(level=level)
        from penstock.integrations.vllm import plugin

        plugin.platform()
        plugin.general()
        assert sys.stderr.write("not yet\\n")
        vllm.logger.configure_logging(logging.INFO)
        vllm.logger.configure_logging(logging.INFO)
        """
    )
    assert done.returncode == 0, done.stderr
    first, *rest = done.stderr.splitlines()
    assert first == "not yet"
    assert len(rest) == 1
    assert "Penstock is vLLM 0.32.0's message queue" in rest[0]


def test_vllms_error_of_a_dead_engine_says_who_died(run: Any) -> None:
    done = run(
        BEGIN
        + """
    import types
    module = types.ModuleType("vllm.v1.engine.exceptions")
    class EngineDeadError(Exception):
        def __init__(self, *args, suppress_context=False):
            super().__init__("EngineCore encountered an issue.", *args)
    module.EngineDeadError = EngineDeadError
    import sys
    for name in ("vllm.v1", "vllm.v1.engine"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules[module.__name__] = module
    from penstock.integrations.vllm import engine_errors
    plugin.general()
    plugin.general()
    print(EngineDeadError())
    engine_errors.dead_of_this_engine = lambda: ["VLLM::Worker_TP1 (pid 7) died: of something"]
    print(EngineDeadError(suppress_context=True))
    """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "EngineCore encountered an issue.",
        "EngineCore encountered an issue. Penstock: VLLM::Worker_TP1 (pid 7) died: of something.",
    ]


def test_an_engine_ends_with_the_process_that_started_it(run: Any) -> None:
    """Which vLLM's own does not notice."""
    done = run(
        """
        import multiprocessing, os, signal, sys, time

        def be_the_engine(told):
            from penstock.integrations.vllm import plugin
            plugin.general()
            def end(number, frame):
                told.send("ended")
                sys.exit(0)
            signal.signal(signal.SIGTERM, end)
            told.send("up")
            time.sleep(60)

        def be_the_server(told):
            engine = multiprocessing.get_context("spawn").Process(
                target=be_the_engine, args=(told,), name="EngineCore")
            engine.start()
            time.sleep(60)

        if __name__ == "__main__":
            ours, theirs = multiprocessing.Pipe(duplex=False)
            spawn = multiprocessing.get_context("spawn")
            server = spawn.Process(target=be_the_server, args=(theirs,))
            server.start()
            said = [ours.recv()]
            os.kill(server.pid, signal.SIGKILL)
            server.join()
            said.append(ours.recv() if ours.poll(30) else "goes on")
            print(*said)
        """
    )
    assert done.stdout.strip() == "up ended", done.stderr


ENGINE = """
        import multiprocessing, os, signal
        import vllm
        from penstock.integrations.vllm.shm_broadcast import MessageQueue

        def work(handle, told):
            reader = MessageQueue.create_from_handle(handle, 0)
            answers = MessageQueue(1, 1)
            told.send(answers.export_handle())
            reader.wait_until_ready()
            answers.wait_until_ready()
            if reader.dequeue() == "die":
                os.kill(os.getpid(), signal.SIGKILL)

        def run_engine(last):
            writer = MessageQueue(1, 1)
            spawn = multiprocessing.get_context("spawn")
            ours, theirs = spawn.Pipe(duplex=False)
            worker = spawn.Process(target=work, args=(writer.export_handle(), theirs))
            worker.start()
            answers = MessageQueue.create_from_handle(ours.recv(), 0)
            writer.wait_until_ready()
            answers.wait_until_ready()
            for one in (writer, answers):
                print(one.buffer.shared_memory.name, flush=True)
            writer.enqueue(last)
            worker.join()
            if last == "die":
                os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            engine = multiprocessing.get_context("spawn").Process(target=run_engine, args=({!r},))
            engine.start()
            engine.join()
            if engine.exitcode:
                os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_is_left_when_vllm_kills_all_of_its_processes(run: Any) -> None:
    done = run(ENGINE.format("die"))
    names = done.stdout.split()
    assert len(names) == 2, done.stderr
    for name in names:
        eventually(lambda name=name: not Path(f"/dev/shm/penstock.{name}").exists())


def test_an_engine_that_ends_by_itself_says_nothing(run: Any) -> None:
    done = run(ENGINE.format("end"))
    assert done.returncode == 0
    assert done.stderr == ""
    for name in done.stdout.split():
        assert not Path(f"/dev/shm/penstock.{name}").exists()


def test_modules_that_came_first_are_rebound_everywhere(run: Any) -> None:
    done = run(BEGIN + "    import vllm.executor, vllm.cache\n    plugin.general()\n" + REPORT)
    assert done.stdout.strip() == OURS, done.stderr
    for name in ("vllm.executor.MessageQueue", "vllm.cache.SingleWriterShmRingBuffer"):
        assert name in done.stderr


@pytest.mark.parametrize(
    ("use", "why"),
    [
        ("queue = vllm.executor.MessageQueue()", "there is a MessageQueue"),
        ("class Mine(vllm.executor.MessageQueue): pass", "MessageQueue has derived classes"),
    ],
)
def test_a_part_is_never_replaced(run: Any, use: str, why: str) -> None:
    done = run(
        BEGIN
        + f"""
    import vllm.executor, vllm.cache
    {use}
    try:
        plugin.general()
    except RuntimeError as error:
        print(error)
    """
        + REPORT
    )
    assert done.returncode == 0, done.stderr
    said, is_now = done.stdout.splitlines()
    assert why in said
    assert is_now.startswith("vllm vllm vllm vllm")


def test_nothing_happens_unless_it_is_asked_for(run: Any) -> None:
    script = (
        BEGIN
        + "    plugin.platform()\n    import vllm.executor, vllm.cache\n    plugin.general()\n"
        + REPORT
    )
    for asked in ("", "0"):
        done = run(script, asked=asked)
        assert done.stdout.strip() == THEIRS, done.stderr
        assert not done.stderr
    assert run(script, asked="true").stdout.strip() == OURS


@pytest.mark.parametrize("version", ["0.31.2", "0.34.0", "0.3.2", "dev"])
def test_an_unknown_version_keeps_its_own_modules_with_a_warning(run: Any, version: str) -> None:
    done = run(
        BEGIN
        + "    plugin.platform()\n    import vllm.executor, vllm.cache\n    plugin.general()\n"
        + REPORT,
        version=version,
    )
    assert done.stdout.strip() == THEIRS, done.stderr
    assert f"WARNING Penstock does not know vLLM {version} (it knows 0.32, 0.33)" in done.stderr


@pytest.mark.parametrize("version", ["0.33.0", "0.32.1.dev3+cpu"])
def test_known_versions(run: Any, version: str) -> None:
    done = run(BEGIN + "    plugin.platform()\n    import vllm.executor, vllm.cache\n" + REPORT,
               version=version)  # fmt: skip
    assert done.stdout.strip() == OURS, done.stderr


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_children_have_the_modules_and_handles_reach_them(run: Any, method: str) -> None:
    done = run(
        f"""
        import multiprocessing
        from penstock.integrations.vllm import plugin

        plugin.platform()  # in a spawned child too: the script is its main module
        import vllm.executor

        def work(handle, told):
            from vllm.distributed.device_communicators.shm_broadcast import MessageQueue
            reader = MessageQueue.create_from_handle(handle, 0)
            reader.wait_until_ready()
            told.put((reader.dequeue(timeout=30), MessageQueue.__module__))

        if __name__ == "__main__":
            context = multiprocessing.get_context({method!r})
            told = context.Queue()
            writer = vllm.executor.MessageQueue(1, 1)
            child = context.Process(target=work, args=(writer.export_handle(), told))
            child.start()
            writer.wait_until_ready()
            writer.enqueue(["to", "the", "child"])
            print(*told.get(timeout=30))
            child.join()
        """
    )
    said = "['to', 'the', 'child'] penstock.integrations.vllm.shm_broadcast"
    assert done.stdout.strip() == said, done.stderr


def test_names_are_patched_in_the_module_that_is_used(run: Any) -> None:
    """As vLLM's own tests do."""
    done = run(
        BEGIN
        + """
    plugin.platform()
    from unittest import mock
    from vllm.distributed.device_communicators.shm_broadcast import MessageQueue
    with mock.patch(
        "vllm.distributed.device_communicators.shm_broadcast.SHM_READER_RECHECK_INTERVAL_MS", new=7
    ):
        print(MessageQueue.ReadTimeoutWithWarnings(None, should_warn=False).timeout_ms())
    import importlib, vllm.distributed.device_communicators.shm_broadcast as module
    print(module.__spec__.name)
    """
    )
    assert done.stdout.split() == ["7", "penstock.integrations.vllm.shm_broadcast"], done.stderr


CHECK = (
    "import sys\nfrom penstock.cli.main import main\nsys.exit(main(['vllm', 'check', '--json']))\n"
)


def test_check_says_what_would_happen(run: Any) -> None:
    done = run(CHECK, asked="0", version="0.31.0", VLLM_PLUGINS="other")
    said = json.loads(done.stdout)
    assert (done.returncode, said["version"], said["replaces"]) == (1, "0.31.0", False)
    reasons = "\n".join(said["reasons"])
    for part in ("0.31.0 is not known", "PENSTOCK_VLLM is not 1", "VLLM_PLUGINS is 'other'"):
        assert part in reasons
    done = run(CHECK, VLLM_TARGET_DEVICE="cpu")
    said = json.loads(done.stdout)
    reasons = "\n".join(said["reasons"])
    if said["replaces"]:
        assert done.returncode == 0
        assert "VLLM_TARGET_DEVICE=cpu" in reasons
        assert "/dev/shm has" in reasons
    else:  # the sources of Penstock, without its entry points
        assert "pip install penstock" in reasons
    assert not done.stderr


def test_check_without_vllm(tmp_path: Path) -> None:
    if versions.installed() is not None:
        pytest.skip("there is a vLLM")
    done = subprocess.run(
        [sys.executable, "-m", "penstock.cli.main", "vllm", "check"],
        capture_output=True, text=True, timeout=WITHIN, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout.startswith("no vLLM: the message queue and the object store are its own")
