# The fuzzers: libFuzzer programs from fuzz/*_fuzz.cpp, each with its seeds in fuzz/corpus/NAME. New
# inputs go to build/fuzz/corpus/NAME, failing ones to build/fuzz/NAME-*. And fuzz/*_fuzz.py, for
# fuzzers that need sockets and the Python package: they take --seconds and --seed, bound their own
# memory, and print the seed.

build_fuzz() {
    need_clang
    compgen -G 'fuzz/*_fuzz.cpp' >/dev/null || skip "no fuzzers"
    build_tree fuzz
}

# fuzz_one NAME SECONDS
fuzz_one() {
    local name=$1 seconds=$2 seeds=fuzz/corpus/$1 found=build/fuzz/corpus/$1
    if [ -e "fuzz/${name}_fuzz.py" ]; then
        say "$name for $seconds s"
        timeout $((seconds * 3 + 120)) "$VENV/bin/python" "fuzz/${name}_fuzz.py" --seconds "$seconds"
        return
    fi
    [ -d "$seeds" ] || { say "no seeds in $seeds"; return 1; }
    mkdir -p "$found"
    say "$name for $seconds s"
    "build/fuzz/fuzz/${name}_fuzz" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
        -print_final_stats=1 -artifact_prefix="build/fuzz/$name-" "$found" "$seeds"
}

# fuzz_built SECONDS [NAME]: runs as many at a time as there are processors, because each has one
# thread. Prints the output of each at its end, in one piece.
fuzz_built() {
    local program names=()
    for program in build/fuzz/fuzz/${2:-*}_fuzz fuzz/${2:-*}_fuzz.py; do
        [ ! -e "$program" ] || names+=("$(basename "${program%.py}" _fuzz)")
    done
    [ ${#names[@]} -gt 0 ] || die "no fuzzer called ${2:-}"
    export -f fuzz_one say
    export VENV
    mkdir -p build/fuzz
    printf '%s\n' "${names[@]}" |
        xargs -P "$JOBS" -I NAME bash -ec 'fuzz_one NAME "$1" >build/fuzz/NAME.log 2>&1 && code=0 || code=$?
            cat build/fuzz/NAME.log; exit $code' fuzz "$1"
}

# fuzz_all SECONDS [NAME]
fuzz_all() {
    build_fuzz
    fuzz_built "$@"
}

run_fuzz() {
    local name=${1:-} seconds=${2:-60}
    if [[ $name =~ ^[0-9]+$ ]]; then
        seconds=$name name=""
    fi
    setup_system "${SYSTEM_FUZZ[@]}"
    need_system "${SYSTEM_FUZZ[@]}"
    if [ -z "$name" ] || [ -e "fuzz/${name}_fuzz.py" ]; then
        setup_venv test
        must "build: python package" install_package
    fi
    must "fuzz" fuzz_all "$seconds" "$name"
    finish_report
}
