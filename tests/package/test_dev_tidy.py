"""Which sources clang-tidy reads, and by which commands."""

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tidy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tools/dev/tidy.py, for a repository of its own."""
    spec = importlib.util.spec_from_file_location("tidy", ROOT / "tools" / "dev" / "tidy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "tidy", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "CONFIGURATION", tmp_path / ".clang-tidy")
    return module


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, "-C", folder, *arguments], check=True, capture_output=True)


def source(tidy: ModuleType, folder: Path, *parts: str) -> object:
    paths = tuple(folder / part for part in parts)
    return tidy.Source(paths[0], {"command": ""}, paths)


@pytest.mark.parametrize(
    "precompiled",
    [
        "-fpch-preprocess -Winvalid-pch -include /a/cmake_pch.hxx",
        "-Xclang -fno-pch-timestamp -Winvalid-pch -Xclang -include-pch -Xclang /a/cmake_pch.hxx.pch"
        " -Xclang -include -Xclang /a/cmake_pch.hxx",
    ],
)
def test_a_precompiled_header_hides_no_missing_include(tidy: ModuleType, precompiled: str):
    command = f"g++ -Wall {precompiled} -DX=1 -include own.hpp -c x.cpp"
    assert tidy.PRECOMPILED.sub("", command) == "g++ -Wall -DX=1 -include own.hpp -c x.cpp"


def test_files_equal_to_upstream_are_skipped(tidy: ModuleType, tmp_path: Path):
    origin = tmp_path / "origin.git"
    subprocess.run(["git", "init", "-q", "--bare", origin], check=True)
    git(tmp_path, "init", "-q", "-b", "main")
    for name in ("a.cpp", "b.cpp", "shared.hpp", ".clang-tidy"):
        (tmp_path / name).write_text(name)
    git(tmp_path, "add", "a.cpp", "b.cpp", "shared.hpp", ".clang-tidy")
    git(tmp_path, "commit", "-qm", "one")
    a = source(tidy, tmp_path, "a.cpp", "shared.hpp")
    b = source(tidy, tmp_path, "b.cpp")
    assert tidy.changed_files() is None, "without an upstream branch nothing is left out"
    assert not tidy.left_to_upstream(a, None)

    git(tmp_path, "remote", "add", "origin", str(origin))
    git(tmp_path, "push", "-qu", "origin", "main")
    assert tidy.left_to_upstream(a, tidy.changed_files())

    (tmp_path / "shared.hpp").write_text("changed, and not committed")
    changed = tidy.changed_files()
    assert not tidy.left_to_upstream(a, changed)
    assert tidy.left_to_upstream(b, changed)

    git(tmp_path, "commit", "-qam", "two")
    assert not tidy.left_to_upstream(a, tidy.changed_files()), "committed, and not pushed"

    (tmp_path / ".clang-tidy").write_text("another configuration")
    assert not tidy.left_to_upstream(b, tidy.changed_files())
