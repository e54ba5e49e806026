# The fuzzers: libFuzzer programs from fuzz/*_fuzz.cpp, each with its seeds in fuzz/corpus/NAME. What they
# find to be new goes to build/fuzz/corpus/NAME, what breaks to build/fuzz/NAME-*.

build_fuzz() {
    need_clang
    compgen -G 'fuzz/*_fuzz.cpp' >/dev/null || skip "no fuzzers"
    build_tree fuzz
}

# fuzz_one NAME SECONDS
fuzz_one() {
    local name=$1 seconds=$2 seeds=fuzz/corpus/$1 found=build/fuzz/corpus/$1
    [ -d "$seeds" ] || die "no seeds in $seeds"
    mkdir -p "$found"
    say "$name for $seconds s"
    "build/fuzz/fuzz/${name}_fuzz" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
        -print_final_stats=1 -artifact_prefix="build/fuzz/$name-" "$found" "$seeds"
}

# fuzz_all SECONDS [NAME]
fuzz_all() {
    build_fuzz
    local program name
    for program in build/fuzz/fuzz/${2:-*}_fuzz; do
        [ -x "$program" ] || die "no fuzzer called ${2:-}"
        name=$(basename "$program" _fuzz)
        fuzz_one "$name" "$1"
    done
}

run_fuzz() {
    local name=${1:-} seconds=${2:-60}
    if [[ $name =~ ^[0-9]+$ ]]; then
        seconds=$name name=""
    fi
    setup_system "${SYSTEM_FUZZ[@]}"
    need_system "${SYSTEM_FUZZ[@]}"
    must "fuzz" fuzz_all "$seconds" "$name"
    finish_report
}
