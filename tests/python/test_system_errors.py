"""Refusals of the operating system at each step of a segment's life: the message says what is in
the way and what to do. Each in its own process, some in a mount namespace."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from peers import needs_a_mount, run_script

import penstock

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to change users")

TRY = """
import os, resource, sys
import penstock
from penstock import inspect

def tell(call):
    try:
        call()
    except penstock.Error as error:
        print(f"{type(error).__name__}: {error}")
    else:
        print("no error")

def create(name="test-refused", **options):
    tell(lambda: penstock.Broadcast.create(name, readers=1, **options).close())
"""


def tell(script: str, *arguments: str, shell: str = "", mounts: bool = False) -> list[str]:
    """The errors of the script's calls, one a line. `shell` runs before it, in the same process."""
    prefix = ("unshare", "-m") if mounts else ()
    if shell:
        prefix = (*prefix, "sh", "-ec", f'{shell}\nexec "$@"', "sh")
    outcome: Any = run_script(TRY + script, *arguments, prefix=prefix)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout.splitlines()


def assert_says(line: str, error: str, *words: str) -> None:
    assert line.startswith(f"{error}: "), line
    for word in words:
        assert word in line, line
    for wrong in ("no such segment", "another user", "not a regular file"):
        assert wrong in words or wrong not in line, line


@needs_a_mount
def test_no_dev_shm() -> None:
    lines = tell(
        """
create()
tell(lambda: penstock.Broadcast.attach("test-refused", rank=0))
tell(lambda: penstock.Queue.create("test-refused"))
tell(lambda: penstock.Store.create("test-refused"))
""",
        shell="mount -t tmpfs none /dev; touch /dev/null",
        mounts=True,
    )
    assert len(lines) == 4
    for line in lines:
        assert_says(line, "NotFound", "the directory /dev/shm is not there", "mount -t tmpfs")


@needs_a_mount
def test_no_proc() -> None:
    lines = tell(
        """
create()
create("file:/dev/shm/test-refused")
""",
        shell="umount -l /proc",
        mounts=True,
    )
    for line in lines:
        assert_says(line, "Error", "/proc is not mounted", "mount -t proc proc /proc")


@needs_a_mount
def test_attaching_without_proc() -> None:
    """Also where it would wait: no event could help."""
    lines = tell(
        """
import asyncio
named = penstock.Queue.create("test-refused")
anonymous = penstock.Broadcast.create(None, readers=1)
handle = anonymous.handle
assert os.system("umount -l /proc") == 0
tell(lambda: penstock.Queue.attach("test-refused", timeout=1000))
tell(lambda: penstock.Broadcast.attach(handle, rank=0, timeout=1000))
tell(lambda: asyncio.run(penstock.Broadcast.attach_async(handle, 0, timeout=1000)))
tell(lambda: anonymous.handle)
named.close()
""",
        mounts=True,
    )
    assert len(lines) == 4
    for line in lines:
        assert_says(line, "Error", "/proc is not mounted", "mount -t proc proc /proc")


@needs_root
def test_an_umask_that_takes_everything(name: str) -> None:
    [line] = tell(
        """
os.setgid(65534); os.setuid(65534); os.umask(0o777)
with penstock.Queue.create(sys.argv[1]) as queue:
    tell(lambda: penstock.Queue.attach(sys.argv[1]).close())
""",
        name,
    )
    assert line == "no error"


@needs_a_mount
def test_a_file_system_that_reserves_nothing() -> None:
    [line] = tell("create()", shell="mount -t ramfs none /dev/shm", mounts=True)
    assert_says(line, "Incompatible", "/dev/shm (ramfs)", "can't reserve memory", "tmpfs")


@needs_a_mount
def test_a_read_only_file_system() -> None:
    lines = tell(
        """
create()
create("file:/dev/shm/there")
""",
        shell="mount -t tmpfs -o ro none /dev/shm",
        mounts=True,
    )
    for line in lines:
        assert_says(line, "PermissionDenied", "/dev/shm is mounted read-only", "writable")


@needs_a_mount
def test_attaching_on_a_read_only_file_system(name: str, tmp_path: Path) -> None:
    path = tmp_path / "steps"
    with penstock.Broadcast.create(path, readers=1):
        [line] = tell(
            'tell(lambda: penstock.Broadcast.attach(f"file:{sys.argv[1]}", rank=0))',
            str(path),
            shell=f"mount --bind {tmp_path} {tmp_path}; mount -o remount,ro,bind {tmp_path}",
            mounts=True,
        )
        assert_says(line, "PermissionDenied", "is mounted read-only", "attaches writes")


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    missing, none = tell(
        """
create(f"file:{sys.argv[1]}/nope/x")
create(f"file:{sys.argv[1]}/file/x")
""",
        str(tmp_path),
    )
    assert_says(missing, "NotFound", f"the directory {tmp_path}/nope is not there", "make it")
    assert_says(none, "NotFound", f"the directory {tmp_path}/file is none")
    [attached] = tell(
        'tell(lambda: penstock.Queue.attach(f"file:{sys.argv[1]}/nope/x"))', str(tmp_path)
    )
    assert_says(attached, "NotFound", f"the directory {tmp_path}/nope is not there")


def test_a_limit_on_addresses() -> None:
    """Creating and attaching both map the whole range of a segment."""
    created, smaller = tell(
        """
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
limit = used + (256 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
create()
create(large=0)
"""
    )
    assert_says(created, "NoSpace", "of addresses", "ulimit -v", "large=")
    assert smaller == "no error"


def test_a_limit_on_files() -> None:
    lines = tell(
        """
resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))
held = [os.open("/dev/null", os.O_RDONLY) for _ in range(8 - len(os.listdir("/proc/self/fd")) + 1)]
create()
tell(lambda: penstock.Queue.attach("test-refused"))
"""
    )
    for line in lines:
        assert_says(line, "Error", "as many files open as it may (8)", "ulimit -n")


def test_a_limit_on_the_size_of_files() -> None:
    [line] = tell(
        """
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # as of a C++ program; Python ignores it
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
create()
"""
    )
    assert_says(line, "NoSpace", "more than a file may have here", "ulimit -f")


@needs_root
def test_a_directory_of_another_user(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o755)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.owner() == "root" and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    [line] = tell(
        """
os.setgid(65534); os.setuid(65534)
create(f"file:{sys.argv[1]}/x")
""",
        str(folder),
    )
    assert_says(line, "PermissionDenied", "uid 65534", f"may not write in {folder}")


@needs_root
def test_a_segment_of_another_user(name: str) -> None:
    with penstock.Broadcast.create(name, readers=1):
        lines = tell(
            """
os.setgid(65534); os.setuid(65534)
tell(lambda: penstock.Broadcast.attach(sys.argv[1], rank=0))
tell(lambda: inspect.inspect(sys.argv[1]))
""",
            name,
        )
    for line in lines:
        assert_says(line, "PermissionDenied", "another user", "uid 0 (root)", "run as the user")


@needs_root
def test_an_own_segment_without_permission(name: str) -> None:
    path = f"/dev/shm/penstock.{name}"
    try:
        [line] = tell(
            """
os.setgid(65534); os.setuid(65534)
with penstock.Queue.create(sys.argv[1]):
    os.chmod(f"/dev/shm/penstock.{sys.argv[1]}", 0)
    tell(lambda: penstock.Queue.attach(sys.argv[1]))
""",
            name,
        )
    finally:
        Path(path).unlink(missing_ok=True)
    assert_says(line, "PermissionDenied", "its mode is 0000", "chmod 600")


@needs_root
def test_ls_does_not_call_another_users_segment_damaged(name: str) -> None:
    script = """
import json, os, sys
from penstock.cli import main
os.setgid(65534); os.setuid(65534)
main.main(["ls"]); main.main(["ls", "--json"]); main.main(["gc", sys.argv[1]])
"""
    with penstock.Broadcast.create(name, readers=1):
        outcome = run_script(script, name)
        assert outcome.returncode == 0, outcome.stderr
        lines = outcome.stdout.splitlines()
        at = next(at for at, line in enumerate(lines) if line.startswith(name))
        assert lines[at].split() == [name, "foreign"]
        assert lines[at + 1].strip() == "belongs to uid 0 (root); can't be looked at"
        assert f'"name": "{name}",' in outcome.stdout
        assert '"condition": "foreign",' in outcome.stdout
        assert f"left alone {name}: belongs to uid 0 (root)" in outcome.stdout


@needs_a_mount
@pytest.mark.parametrize(
    "shell", ["umount -l /proc", "mount -t tmpfs none /dev; touch /dev/null"], ids=["proc", "shm"]
)
def test_doctor_looks_on_where_something_is_missing(shell: str) -> None:
    script = "from penstock.cli import main; raise SystemExit(main.main(['doctor']))"
    outcome = run_script(script, prefix=("unshare", "-m", "sh", "-ec", f'{shell}\nexec "$@"', "sh"))
    assert outcome.returncode == 1
    assert "Traceback" not in outcome.stderr
    assert "mount -t" in outcome.stdout
    assert "Penstock can't work here" in outcome.stdout
