# The time that each step of `./dev test` may take: budgets.tsv, in seconds of an idle machine with
# two processors. A slower machine gets more (speed.py). A step over its budget is reported. It
# fails only in the full tier, at twice the budget, if other programs had less than a tenth of the
# processors: otherwise it counts as noise.

BUDGETS=$ROOT/tools/dev/budgets.tsv
BUDGET_TIER=""  # no tier, no budgets
BUDGET_SPEED=1
BUDGET_CLOCK=""

# budget_begin TIER: from here on, steps have budgets.
budget_begin() {
    BUDGET_TIER=$1
    BUDGET_SPEED=$("$PYTHON" tools/dev/speed.py)
    say "budgets are those of an idle machine with two processors, times $BUDGET_SPEED"
}

# budget_of STEP: its seconds on this machine, or nothing.
budget_of() {
    awk -F'\t' -v step="$1" -v tier="$BUDGET_TIER" -v speed="$BUDGET_SPEED" \
        '$1 == step { seconds = tier == "full" ? $3 : $2; if (seconds > 0) printf "%d", seconds * speed }' "$BUDGETS"
}

# Processor time in ticks since boot: busy, and in all.
machine_ticks() {
    awk '/^cpu / { printf "%d %d\n", $2 + $3 + $4 + $7 + $8 + $9, $2 + $3 + $4 + $5 + $6 + $7 + $8 + $9 }' /proc/stat
}

# The same, preceded by the ticks of this command and its children.
processor_ticks() {
    local session
    session=$(sed 's/^.*) //' /proc/$$/stat | cut -d' ' -f4)
    cat /proc/[0-9]*/stat 2>/dev/null | sed 's/^.*) //' |
        awk -v session="$session" '$4 == session { own += $12 + $13 + $14 + $15 } END { printf "%d ", own }'
    machine_ticks
}

budget_start() {
    [ -z "$BUDGET_TIER" ] || BUDGET_CLOCK=$(processor_ticks)
}

# Share of the processors, in hundredths, that other programs used since budget_start.
budget_others() {
    say "$BUDGET_CLOCK $(processor_ticks)" | awk '{
        others = ($5 - $2) - ($4 - $1); all = $6 - $3
        if (all <= 0 || others < 0) others = 0
        printf "%d", (all ? 100 * others / all : 0) }'
}

# budget_judge STEP SECONDS: nothing within the budget, otherwise a remark, which begins with
# "FAILED" unless it is noise.
budget_judge() {
    [ -n "$BUDGET_TIER" ] || return 0
    local budget others
    budget=$(budget_of "$1")
    if [ -z "$budget" ] || [ "$2" -le "$budget" ]; then
        return 0
    fi
    others=$(budget_others)
    if [ "$BUDGET_TIER" = full ] && [ "$2" -gt $((2 * budget)) ] && [ "$others" -lt 10 ]; then
        say "FAILED by time: more than twice its budget of $budget s"
    else
        say "over its budget of $budget s (others had $others % of the processors)"
    fi
}

# After the table: the total and its budget.
budget_report() {
    [ -n "$BUDGET_TIER" ] || return 0
    local budget
    budget=$(budget_of all)
    if [ "$SECONDS" -gt "$budget" ]; then
        say "${YELLOW}over the budget of the whole, which is $budget s here${PLAIN}"
    else
        say "within the budget of the whole, which is $budget s here"
    fi
}
