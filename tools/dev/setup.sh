# Installs what a fresh machine lacks: system packages, the virtual environment, the package in it.
# Each part checks first and does nothing if everything is there.

VENV=$ROOT/.venv
STAMPS=$VENV/.penstock
JOBS=${PENSTOCK_JOBS:-$(nproc)}
PYTHON=${PENSTOCK_PYTHON:-python3}
TORCH=torch==2.13.0+cpu  # the CPU build: the default one brings gigabytes of CUDA
LLVM=19

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

SYSTEM_BUILD=(python3 g++ cmake ninja-build python3-venv python3-dev libxxhash-dev)
SYSTEM_BUILD_WISH=(ccache libhiredis-dev)  # without hiredis, stores have no second tier
SYSTEM_TEST=(libgtest-dev git)
SYSTEM_TEST_WISH=(redis-server)  # tests that start a server skip without it
SYSTEM_LINT=("clang-format-$LLVM" shellcheck)
SYSTEM_FUZZ=("clang-$LLVM" "libclang-rt-$LLVM-dev" "llvm-$LLVM")
SYSTEM_BENCH=(libboost-dev libzmq3-dev redis-server)

# have PACKAGE: whether its contents are there, from whatever source.
have() {
    case "$1" in
        python3) command -v "$PYTHON" >/dev/null ;;
        g++) pick_compiler >/dev/null ;;
        ninja-build) command -v ninja >/dev/null ;;
        python3-venv) "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null ;;
        python3-dev)
            "$PYTHON" -c 'import os, sysconfig
raise SystemExit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' 2>/dev/null
            ;;
        libgtest-dev) [ -e /usr/include/gtest/gtest.h ] ;;
        libxxhash-dev) [ -e /usr/include/xxhash.h ] ;;
        libhiredis-dev) [ -e /usr/include/hiredis/hiredis.h ] ;;
        redis-server) command -v redis-server >/dev/null || command -v valkey-server >/dev/null ;;
        libboost-dev) [ -e /usr/include/boost/version.hpp ] ;;
        libzmq3-dev) [ -e /usr/include/zmq.h ] ;;
        libclang-rt-*-dev) compgen -G "/usr/lib/llvm-$LLVM/lib/clang/*/lib/linux/libclang_rt.fuzzer*" >/dev/null ;;
        llvm-*) [ -x "/usr/lib/llvm-$LLVM/bin/llvm-symbolizer" ] ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

lacking() {
    local package
    for package in "$@"; do
        have "$package" || printf '%s ' "$package"
    done
}

# The compiler to build with: $CXX, or the first g++ that is recent enough.
pick_compiler() {
    local candidate
    for candidate in ${CXX:-g++ g++-14 g++-13 g++-12}; do
        if command -v "$candidate" >/dev/null && compiles_cxx20 "$candidate"; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    return 1
}

compiles_cxx20() {
    [ -n "${CXX:-}" ] || [ "$("$1" -dumpversion | cut -d. -f1)" -ge 12 ]
}

# as_root COMMAND...: as root, by sudo without a password, or by sudo at a terminal; otherwise
# fails.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        env DEBIAN_FRONTEND=noninteractive "$@"
    elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        sudo env DEBIAN_FRONTEND=noninteractive "$@"
    else
        return 1
    fi
}

# apt_install PACKAGE...: installs those that this release has; shows apt's output on failure.
apt_install() {
    command -v apt-get >/dev/null && as_root true || return 1
    local package known=() log
    log=$(mktemp)
    if [ -z "${APT_UPDATED:-}" ]; then
        as_root apt-get -qq update >"$log" 2>&1 || cat "$log"
        APT_UPDATED=1
    fi
    for package in "$@"; do
        # Not through a pipe: with pipefail, a reader that stops early makes the writer's SIGPIPE
        # count as a failure.
        if [[ $(LC_ALL=C apt-cache policy "$package") =~ Candidate:\ [^\(] ]]; then
            known+=("$package")
        fi
    done
    if [ ${#known[@]} -gt 0 ]; then
        say "installing: ${known[*]}"
        as_root apt-get -qq install -y --no-install-recommends "${known[@]}" >"$log" 2>&1 || cat "$log"
    fi
    rm -f "$log"
}

# wish_system PACKAGE...: installs missing packages, and goes on without those that can't be had.
wish_system() {
    local missing
    missing=$(lacking "$@")
    [ -n "$missing" ] || return 0
    # shellcheck disable=SC2086
    apt_install $missing || true
    # If the release's default g++ is too old, a newer one has its own package.
    if [[ " $(lacking "$@")" == *" g++ "* ]]; then
        apt_install g++-12 || true
    fi
}

# need_system PACKAGE...: the same, but stops and names in one line what could not be had.
need_system() {
    local missing
    wish_system "$@"
    missing=$(lacking "$@")
    [ -z "$missing" ] || die "missing: ${missing}(as root: apt-get install ${missing% })"
}

check_python() {
    "$PYTHON" -c 'import sys; raise SystemExit(sys.version_info < (3, 10))' 2>/dev/null ||
        die "missing: Python 3.10 or newer as $PYTHON (or name another in PENSTOCK_PYTHON)"
}

# setup_system [PACKAGE...]: installs what every build needs, and these, in one go.
setup_system() {
    wish_system "${SYSTEM_BUILD[@]}" "${SYSTEM_BUILD_WISH[@]}" "$@"
    need_system "${SYSTEM_BUILD[@]}"
    check_python
}

# make_venv: .venv itself. Environments and build trees contain absolute paths: in a moved folder
# they are made anew.
make_venv() {
    if [ "$(cat "$STAMPS/root" 2>/dev/null)" = "$ROOT" ] && "$VENV/bin/python" -c ''; then
        return 0
    fi
    rm -rf "$VENV" build
    "$PYTHON" -m venv "$VENV"
    mkdir -p "$STAMPS"
    printf '%s\n' "$ROOT" >"$STAMPS/root"
}

# install_groups GROUP...: installs these groups of pyproject.toml, once for each state of it.
install_groups() {
    local wanted stamp
    # The distribution's pip may be too old to pass settings to a build.
    wanted=$(echo 'pip>=23.1' && "$VENV/bin/python" tools/dev/requirements.py "$@")
    stamp=$STAMPS/requirements-$(sha256sum <<<"$wanted" | cut -c1-16)
    [ ! -e "$stamp" ] || return 0
    say "installing into .venv: $(tr '\n' ' ' <<<"$wanted")"
    "$VENV/bin/pip" install -qq -r <(printf '%s\n' "$wanted") || return 1
    touch "$stamp"
}

# setup_venv EXTRA...: .venv with what building and running need, and these extras of
# pyproject.toml.
setup_venv() {
    make_venv
    install_groups build runtime "$@"
}

# PyTorch for its tests, if pip finds the CPU build; required in CI.
setup_torch() {
    "$VENV/bin/python" -c 'import torch' 2>/dev/null && return 0
    [ ! -e "$STAMPS/no-$TORCH" ] || return 0
    say "installing into .venv: $TORCH"
    local errors
    errors=$("$VENV/bin/pip" install -qq "$TORCH" 2>&1) && return 0
    [ -z "${CI:-}" ] || die "$errors" $'\n'"$TORCH cannot be had, and its tests must run in CI"
    say "$TORCH cannot be had: its tests will be skipped"
    touch "$STAMPS/no-$TORCH"
}

# A fingerprint of everything that goes into the package.
package_fingerprint() {
    {
        "$VENV/bin/python" --version
        find CMakeLists.txt pyproject.toml cmake include src python -type f \
            ! -path '*/__pycache__/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    } | sha256sum | cut -c1-16
}

# Compiles and installs the package as users get it, from this tree, if a source has changed. The
# build folder stays, so that only changes are compiled.
install_package() {
    local fingerprint site
    # `penstock demo` is in examples/, which the wheel leaves out.
    site=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    printf '%s\n' "$ROOT/examples" >"$site/penstock_examples.pth"
    fingerprint=$(package_fingerprint)
    if [ "$(cat "$STAMPS/package" 2>/dev/null)" = "$fingerprint" ]; then
        return 0
    fi
    say "building and installing the Python package"
    use_compiler
    "$VENV/bin/pip" install -qq --no-build-isolation --no-deps "$ROOT" \
        -C build-dir=build/python -C cmake.define.PENSTOCK_WERROR=ON
    printf '%s\n' "$fingerprint" >"$STAMPS/package"
}

setup_package() {
    setup_system
    setup_venv
    install_package
}
