# The test command: a row of steps, each of which can be run again by hand with what it prints. Tests
# find the C++ programs in $PENSTOCK_BUILD_DIR/tests and how thorough to be in $PENSTOCK_TEST_TIER.

setup_tests() {
    local wanted=("${SYSTEM_TEST[@]}" "${SYSTEM_TEST_WISH[@]}" "${SYSTEM_LINT[@]}")
    [ "$TIER" = short ] || wanted+=("${SYSTEM_FUZZ[@]}" "${SYSTEM_BENCH[@]}" spin)
    setup_system "${wanted[@]}"
    need_system "${SYSTEM_TEST[@]}"
    setup_venv test
    setup_torch
    [ "$TIER" = short ] || install_groups bench
}

# ctest_family LABEL [TREE]: the C++ tests of one family in one tree.
ctest_family() {
    local label=$1 tree=${2:-dev} jobs=1
    [ "$label" != unit ] || jobs=$JOBS
    ctest --test-dir "build/$tree" --output-on-failure --no-tests=error -j "$jobs" -L "^$label\$"
}

pytest_folder() { "$VENV/bin/python" -m pytest -q "$@" </dev/null; }

# family NAME: C++ and Python tests of tests/NAME, whichever there are.
family() {
    local found=0
    if compgen -G "tests/$1/*_test.cpp" >/dev/null; then
        found=1
        ctest_family "$1"
    fi
    if compgen -G "tests/$1/test_*.py" >/dev/null; then
        found=1
        pytest_folder "tests/$1"
    fi
    [ "$found" = 1 ] || skip "no tests in tests/$1"
}

test_package() {
    build_tree release
    PENSTOCK_RELEASE_TREE=$ROOT/build/release pytest_folder tests/package
}

# sanitized NAME: the C++ suite in a build tree that watches it.
sanitized() {
    local name=$1
    need_clang
    build_tree "$name"
    export PENSTOCK_TEST_TIER=short PENSTOCK_BUILD_DIR=$ROOT/build/$name
    ctest_family unit "$name"
    ctest_family stress "$name"
    ctest_family namespace "$name"
}

# The Python tests on a sanitized module: g++, because its runtime is a library that can be preloaded.
sanitized_python() {
    local site=$ROOT/build/asan-python/site runtimes
    build_tree asan-python -DPython_EXECUTABLE="$VENV/bin/python"
    rm -rf "$site"
    cmake --install build/asan-python --component python --prefix "$site" >/dev/null
    cp -r python/penstock "$site/"
    runtimes=$("$CXX" -print-file-name=libasan.so):$("$CXX" -print-file-name=libubsan.so)
    # Python keeps memory until it exits, and is right to: leaks are looked for in the C++ suite.
    # The command and the demo start many interpreters, which takes this build minutes: they add no
    # line of C++ to what the others run.
    PENSTOCK_TEST_TIER=short PYTHONPATH=$site LD_PRELOAD=$runtimes \
        ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc pytest_folder tests/python \
        --ignore-glob='*/test_demo*.py' --ignore-glob='*/test_cli.py' \
        --ignore-glob='*/test_readme.py' --ignore-glob='*/test_typing.py'
}

# The other compiler, without crash points: everything compiles without a warning, and the tests pass.
test_clang() {
    need_clang
    build_tree clang -DPython_EXECUTABLE="$VENV/bin/python"
    ctest_family unit clang
}

test_models() {
    [ -x models/run ] || skip "no models"
    command -v spin >/dev/null || skip "no spin"
    timeout --kill-after=10 1800 models/run
}

quick_steps() {
    must "set-up" setup_tests
    must "build: python package" install_package
    must "build: C++ and tests" build_tree dev
    lint_steps
    step "unit tests, C++" ctest_family unit
    step "tests, Python" pytest_folder tests/python
    step "crash walk" family crash
    step "installed package" test_package
}

full_steps() {
    step "namespaces" family namespace
    step "stress" family stress
    step "address and UB sanitizers" sanitized asan
    step "sanitizers, Python" sanitized_python
    step "thread sanitizer" sanitized tsan
    step "clang $LLVM" test_clang
    step "fuzzers" fuzz_all 20
    step "models" test_models
    step "benchmark, quick" try_bench
    step "build the wheel" make_wheel
    step "try the wheel" try_wheel
}

run_tests() {
    TIER=short
    case "${1:-}" in
        "") ;;
        --full) TIER=full ;;
        *) die "usage: ./dev test [--full]" ;;
    esac
    export PENSTOCK_TEST_TIER=$TIER PENSTOCK_BUILD_DIR=$ROOT/build/dev
    quick_steps
    [ "$TIER" = short ] || full_steps
    finish_report
}
