# Static checks: layout, clang-tidy, ruff, mypy, shell scripts, floors.

cxx_files() { git ls-files -co --exclude-standard -- '*.hpp' '*.cpp'; }
shell_files() { printf '%s\n' dev .ci/run tools/dev/*.sh; }

# The clang-format of the version that the repository uses: Debian's, or pip's if that is missing.
clang_format() {
    if command -v "clang-format-$LLVM" >/dev/null; then
        say "clang-format-$LLVM"
    else
        from_pip clang-format==19.1.7
    fi
}

# From pip, not from the distribution: since 22 clang-tidy skips the bodies of system headers, which
# makes it three times as fast.
clang_tidy() { from_pip clang-tidy==23.1.4; }

# from_pip TOOL==VERSION: the path of the tool in .venv.
from_pip() {
    local tool=${1%%==*}
    [ "$("$VENV/bin/pip" list --format=freeze 2>/dev/null | grep -x "$1")" ] || "$VENV/bin/pip" install -qq "$1" >&2
    say "$VENV/bin/$tool"
}

lint_layout() {
    cxx_files | xargs -r "$(clang_format)" --dry-run -Werror
    "$VENV/bin/ruff" format --check .
}

lint_python() {
    "$VENV/bin/ruff" check .
    "$VENV/bin/mypy" -p penstock -p penstock_demo
}

lint_shell() {
    shell_files | xargs -n 1 bash -n
    if command -v shellcheck >/dev/null; then
        shell_files | xargs shellcheck --severity=warning --shell=bash --exclude=SC2034,SC2120
    fi
}

lint_floors() { "$VENV/bin/python" tools/dev/floors.py; }

# Uses the compile commands of build/dev and build/python; checks a file again only if it, or a file
# that it includes, has changed. The short tier skips files that are equal in the upstream branch.
lint_tidy() {
    local scope=()
    [ "${TIER:-full}" = full ] || scope=(--changed)
    "$VENV/bin/python" tools/dev/tidy.py --clang-tidy "$(clang_tidy)" --jobs "$JOBS" "${scope[@]}" \
        build/dev build/python
}

setup_lint() {
    setup_system "${SYSTEM_TEST[@]}" "${SYSTEM_LINT[@]}"
    need_system "${SYSTEM_TEST[@]}"
    setup_venv test
    install_package
    build_tree dev
}

quick_lint_steps() {
    step "lint: layout" lint_layout
    step "lint: floors" lint_floors
    step "lint: shell" lint_shell
    step "lint: python" lint_python
}

lint_steps() {
    quick_lint_steps
    step "lint: clang-tidy" lint_tidy
}

run_lint() {
    must "set-up" setup_lint
    lint_steps
    finish_report
}

run_format() {
    setup_system "${SYSTEM_LINT[@]}"
    setup_venv test
    cxx_files | xargs -r "$(clang_format)" -i
    "$VENV/bin/ruff" check --fix-only -q .
    "$VENV/bin/ruff" format .
}
