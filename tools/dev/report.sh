# Readable steps: a heading, the output, the time; at the end a table of all of them. A step may
# have a budget of time: see `budget` in budget.sh. A step that needs something this machine lacks
# returns `skip "why"`; in CI that counts as a failure.

SKIP_CODE=77
STEP_ROWS=()
STEPS_PASSED=0
STEPS_FAILED=0
STEPS_SKIPPED=0
SKIP_FILE=""
STEP_OK=1
FAILURES=""  # output of failed steps, for the end of the report

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

# Within a step: gives it up, with a reason.
skip() {
    printf '%s' "$*" >"$SKIP_FILE"
    exit "$SKIP_CODE"
}

# step "name" command...: runs the command in a subshell, so that no step changes the environment of
# the next. Returns the outcome in STEP_OK and not as its status: bash disables `set -e` in commands
# of an `if` or before `||`, and a step would continue after its own errors.
step() {
    local name=$1 started=$SECONDS code=0 outcome log both reader
    shift
    STEP_OK=1
    SKIP_FILE=${SKIP_FILE:-$(mktemp)}
    : >"$SKIP_FILE"
    heading "$name"
    local before left spent
    before=$(segments)
    spent=$(mktemp)
    times >"$spent"
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
    local seconds=$((SECONDS - started)) over processors
    times >>"$spent"
    processors=$(children_seconds "$spent")
    rm -f "$spent"
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
    printf '    %s %s in %d s (%d s of a processor)\n' "$name" "$outcome" "$seconds" "$processors"
    STEP_ROWS+=("$(printf '%5d s %5d s  %-28s %s' "$seconds" "$processors" "$name" "$outcome")")
    [ "$STEP_OK" -eq 1 ] || FAILURES+=$(printf '\n%s: ' "$name" && say "$left" && failing_lines "$log")$'\n'
    rm -f "$log"
}

# children_seconds FILE: processor time of ended children between two outputs of `times`, which must
# run in the shell that has them.
children_seconds() {
    awk 'NR % 2 == 0 {
        for (at = 1; at <= 2; at++) { split($at, part, /[ms]/); sum[NR] += 60 * part[1] + part[2] }
    } END { printf "%d", sum[4] - sum[2] }' "$1"
}

# await_end PID: waits until it has ended, at most five seconds: a process left running by a step
# may hold PID's input open.
await_end() {
    local tries=100
    while [ "$tries" -gt 0 ] && kill -0 "$1" 2>/dev/null; do
        tries=$((tries - 1))
        sleep 0.05
    done
}

# failing_lines LOG: the lines in which compilers, ctest, GoogleTest, pytest, sanitizers and fuzzers
# report failures.
failing_lines() {
    local wrong='^FAILED |^BROKEN |^ERROR |\*\*\*|\[  FAILED|: Failure$|error:|^E  |Sanitizer|^SUMMARY|deadly signal'
    wrong+='|what\(\):|left behind|\((Failed|Timeout|SEGFAULT)\)|failed:|Error:|timed out'
    # There may be none: a step may fail without any output.
    grep -E -A1 "$wrong" "$1" | cut -c1-300 | tail -n 80 || true
}

# must: a step without which the rest is meaningless: stops if it fails.
must() {
    step "$@"
    [ "$STEP_OK" -eq 1 ] || finish_report || exit 1
}

# Penstock's files in shared memory, one name a line, sorted for comm.
segments() {
    find /dev/shm -maxdepth 1 -name 'penstock.*' 2>/dev/null | LC_ALL=C sort
}

# left_behind BEFORE: files that have appeared in shared memory since. On a developer's machine
# other programs may use Penstock: files that a living process has mapped are not counted there.
left_behind() {
    local segment
    while read -r segment; do
        if [ -e "$segment" ] && { [ -n "${CI:-}" ] || ! is_mapped "$segment"; }; then
            say "$segment"
        fi
    done < <(LC_ALL=C comm -13 <(say "$1") <(segments))
}

# By inode: a file created without a name and linked later is listed without a name.
is_mapped() {
    local inode
    inode=$(stat -c %i "$1" 2>/dev/null) || return 0
    [ -n "$(grep -lsE " $inode +/dev/shm/" /proc/[0-9]*/maps)" ]
}

# Use of the processors since the command began: low if it waits, high if it computes.
processors_used() {
    say "$REPORT_CLOCK $(machine_ticks)" |
        awk '{ printf "%d %% of the processors in use", ($4 > $2 ? 100 * ($3 - $1) / ($4 - $2) : 0) }'
}
REPORT_CLOCK=$(machine_ticks)

# Prints the table and the closing line; fails if a step did.
finish_report() {
    if [ -n "$FAILURES" ]; then
        heading "What failed"
        say "$FAILURES"
    fi
    heading "Summary"
    say "   time  processors"
    printf '%s\n' "${STEP_ROWS[@]}"
    [ -z "$SKIP_FILE" ] || rm -f "$SKIP_FILE"
    printf '%7s  in all; %s\n' "$SECONDS s" "$(processors_used)"
    [ -z "${LANE_FOLDER:-}" ] || lane_report
    say
    budget_report
    printf 'steps: %d passed, %d failed, %d skipped\n' "$STEPS_PASSED" "$STEPS_FAILED" "$STEPS_SKIPPED"
    [ "$STEPS_FAILED" -eq 0 ]
}
