# The wheel as a stranger gets it: built in isolation from a source archive, both into dist/, and tried
# in an environment that has nothing but the wheel and what it asks for.

make_wheel() {
    use_compiler
    rm -rf dist
    "$VENV/bin/python" -c 'from scikit_build_core.build import build_sdist; build_sdist("dist")' >/dev/null
    "$VENV/bin/pip" wheel -qq --no-deps -w dist dist/penstock-*.tar.gz
    ls -l dist
}

try_wheel() {
    local clean
    clean=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$clean'" EXIT
    "$PYTHON" -m venv "$clean/venv"
    "$clean/venv/bin/pip" install -qq dist/penstock-*.whl
    # From another folder, so that the source tree cannot stand in for the wheel.
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
