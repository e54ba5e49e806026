# The benchmark: compiled without crash points, run beside its peers by bench/run.py.

# tachyon has no wheels: built here where a compiler knows C++23.
install_tachyon() {
    local candidate
    for candidate in g++-15 g++-14 "clang++-$LLVM"; do
        if command -v "$candidate" >/dev/null; then
            CXX=$candidate install_groups built_peers
            return
        fi
    done
    return 1
}

setup_bench() {
    setup_system "${SYSTEM_BENCH[@]}"
    setup_venv bench http
    install_groups peers || say "going on without the peers that have no wheel here"
    install_tachyon || say "going on without tachyon, which needs g++ 14 or clang to be built"
    install_package
    build_tree release
}

# Runs every benchmark briefly: checks that all of them run, and verify what they receive. Prints what
# differs from the ratios in bench/baseline.json. A ratio fails the step only where it is three times
# as bad as in any run of the baseline, three times in a row: less may be the machine's.
try_bench() {
    "$VENV/bin/python" bench/run.py --quick --programs build/release/bench --json build/bench-quick.json \
        --compare bench/baseline.json --limit 3
}

run_bench() {
    setup_bench
    exec "$VENV/bin/python" bench/run.py --programs build/release/bench "$@"
}
