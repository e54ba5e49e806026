# The benchmark: compiled without crash points, run beside its peers by bench/run.py.

setup_bench() {
    setup_system "${SYSTEM_BENCH[@]}"
    setup_venv bench http
    install_groups peers || say "going on without the peers that have no wheel here"
    install_package
    build_tree release
}

# Runs every benchmark briefly: checks that all of them run, and verify what they receive.
try_bench() {
    "$VENV/bin/python" bench/run.py --quick --programs build/release/bench --json build/bench-quick.json
}

run_bench() {
    setup_bench
    exec "$VENV/bin/python" bench/run.py --programs build/release/bench "$@"
}
