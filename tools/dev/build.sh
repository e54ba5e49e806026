# The CMake build trees, each a preset of CMakePresets.json in the folder build/NAME; pip makes one more
# for the package in build/python.

# Compile with the compiler that was picked, through ccache where it is there.
use_compiler() {
    CXX=$(pick_compiler)
    export CXX CMAKE_BUILD_PARALLEL_LEVEL=$JOBS
    if command -v ccache >/dev/null; then
        export CMAKE_CXX_COMPILER_LAUNCHER=ccache CCACHE_BASEDIR=$ROOT
    fi
}

need_clang() { command -v "clang++-$LLVM" >/dev/null || skip "no clang++-$LLVM"; }

# build_tree NAME OPTION...: the preset of that name, configured (quick when nothing changed) and compiled.
build_tree() {
    local name=$1
    shift
    use_compiler
    cmake --preset "$name" --log-level=WARNING "$@"
    cmake --build "build/$name"
}

run_build() {
    setup_system "${SYSTEM_TEST[@]}"
    need_system "${SYSTEM_TEST[@]}"
    setup_venv
    build_tree dev
    install_package
}
