# The wheel as users get it: built in isolation from a source archive, both into dist/, and tested
# in an environment with nothing but the wheel and its requirements.

make_wheel() {
    use_compiler
    rm -rf dist build/wheel
    "$VENV/bin/python" -c 'from scikit_build_core.build import build_sdist; build_sdist("dist")' >/dev/null
    # Unpacked where its relative paths equal those of build/python: ccache has the library already.
    mkdir -p build/wheel
    tar -xzf dist/penstock-*.tar.gz -C build/wheel --strip-components=1
    "$VENV/bin/pip" wheel -qq --no-deps -w dist -C build-dir=build/python -C cmake.define.PENSTOCK_WERROR=ON build/wheel
    ls -l dist
}

try_wheel() {
    local clean
    clean=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$clean'" EXIT
    "$PYTHON" -m venv "$clean/venv"
    "$clean/venv/bin/pip" install -qq dist/penstock-*.whl
    # Run in another folder, so that the source tree can't stand in for the wheel.
    cp tests/package/wheel_smoke.py "$clean/"
    (cd "$clean" && venv/bin/python wheel_smoke.py && venv/bin/penstock --help >/dev/null)
}

run_wheel() {
    setup_system
    setup_venv
    must "build the wheel" make_wheel
    must "try the wheel" try_wheel
    finish_report
}
