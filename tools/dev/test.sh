# The test command: a sequence of steps, each of which can be run again by the command that it
# prints. Tests find the C++ programs in $PENSTOCK_BUILD_DIR/tests and their thoroughness in
# $PENSTOCK_TEST_TIER. Pure computation runs behind them (lane.sh), and each step has a budget
# (budget.sh).

setup_tests() {
    local wanted=("${SYSTEM_TEST[@]}" "${SYSTEM_TEST_WISH[@]}" "${SYSTEM_LINT[@]}")
    [ "$TIER" = short ] || wanted+=("${SYSTEM_FUZZ[@]}" "${SYSTEM_BENCH[@]}" spin)
    setup_system "${wanted[@]}"
    need_system "${SYSTEM_TEST[@]}"
    setup_venv test
    setup_torch
    [ "$TIER" = short ] || install_groups bench
}

# ctest_family LABEL [TREE]: runs the C++ tests of one family in one tree, as many at a time as
# there are processors; tests that can't run in parallel are marked RUN_SERIAL.
ctest_family() {
    local label=$1 tree=${2:-dev} jobs=$JOBS
    ctest --test-dir "build/$tree" --output-on-failure --no-tests=error -j "$jobs" -L "^$label\$"
}

# Variables for the tests' interpreter only, NAME=VALUE each.
PYTEST_ENVIRONMENT=()

pytest_folder() { env "${PYTEST_ENVIRONMENT[@]}" "$VENV/bin/python" -m pytest -q "$@" </dev/null; }

# own_shm COMMAND...: runs it with a private /dev/shm, in which it must leave nothing.
own_shm() {
    # shellcheck disable=SC2016 # the inner shell expands it
    unshare --mount bash -c '
        mount -t tmpfs tmpfs /dev/shm || exit
        "$@" && code=0 || code=$?
        left=$(cd /dev/shm && compgen -G "penstock.*") || true
        [ -z "$left" ] || { echo "left behind in /dev/shm: $left"; [ "$code" -ne 0 ] || code=1; }
        exit "$code"' own_shm "$@"
}

# pytest_shared ARGUMENT...: as pytest_folder, in two runs that share the files: tests mostly wait.
# Two, whatever the number of processors: the timed tests among them hold beside one other run.
pytest_shared() {
    if ! own_shm true 2>/dev/null; then
        pytest_folder "$@"
        return
    fi
    local share run runs=() code=0
    share=$(mktemp -d)
    mkdir "$share/taken"
    for run in 1 2; do
        own_shm env "${PYTEST_ENVIRONMENT[@]}" "$VENV/bin/python" -m pytest -q --durations=15 --durations-min=4 \
            --share "$share/taken" "$@" \
            </dev/null >"$share/$run.log" 2>&1 &
        runs+=($!)
    done
    for run in 1 2; do
        wait "${runs[run - 1]}" || code=$?
        cat "$share/$run.log"
    done
    rm -rf "$share"
    return "$code"
}

# family NAME: runs the C++ and Python tests of tests/NAME, whichever exist.
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
    lane_collect release
    PENSTOCK_RELEASE_TREE=$ROOT/build/release pytest_folder tests/package
}

# sanitized NAME: runs the C++ suite in the build tree of that sanitizer.
sanitized() {
    local name=$1
    lane_collect "$name"
    export PENSTOCK_TEST_TIER=short PENSTOCK_BUILD_DIR=$ROOT/build/$name
    # A child that was forked beside a watcher starts its own.
    export TSAN_OPTIONS=die_after_fork=0
    ctest_family unit "$name"
    ctest_family stress "$name"
    ctest_family namespace "$name"
}

# python_site TREE: the package with that tree's module, in build/TREE/site.
python_site() {
    local site=$ROOT/build/$1/site
    rm -rf "$site"
    cmake --install "build/$1" --component python --prefix "$site" >/dev/null
    cp -r python/penstock "$site/"
}

# The Python tests with a sanitized module: by g++, whose runtime is a library that can be
# preloaded.
sanitized_python() {
    local site=$ROOT/build/asan-python/site runtimes
    lane_collect asan-python
    use_compiler
    python_site asan-python
    runtimes=$("$CXX" -print-file-name=libasan.so):$("$CXX" -print-file-name=libubsan.so)
    # No leak detection: Python rightly keeps memory until it exits; the C++ suite looks for leaks. Left out:
    # the command and the demo, which start many interpreters (minutes in this build), the HTTP server and
    # vLLM's modules, all of which run no further C++; errors of the system, which take from a process what the
    # sanitizer needs (/proc, descriptors); the run of the fuzzer, which limits its address space; and
    # test_exit.py and two tests of the second tier, which fork beside threads and hang by chance: g++ 12's runtime
    # holds its allocator's lock over a fork, and in the child no thread releases it. For the same reason waits
    # do without the watcher's thread here, and its tests are left out: the C++ suite has it under clang's
    # runtime. A child that is meant to fault dies of the signal, as elsewhere. An allocation that is too large
    # fails, and does not end the process.
    PYTEST_ENVIRONMENT=(PENSTOCK_TEST_TIER=short PENSTOCK_WATCHER=0 PYTHONPATH="$site" LD_PRELOAD="$runtimes"
        ASAN_OPTIONS=detect_leaks=0:handle_segv=0:allocator_may_return_null=1 PYTHONMALLOC=malloc)
    pytest_shared tests/python \
        --ignore-glob='*/test_demo*.py' --ignore-glob='*/test_cli*.py' \
        --ignore-glob='*/test_readme.py' --ignore-glob='*/test_typing.py' --ignore-glob='*/test_system_errors.py' \
        --ignore-glob='*/test_interrupts.py' --ignore-glob='*/test_exit.py' \
        --ignore-glob='*/test_death_noticed.py' --ignore-glob='*/test_how_it_died.py' \
        --ignore-glob='*/test_http*.py' --ignore-glob='*/test_vllm_*.py' \
        --deselect tests/python/test_hostile_redis.py::test_a_run_of_the_fuzzer \
        --deselect tests/python/test_second_tier.py::test_a_forked_child_attaches_anew \
        --deselect tests/python/test_second_tier.py::test_a_forked_child_meets_a_server_that_refuses_it
}

# The other compiler, without crash points: library, module and benchmarks compile without warnings,
# and the concepts' tests pass. The C++ tests run by it under the sanitizers.
test_clang() {
    lane_collect clang
    python_site clang
    PYTEST_ENVIRONMENT=(PENSTOCK_TEST_TIER=short PYTHONPATH="$ROOT/build/clang/site")
    pytest_shared tests/python/test_{broadcast,queue,store,trajectories,codec}.py
}

test_fuzzers() {
    lane_collect fuzz
    fuzz_built 20
}

test_models() {
    [ -x models/run ] || skip "no models"
    command -v spin >/dev/null || skip "no spin"
    timeout --kill-after=10 1800 models/run --new
}

build_clang_tree() {
    need_clang
    build_tree "$1" "${@:2}"
}

# In the order in which the steps collect them.
fill_lane() {
    local name
    lane_add dev build_tree dev
    if [ "$TIER" = short ]; then
        # Installing needs only the library; the benchmarks of that tree are for the full tier.
        lane_add release build_targets release penstock
        lane_add tidy lint_tidy
        return 0
    fi
    for name in "${ENVIRONMENTS[@]}"; do
        lane_add "environment-$name" need_real "$name"
    done
    lane_add asan build_clang_tree asan
    lane_add tsan build_clang_tree tsan
    lane_add asan-python build_tree asan-python -DPython_EXECUTABLE="$VENV/bin/python"
    lane_add clang build_clang_tree clang -DPython_EXECUTABLE="$VENV/bin/python"
    lane_add release build_tree release
    lane_add fuzz build_fuzz
    lane_add tidy lint_tidy
    lane_add models test_models
}

quick_steps() {
    must "set-up" setup_tests
    budget_begin "$TIER"
    must "build: python package" install_package
    fill_lane
    lane_start
    quick_lint_steps
    step "tests, Python" pytest_shared tests/python
    must "build: C++ and tests" lane_collect dev
    step "unit tests, C++" ctest_family unit
    step "crash walk" family crash
    step "real programs: Atropos" test_real atropos
    step "real programs: LMCache" test_real lmcache
}

full_steps() {
    step "namespaces" family namespace
    step "stress" family stress
    step "address and UB sanitizers" sanitized asan
    step "thread sanitizer" sanitized tsan
    step "sanitizers, Python" sanitized_python
    step "clang $LLVM" test_clang
    step "fuzzers" test_fuzzers
}

# Last: steps whose jobs ran longest behind the others, and steps that need the machine for
# themselves.
last_steps() {
    step "installed package" test_package
    step "lint: clang-tidy" lane_collect tidy
    [ "$TIER" = full ] || return 0
    step "models" lane_collect models
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
    last_steps
    finish_report
}
