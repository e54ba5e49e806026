# Everything that is judged without running it: layout, clang-tidy, ruff, mypy, shell scripts, floors.

cxx_files() { git ls-files -co --exclude-standard -- '*.hpp' '*.cpp'; }
shell_files() { printf '%s\n' dev .ci/run tools/dev/*.sh; }

# The tool of the version that the repository is formatted with: Debian's, or pip's where there is none.
llvm_tool() {
    local tool=$1 pinned=$2
    if command -v "$tool-$LLVM" >/dev/null; then
        printf '%s\n' "$tool-$LLVM"
        return 0
    fi
    [ -x "$VENV/bin/$tool" ] || "$VENV/bin/pip" install -qq "$tool==$pinned" >&2
    printf '%s\n' "$VENV/bin/$tool"
}

clang_format() { llvm_tool clang-format 19.1.7; }
clang_tidy() { llvm_tool clang-tidy 19.1.0; }

lint_layout() {
    cxx_files | xargs -r "$(clang_format)" --dry-run -Werror
    "$VENV/bin/ruff" format --check .
}

lint_python() {
    "$VENV/bin/ruff" check .
    "$VENV/bin/mypy" -p penstock
}

lint_shell() {
    shell_files | xargs -n 1 bash -n
    if command -v shellcheck >/dev/null; then
        shell_files | xargs shellcheck --severity=warning --shell=bash --exclude=SC2034,SC2120
    fi
}

lint_floors() { "$VENV/bin/python" tools/dev/floors.py; }

# Reads the compile commands of build/dev and build/python; a file is checked again only when it, or
# something that it includes, has changed.
lint_tidy() {
    "$VENV/bin/python" tools/dev/tidy.py --clang-tidy "$(clang_tidy)" --jobs "$JOBS" build/dev build/python
}

setup_lint() {
    setup_system "${SYSTEM_TEST[@]}" "${SYSTEM_LINT[@]}"
    need_system "${SYSTEM_TEST[@]}"
    setup_venv test
    install_package
    build_tree dev
}

lint_steps() {
    step "lint: layout" lint_layout
    step "lint: floors" lint_floors
    step "lint: shell" lint_shell
    step "lint: python" lint_python
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
