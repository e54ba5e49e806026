# A real vLLM on Penstock: its environment build/vllm, its source archive build/vllm-src with the
# tests that its wheel leaves out, and tests/real/vllm. Not a part of `./dev test`: 3 GB, and each
# engine takes a minute to start on two processors.

VLLM=0.32.0  # as in environments/vllm.txt

# The CUDA build of torchvision, whose compiled module can't be loaded here: vLLM needs its Python
# part only, which then must not register that module's operators.
make_torchvision_load() {
    local site
    site=$(site_packages build/vllm)
    sed -i '/_autograd_registrations,$/d; /_meta_registrations,$/d' "$site/torchvision/__init__.py"
}

# make_vllm_source: build/vllm-src. pip asks a source for its metadata, which is had without
# compiling.
make_vllm_source() {
    local stamp=build/vllm-src/.made-$VLLM
    [ ! -e "$stamp" ] || return 0
    say "unpacking into build/vllm-src: vllm==$VLLM"
    rm -rf build/vllm-src
    mkdir -p build/vllm-src
    VLLM_VERSION_OVERRIDE=$VLLM VLLM_TARGET_DEVICE=empty PATH="$ROOT/build/vllm/bin:$PATH" \
        build/vllm/bin/pip download -qq --no-deps --no-binary :all: --no-build-isolation \
        -d build/vllm-src "vllm==$VLLM" || return 1
    tar -xzf build/vllm-src/vllm-*.tar.gz -C build/vllm-src --strip-components=1 || return 1
    rm build/vllm-src/vllm-*.tar.gz
    touch "$stamp"
}

make_vllm() {
    make_environment vllm || return 1
    make_torchvision_load
    make_vllm_source
}

need_vllm() {
    make_vllm || skip "the environment build/vllm cannot be made here"
}

check_vllm() {
    PENSTOCK_VLLM=1 build/vllm/bin/python -m penstock.cli.main vllm check
}

# test_vllm [ARGUMENT...]: arguments are pytest's.
test_vllm() {
    local run=(own_shm)
    own_shm true 2>/dev/null || run=(env)
    "${run[@]}" env -u PYTHONDONTWRITEBYTECODE "$ROOT/build/vllm/bin/python" -m pytest -q \
        -p no:cacheprovider tests/real/vllm "$@" </dev/null
}

bench_vllm() {
    build/vllm/bin/python bench/python/bench_vllm.py --json build/bench-vllm.json
}

# run_vllm [ARGUMENT...]: everything, or with arguments only the tests that pytest selects by them.
run_vllm() {
    setup_package
    setup_torch
    must "environment: vllm" need_vllm
    step "penstock vllm check" check_vllm
    step "vLLM on Penstock" test_vllm "$@"
    [ $# -gt 0 ] || step "bench: vLLM's modules and Penstock's" bench_vllm
    finish_report
}
