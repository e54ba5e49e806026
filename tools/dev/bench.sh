# The benchmark: compiled without crash points, run beside its peers by bench/run.py.

setup_bench() {
    setup_system "${SYSTEM_BENCH[@]}"
    setup_venv bench
    install_package
    build_tree release
}

run_bench() {
    setup_bench
    exec "$VENV/bin/python" bench/run.py --programs build/release/bench "$@"
}
