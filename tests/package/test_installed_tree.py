"""The C++ library as another project uses it: installed into its own prefix, found by find_package.

The examples are built from that prefix alone and run as two processes. PENSTOCK_RELEASE_TREE names
the build tree to install from; `./dev test` sets it.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STRICT = "-Wall -Wextra -Wpedantic -Wconversion -Werror"
COMPILERS = [
    compiler for compiler in (os.environ.get("CXX", "g++"), "clang++-19") if shutil.which(compiler)
]


def run(*command: object, timeout: float = 120) -> str:
    result = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def configure(prefix: Path, source: Path, build: Path, compiler: str) -> list[object]:
    """The command that configures a consumer of the installed tree, and of nothing else."""
    return [
        "cmake",
        "-G",
        "Ninja",
        "-S",
        source,
        "-B",
        build,
        f"-DCMAKE_PREFIX_PATH={prefix}",
        f"-DCMAKE_CXX_COMPILER={compiler}",
        f"-DCMAKE_CXX_FLAGS={STRICT}",
    ]


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("prefix")
    run("cmake", "--install", os.environ["PENSTOCK_RELEASE_TREE"], "--prefix", where)
    return where


@pytest.fixture(scope="module", params=COMPILERS)
def examples(prefix: Path, request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(ROOT / "examples" / "cmake", folder / "source")
    run(*configure(prefix, folder / "source", folder / "build", request.param))
    run("cmake", "--build", folder / "build")
    return folder / "build"


@pytest.mark.parametrize("first", ["writer", "reader"])
def test_writer_and_reader_start_in_either_order(examples: Path, first: str):
    name = f"package-test-{os.getpid()}"
    second = {"writer": "reader", "reader": "writer"}[first]
    processes = {
        program: subprocess.Popen(
            [examples / program, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for program in (first, second)
    }
    try:
        output = {
            program: process.communicate(timeout=60) for program, process in processes.items()
        }
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    assert output == {"writer": ("", ""), "reader": ("step 0\nstep 1\nstep 2\n", "")}
    assert [process.returncode for process in processes.values()] == [0, 0]
    assert not Path(f"/dev/shm/penstock.{name}").exists()


def test_a_failure_is_reported_with_a_message(examples: Path):
    result = subprocess.run(
        [examples / "writer", "no/such name"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert "no/such name" in result.stderr


@pytest.mark.parametrize("compiler", COMPILERS)
def test_every_header_compiles_on_its_own(prefix: Path, tmp_path: Path, compiler: str):
    headers = sorted((prefix / "include").rglob("*.hpp"))
    assert len(headers) >= len(list((ROOT / "include").rglob("*.hpp"))) + 1  # and version.hpp
    for header in headers:
        source = tmp_path / f"{header.stem}.cpp"
        source.write_text(f'#include "{header.relative_to(prefix / "include")}"\n')
        run(
            compiler,
            "-std=c++20",
            *STRICT.split(),
            "-fsyntax-only",
            "-I",
            prefix / "include",
            source,
        )


def test_a_consumer_that_wants_a_newer_version_is_refused(prefix: Path, tmp_path: Path):
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\nproject(demanding LANGUAGES CXX)\n"
        "find_package(penstock 99 REQUIRED)\n"
    )
    result = subprocess.run(
        [str(word) for word in configure(prefix, tmp_path, tmp_path / "build", COMPILERS[0])],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode != 0
    assert "99" in result.stderr


def test_nothing_installed_names_the_folder_it_was_built_in(prefix: Path):
    texts = [path for path in prefix.rglob("*") if path.suffix in {".cmake", ".hpp"}]
    assert texts
    assert [path.name for path in texts if str(ROOT) in path.read_text()] == []
