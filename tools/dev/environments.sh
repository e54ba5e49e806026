# Environments of the real programs that use Penstock: build/atropos and build/lmcache. Every
# package is pinned in environments/NAME.txt and installed without its dependencies: pip resolves
# nothing (which alone takes minutes), does not replace the CPU build of PyTorch, and installs no
# CUDA. PyTorch and Penstock are links to those of .venv: neither is unpacked or built again.

ENVIRONMENTS=(atropos lmcache)
LMCACHE=lmcache==0.5.6  # as in environments/lmcache.txt

# environment_stamp NAME: a file that exists if build/NAME matches its list, at this path.
environment_stamp() {
    local state
    state=$({
        printf '%s\n' "$ROOT"
        "$PYTHON" --version
        cat "tools/dev/environments/$1.txt"
    } | sha256sum | cut -c1-16)
    printf '%s\n' "build/$1/.made-$state"
}

site_packages() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }

# link_packages NAME: links PyTorch and Penstock, with pip's metadata, to those in .venv.
link_packages() {
    local from to package
    from=$(site_packages "$VENV")
    to=$(site_packages "build/$1")
    find "$to" -maxdepth 1 -type l -delete
    for package in torch torchgen functorch penstock; do
        [ ! -e "$from/$package" ] || ln -s "$from/$package" "$to/"
    done
    for package in "$from"/torch-*.dist-info "$from"/penstock-*.dist-info; do
        [ ! -e "$package" ] || ln -s "$package" "$to/"
    done
}

# make_environment NAME: makes build/NAME, anew if its list has changed; fails if packages can't be
# had.
make_environment() {
    local stamp
    [ -e "$(site_packages "$VENV")/torch" ] || return 1
    stamp=$(environment_stamp "$1")
    if [ ! -e "$stamp" ]; then
        say "installing into build/$1: what tools/dev/environments/$1.txt lists"
        rm -rf "build/$1"
        "$PYTHON" -m venv "build/$1" || return 1
        # Modules are compiled when they are imported: most of these files never are.
        "build/$1/bin/pip" install -qq --no-deps --no-compile -r "tools/dev/environments/$1.txt" || return 1
        touch "$stamp"
    fi
    link_packages "$1"
}

# make_lmcache_source: build/lmcache-src, the source archive, which has the tests that the wheel
# leaves out. pip builds a source to ask for its version: keeps it from building native code for
# that.
make_lmcache_source() {
    local archive stamp=build/lmcache-src/.made-$LMCACHE
    [ ! -e "$stamp" ] || return 0
    say "unpacking into build/lmcache-src: $LMCACHE"
    rm -rf build/lmcache-src
    mkdir -p build/lmcache-src
    NO_NATIVE_EXT=1 build/lmcache/bin/pip download -qq --no-deps --no-binary :all: --no-build-isolation \
        -d build/lmcache-src "$LMCACHE" || return 1
    archive=$(echo build/lmcache-src/*.tar.gz)
    tar -xzf "$archive" -C build/lmcache-src --strip-components=1 || return 1
    rm "$archive"
    touch "$stamp"
}

# make_real NAME: makes everything that tests/real/NAME needs.
make_real() {
    make_environment "$1" || return 1
    [ "$1" != lmcache ] || make_lmcache_source
}

# need_real NAME: within a step: makes it, or skips the step with a reason (which fails in CI).
need_real() {
    make_real "$1" || skip "the environment build/$1 cannot be made here"
}

# is_real_made NAME: whether it exists already.
is_real_made() {
    [ -e "$(environment_stamp "$1")" ] && { [ "$1" != lmcache ] || [ -e "build/lmcache-src/.made-$LMCACHE" ]; }
}

run_environments() {
    local name
    setup_package
    setup_torch
    for name in "${ENVIRONMENTS[@]}"; do
        must "environment: $name" need_real "$name"
    done
    finish_report
}

# test_real NAME: runs tests/real/NAME by the interpreter of build/NAME, in a /dev/shm of its own if
# possible. The short tier uses an existing environment and makes none, which costs more than its
# tests.
test_real() {
    local run=(own_shm)
    compgen -G "tests/real/$1/test_*.py" >/dev/null || skip "no tests in tests/real/$1"
    if [ "$TIER" = full ]; then
        lane_collect "environment-$1"
    elif [ -z "${CI:-}" ] && ! is_real_made "$1"; then
        skip "build/$1 is not there: ./dev environments makes it"
    fi
    need_real "$1"
    own_shm true 2>/dev/null || run=(env)
    # Compiled once for all processes of all tests, whatever the shell's setting: lmcache imports
    # 3000 modules.
    "${run[@]}" env -u PYTHONDONTWRITEBYTECODE "$ROOT/build/$1/bin/python" -m pytest -q -p no:cacheprovider "tests/real/$1" </dev/null
}
