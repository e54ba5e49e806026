# The lane: jobs that compute and touch no shared memory (builds of further trees, clang-tidy,
# models). They run one after the other behind the tests, which mostly wait, at lower priority. Each
# job is collected by the step that needs it, and fails that step.

LANE_NAMES=()
LANE_COMMANDS=()
LANE_PROCESS=""
LANE_FOLDER=""

# lane_add NAME COMMAND...: adds a job, in order.
lane_add() {
    LANE_NAMES+=("$1")
    LANE_COMMANDS+=("$(printf '%q ' "${@:2}")")
}

lane_start() {
    LANE_FOLDER=$(mktemp -d)
    # A process group of its own, so that the lane and its children end with the command.
    set -m
    lane_work </dev/null >"$LANE_FOLDER/lane.log" 2>&1 &
    LANE_PROCESS=$!
    set +m
    trap lane_end EXIT
}

lane_end() {
    if [ -n "$LANE_PROCESS" ]; then
        kill -- "-$LANE_PROCESS" 2>/dev/null || true
        wait "$LANE_PROCESS" 2>/dev/null || true
    fi
    [ -z "$LANE_FOLDER" ] || rm -rf "$LANE_FOLDER"
}

lane_work() {
    local at
    trap - EXIT
    renice -n 5 -p "$BASHPID" >/dev/null || true
    for at in "${!LANE_NAMES[@]}"; do
        lane_piece "$LANE_FOLDER/${LANE_NAMES[at]}" "${LANE_COMMANDS[at]}"
    done
    # Until lane_end: if the lane ended earlier, its processor time would be added to that of the step
    # that runs then.
    sleep infinity
}

# lane_piece FILES COMMAND: leaves FILES.log, .skip (the reason if it was skipped) and, at its end,
# .done: status, seconds, and seconds of a processor.
lane_piece() {
    local files=$1 started=$SECONDS code
    times >"$files.times"
    SKIP_FILE=$files.skip
    : >"$SKIP_FILE"
    set +e
    (
        set -e
        eval "$2"
    ) >"$files.log" 2>&1
    code=$?
    set -e
    times >>"$files.times"
    printf '%d %d %d\n' "$code" $((SECONDS - started)) "$(children_seconds "$files.times")" >"$files.part"
    mv "$files.part" "$files.done"
}

# lane_collect NAME: within a step: waits for the job, shows its output, and returns its status.
lane_collect() {
    local files=$LANE_FOLDER/$1 code seconds processors
    while [ ! -e "$files.done" ]; do
        kill -0 "$LANE_PROCESS" 2>/dev/null || [ -e "$files.done" ] || die "the lane has ended before its piece $1"
        sleep 0.2
    done
    read -r code seconds processors <"$files.done"
    cat "$files.log"
    say "($seconds s, $processors s of a processor, behind other steps)"
    [ "$code" -ne "$SKIP_CODE" ] || skip "$(cat "$files.skip")"
    return "$code"
}

# lane_report: the jobs that ran, their times and their processor times.
lane_report() {
    local files row=""
    for files in "$LANE_FOLDER"/*.done; do
        [ ! -e "$files" ] || row+="$(basename "$files" .done) $(cut -d' ' -f2,3 --output-delimiter=/ "$files") s, "
    done
    [ -z "$row" ] || say "behind the steps: ${row%, }"
}
