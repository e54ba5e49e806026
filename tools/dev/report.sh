# Steps that a person can follow: a heading, the output, the time; at the end a table of all of them. A step may have
# a budget of time: `budget` in budget.sh judges it.
# A step that needs what this machine has not returns `skip "why"`; in CI that counts as a failure.

SKIP_CODE=77
STEP_ROWS=()
STEPS_PASSED=0
STEPS_FAILED=0
STEPS_SKIPPED=0
SKIP_FILE=""
STEP_OK=1
FAILURES=""  # what failed steps printed of it, for the end of the report

if [ -t 1 ]; then
    BOLD=$'\e[1m' RED=$'\e[31m' GREEN=$'\e[32m' YELLOW=$'\e[33m' PLAIN=$'\e[0m'
else
    BOLD="" RED="" GREEN="" YELLOW="" PLAIN=""
fi

say() { printf '%s\n' "$*"; }
heading() { printf '\n%s==> %s%s\n' "$BOLD" "$*" "$PLAIN"; }
die() {
    printf '%s%s%s\n' "$RED" "$*" "$PLAIN" >&2
    exit 1
}

# Inside a step: give it up, and say why.
skip() {
    printf '%s' "$*" >"$SKIP_FILE"
    exit "$SKIP_CODE"
}

# step "name" command...: runs the command in a subshell, so that no step changes the next one's world.
# Tells the outcome in STEP_OK and not by its status: bash switches `set -e` off inside whatever is called
# in an `if` or before `||`, and a step would run on past its own errors.
step() {
    local name=$1 started=$SECONDS code=0 outcome log both reader
    shift
    STEP_OK=1
    SKIP_FILE=${SKIP_FILE:-$(mktemp)}
    : >"$SKIP_FILE"
    heading "$name"
    local before left
    before=$(segments)
    budget_start
    log=$(mktemp)
    exec {both}> >(exec tee "$log")
    reader=$!
    set +e
    (
        exec >&"$both" 2>&1 {both}>&-
        set -e
        "$@"
    )
    code=$?
    exec {both}>&-
    await_end "$reader"
    set -e
    left=$(left_behind "$before")
    if [ -n "$left" ]; then
        say "left behind in /dev/shm:" "$left"
        [ "$code" -ne 0 ] || code=1
    fi
    local seconds=$((SECONDS - started)) over
    over=$(budget_judge "$name" "$seconds")
    if [ "$code" -eq 0 ] && [[ $over == FAILED* ]]; then
        outcome="${RED}$over${PLAIN}" STEPS_FAILED=$((STEPS_FAILED + 1)) STEP_OK=0
    elif [ "$code" -eq 0 ]; then
        outcome="${GREEN}passed${PLAIN}${over:+  ${YELLOW}$over${PLAIN}}" STEPS_PASSED=$((STEPS_PASSED + 1))
    elif [ "$code" -eq "$SKIP_CODE" ] && [ -z "${CI:-}" ]; then
        outcome="${YELLOW}skipped${PLAIN}: $(cat "$SKIP_FILE")" STEPS_SKIPPED=$((STEPS_SKIPPED + 1))
    else
        outcome="${RED}FAILED${PLAIN} $(cat "$SKIP_FILE")" STEPS_FAILED=$((STEPS_FAILED + 1)) STEP_OK=0
    fi
    printf '    %s %s in %d s\n' "$name" "$outcome" "$seconds"
    STEP_ROWS+=("$(printf '%5d s  %-28s %s' "$seconds" "$name" "$outcome")")
    [ "$STEP_OK" -eq 1 ] || FAILURES+=$(printf '\n%s: ' "$name" && say "$left" && failing_lines "$log")$'\n'
    rm -f "$log"
}

# await_end PID: until it has ended, but no longer than five seconds: something that a step left running may still
# hold what PID reads from.
await_end() {
    local tries=100
    while [ "$tries" -gt 0 ] && kill -0 "$1" 2>/dev/null; do
        tries=$((tries - 1))
        sleep 0.05
    done
}

# failing_lines LOG: the lines by which compilers, ctest, GoogleTest, pytest, sanitizers and fuzzers say what is wrong.
failing_lines() {
    local wrong='^FAILED |^BROKEN |^ERROR |\*\*\*|\[  FAILED|: Failure$|error:|^E  |Sanitizer|^SUMMARY|deadly signal'
    wrong+='|what\(\):|left behind|\((Failed|Timeout|SEGFAULT)\)|failed:|Error:|timed out'
    # There may be none: a step may fail without a word.
    grep -E -A1 "$wrong" "$1" | cut -c1-300 | tail -n 80 || true
}

# A step without which the others mean nothing: stop when it fails.
must() {
    step "$@"
    [ "$STEP_OK" -eq 1 ] || finish_report || exit 1
}

# What of ours lies in shared memory, one name a line, sorted for comm.
segments() {
    find /dev/shm -maxdepth 1 -name 'penstock.*' 2>/dev/null | LC_ALL=C sort
}

# left_behind BEFORE: what has come into shared memory since. On a person's machine other programs may
# be at work with Penstock: what a living process has mapped is not counted there.
left_behind() {
    local segment
    while read -r segment; do
        if [ -e "$segment" ] && { [ -n "${CI:-}" ] || ! is_mapped "$segment"; }; then
            say "$segment"
        fi
    done < <(LC_ALL=C comm -13 <(say "$1") <(segments))
}

# By inode: a file that was made without a name and linked later is listed under no name.
is_mapped() {
    local inode
    inode=$(stat -c %i "$1" 2>/dev/null) || return 0
    [ -n "$(grep -lsE " $inode +/dev/shm/" /proc/[0-9]*/maps)" ]
}

# How much of the processors was in use since the command began: little says that it waits, much that it computes.
processors_used() {
    say "$REPORT_CLOCK $(machine_ticks)" |
        awk '{ printf "%d %% of the processors in use", ($4 > $2 ? 100 * ($3 - $1) / ($4 - $2) : 0) }'
}
REPORT_CLOCK=$(machine_ticks)

# The table, and the closing line; fails when a step did.
finish_report() {
    if [ -n "$FAILURES" ]; then
        heading "What failed"
        say "$FAILURES"
    fi
    heading "Summary"
    printf '%s\n' "${STEP_ROWS[@]}"
    [ -z "$SKIP_FILE" ] || rm -f "$SKIP_FILE"
    printf '%7s  in all; %s\n' "$SECONDS s" "$(processors_used)"
    [ -z "${LANE_FOLDER:-}" ] || lane_report
    say
    budget_report
    printf 'steps: %d passed, %d failed, %d skipped\n' "$STEPS_PASSED" "$STEPS_FAILED" "$STEPS_SKIPPED"
    [ "$STEPS_FAILED" -eq 0 ]
}
