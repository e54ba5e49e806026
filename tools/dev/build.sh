# The CMake build trees, each a preset of CMakePresets.json in the folder build/NAME; pip makes one more
# for the package in build/python.

# Compiles with the chosen compiler, through ccache if it is installed. All trees, clones and
# worktrees share its cache: paths under the base are made relative; the compiler's working
# directory does not count (so debug information may name another clone), and neither do file times,
# which precompiled headers would bring in.
use_compiler() {
    CXX=$(pick_compiler)
    export CXX CMAKE_BUILD_PARALLEL_LEVEL=$JOBS
    if command -v ccache >/dev/null; then
        export CMAKE_CXX_COMPILER_LAUNCHER=ccache CCACHE_BASEDIR=$ROOT CCACHE_NOHASHDIR=1
        export CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
    fi
}

need_clang() { command -v "clang++-$LLVM" >/dev/null || skip "no clang++-$LLVM"; }

# build_tree NAME OPTION...: configures (quick if nothing changed) and compiles the preset of that
# name.
build_tree() {
    use_compiler
    cmake --preset "$1" --log-level=WARNING "${@:2}"
    cmake --build "build/$1"
}

# build_targets NAME TARGET...: only these targets of that tree.
build_targets() {
    use_compiler
    cmake --preset "$1" --log-level=WARNING
    cmake --build "build/$1" --target "${@:2}"
}

run_build() {
    setup_system "${SYSTEM_TEST[@]}"
    need_system "${SYSTEM_TEST[@]}"
    setup_venv
    build_tree dev
    install_package
}
