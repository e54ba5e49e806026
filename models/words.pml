/* Several words changed at once. Participants plan from what they read, describe the change in
 * their slot and run it; a participant that meets a reference first helps that change. One process
 * changes the last word alone. Any may die at any step; a janitor finishes the change in a dead
 * participant's slot, and a successor there reuses the same description, under the next sequence.
 *
 *   here                 | src/segment/words/multi_word.cpp
 *   ---------------------+----------------------------------------------------------------------
 *   Participant, read    | MultiWord::read, WordPlan::set, change(plan)
 *   describe             | describe
 *   step: COPY, COPYING  | read_operation
 *   step: LOOK to PUT    | install
 *   step: DECIDE         | decide
 *   step: VERDICT, BACK  | run, after its words were installed
 *   push                 | help
 *   Single               | change(word)
 *   finish               | finish
 *   locked[]             | the lock of a slot: its participant's, or its janitor's
 *
 * A load whose comparison fails at once and the compare-and-swap that would fail are one step; so
 * are the three numbers of one word in a description, and its words are written and copied one
 * after another. Helping is a stack, as the calls are: all but the innermost wait in install(). It
 * is as deep as there are participants at most, which is asserted; with BOUND a change is given up,
 * and fails, where one more would have to be helped inside it. Left out are the bound on futile
 * attempts, which are errors here, and that generations wrap. Memory is sequentially consistent:
 * the pairs are argued in protocols.md.
 *
 * Checked: a read of a word returns the payload of the changes decided so far (`truth`, which a
 * decision changes in all its words, once); the reported result is the decision; a reference in a
 * word leads to a description of that change; helping has no cycle; progress: not all of the ended
 * changes fail; in the end every word has its truth.
 *
 * Negative controls: -DNO_GROWTH (the old value is restored without a new generation),
 * -DHEIR_GOES_ON (a successor does not finish the change that it finds), -DDECIDE_ANY (a helper
 * does not check whose status it decides), -DOWN_VERDICT (it believes what it saw instead of the
 * decision), -DNO_STATUS_CHECK (neither after copying nor before it puts the reference; either
 * alone would do), -DUNSORTED, -DHELP_WHEN_LATE (without a check whether the change that it is
 * stopped in is still undecided: it may then help one later change inside another).
 */
#ifndef PARTICIPANTS  /* 2 or 3; the third does not die */
#define PARTICIPANTS 2
#endif
#ifndef SIZE  /* words of a change: all three, or two: alternately the first and the last */
#define SIZE 3
#endif
#ifndef CHANGES_0  /* changes in each slot, with all successors */
#define CHANGES_0 2
#endif
#ifndef CHANGES_1
#define CHANGES_1 1
#endif
#ifndef CHANGES_2
#define CHANGES_2 1
#endif
#ifndef SINGLES  /* changes of the last word alone */
#define SINGLES 1
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef BOUND  /* depth at which no change is helped inside another; kDeepest */
#define BOUND 255
#endif
#define WORDS 3
#define DEEPEST PARTICIPANTS  /* changes that may be helped inside one another */
#define RUNNERS (PARTICIPANTS + 1)  /* the janitor helps as well */
#define JANITOR PARTICIPANTS

/* A value: payload 2, generation 5, mark 1. A reference: sequence 4, participant 2, mark 1. */
#define PAYLOAD(v) ((v) & 3)
#define NEXT(v, payload) (((v) & 124) + 4 + (payload))
#define IS_REFERENCE(v) ((v) >= 128)
#define REFERENCE(p, sequence) (128 + (p) * 16 + (sequence))
#define PLACE(r) (((r) >> 4) & 3)
#define SEQUENCE(r) ((r) & 15)

#define PREPARING 0
#define UNDECIDED 1
#define SUCCEEDED 2
#define FAILED 3
#define STATE(s) ((s) & 3)
#define IS_ABOUT(r) ((status[PLACE(r)] >> 2) == SEQUENCE(r))
#define LEADS_SOMEWHERE(r) (IS_ABOUT(r) && STATE(status[PLACE(r)]) != PREPARING)

byte word[WORDS];
byte truth[WORDS];               /* ghost: payloads after the decided changes */
byte status[PARTICIPANTS];       /* sequence, state */
byte place[PARTICIPANTS * SIZE];
byte expected[PARTICIPANTS * SIZE];
byte desired[PARTICIPANTS * SIZE];

mtype = { ALIVE, DEAD, CLEARED };
mtype life[PARTICIPANTS] = ALIVE;
bool locked[PARTICIPANTS], gone[PARTICIPANTS], kill[RUNNERS];
byte deaths = DEATHS;
byte ended, succeeded;           /* changes whose owner was told; changes decided to succeed */

mtype = { COPY, COPYING, LOOK, ASK, PUT, DECIDE, VERDICT, BACK };

/* A runner's stack: the innermost is number n - 1. */
#define STACK                                                                                    \
    byte n, k, v;                                                                                \
    mtype phase;                                                                                 \
    bool verdict;                                                                                \
    byte ref[DEEPEST], at[DEEPEST];                                                              \
    byte c_place[DEEPEST * SIZE], c_expected[DEEPEST * SIZE],                                    \
        c_desired[DEEPEST * SIZE]
#define REF ref[n - 1]
#define AT at[n - 1]
#define MINE ((n - 1) * SIZE)             /* the copy of the innermost change */
#define THEIRS (PLACE(REF) * SIZE)
#define W c_place[MINE + AT]
#define EXPECTED c_expected[MINE + AT]
#define DESIRED c_desired[MINE + AT]

/* These are parts of a d_step. */
inline push(reference, first) {
    assert(n < DEEPEST);  /* otherwise helping has a cycle */
    ref[n] = reference;
    at[n] = 0;
    n++;
    phase = first;
    k = 0
}
inline pop() {
    k = 0;
    do
    :: k < SIZE -> c_place[MINE + k] = 0; c_expected[MINE + k] = 0; c_desired[MINE + k] = 0; k++
    :: else -> break
    od;
    ref[n - 1] = 0;
    at[n - 1] = 0;
    n--;
    k = 0;
    phase = LOOK
}
inline conclude(state) {
    if
    :: state == SUCCEEDED ->
       k = 0;
       do
       :: k < SIZE ->
          assert(word[place[THEIRS + k]] == REF);
          assert(PAYLOAD(expected[THEIRS + k]) == truth[place[THEIRS + k]]);
          truth[place[THEIRS + k]] = PAYLOAD(desired[THEIRS + k]);
          k++
       :: else -> break
       od;
       k = 0;
       succeeded++
    :: else
    fi;
    status[PLACE(REF)] = (status[PLACE(REF)] & 252) + state
}

/* One step of the innermost change. */
inline step() {
    if
    :: d_step { phase == COPY ->
           if
           :: LEADS_SOMEWHERE(REF) -> phase = COPYING; k = 0
           :: else -> pop()
           fi }
    :: d_step { phase == COPYING && k < SIZE ->
           c_place[MINE + k] = place[THEIRS + k];
           c_expected[MINE + k] = expected[THEIRS + k];
           c_desired[MINE + k] = desired[THEIRS + k];
           k++ }
    :: d_step { phase == COPYING && k == SIZE ->
           k = 0;
           if
#ifdef NO_STATUS_CHECK
           :: true -> phase = LOOK
#else
           :: IS_ABOUT(REF) -> phase = LOOK
           :: else -> pop()
#endif
           fi }
    :: d_step { phase == LOOK ->
           if
           :: word[W] == REF ->
              AT = AT + 1;
              if
              :: AT == SIZE -> AT = 0; verdict = true; phase = DECIDE
              :: else
              fi
           :: word[W] != REF && IS_REFERENCE(word[W]) ->
              v = word[W];
              assert(LEADS_SOMEWHERE(v));
              phase = ASK
           :: word[W] == EXPECTED -> phase = ASK
           :: else -> AT = 0; verdict = false; phase = DECIDE
           fi }
    :: d_step { phase == ASK ->
           if
#ifdef NO_STATUS_CHECK
           :: v == 0 -> phase = PUT
           :: v != 0 && IS_ABOUT(REF) && STATE(status[PLACE(REF)]) == UNDECIDED -> push(v, COPY)
#elif defined(HELP_WHEN_LATE)
           :: v != 0 -> push(v, COPY)
           :: v == 0 && IS_ABOUT(REF) && STATE(status[PLACE(REF)]) == UNDECIDED -> phase = PUT
#else
           :: v != 0 && n == BOUND -> AT = 0; verdict = false; phase = DECIDE
           :: !(v != 0 && n == BOUND) && IS_ABOUT(REF) &&
              STATE(status[PLACE(REF)]) == UNDECIDED ->
              if
              :: v != 0 -> push(v, COPY)
              :: else -> phase = PUT
              fi
#endif
           :: else -> AT = 0; verdict = false; phase = DECIDE
           fi;
           v = 0 }
    :: d_step { phase == PUT ->
           if
           :: word[W] == EXPECTED -> word[W] = REF
           :: else
           fi;
           phase = LOOK }
    :: d_step { phase == DECIDE ->
           if
#ifdef DECIDE_ANY
           :: STATE(status[PLACE(REF)]) == UNDECIDED ->
#else
           :: IS_ABOUT(REF) && STATE(status[PLACE(REF)]) == UNDECIDED ->
#endif
              conclude((verdict -> SUCCEEDED : FAILED))
           :: else
           fi;
           phase = VERDICT }
    :: d_step { phase == VERDICT ->
           if
           :: IS_ABOUT(REF) ->
#ifndef OWN_VERDICT
              verdict = (STATE(status[PLACE(REF)]) == SUCCEEDED);
#endif
              phase = BACK
           :: else -> verdict = false; pop()
           fi }
    :: d_step { phase == BACK ->
           if
           :: word[W] == REF ->
#ifdef NO_GROWTH
              word[W] = (verdict -> DESIRED : EXPECTED);
#else
              word[W] = (verdict -> DESIRED : NEXT(EXPECTED, PAYLOAD(EXPECTED)));
#endif
              assert(PAYLOAD(word[W]) == truth[W])
           :: else
           fi;
           AT = AT + 1;
           if
           :: AT == SIZE -> pop()
           :: else
           fi }
    fi
}

inline run_to_end() {
    do
    :: n > 0 -> step()
    :: else -> break
    od;
    skip  /* a d_step must not follow a loop */
}

/* Finishes the change of a slot's last participant. */
inline finish(who) {
    if
    :: d_step { STATE(status[who]) != PREPARING ->
           push(REFERENCE(who, status[who] >> 2), COPY) };
       run_to_end()
    :: STATE(status[who]) == PREPARING
    fi
}

inline forget() {
    j = 0;
    do
    :: j < DEEPEST * SIZE -> c_place[j] = 0; c_expected[j] = 0; c_desired[j] = 0; j++
    :: else -> break
    od;
    j = 0;
    do
    :: j < DEEPEST -> ref[j] = 0; at[j] = 0; j++
    :: else -> break
    od;
    n = 0; k = 0; v = 0; j = 0; phase = 0; verdict = false
}

/* Word number k of a change. */
#define NTH(k) ((self + changes) % (WORDS - SIZE + 1) + (k))
#ifdef UNSORTED
#define ORDERED(k) (self % 2 == 0 -> (k) : SIZE - 1 - (k))
#else
#define ORDERED(k) (k)
#endif

proctype Participant(byte self; byte most) {
    STACK;
    byte j, changes, seen[SIZE];
born:
    {
#ifdef HEIR_GOES_ON
        skip;
#else
        finish(self);
#endif
        do
        :: changes < most ->
           /* read() */
           do
           :: d_step { j < SIZE && !IS_REFERENCE(word[NTH(ORDERED(j))]) ->
                  seen[j] = word[NTH(ORDERED(j))];
                  assert(PAYLOAD(seen[j]) == truth[NTH(ORDERED(j))]);
                  j++ }
           :: d_step { j < SIZE && IS_REFERENCE(word[NTH(ORDERED(j))]) ->
                  v = word[NTH(ORDERED(j))];
                  assert(LEADS_SOMEWHERE(v));
                  push(v, COPY);
                  v = 0 };
              run_to_end()
           :: j == SIZE -> break
           od;
           skip;
           /* describe() */
           d_step { status[self] = (status[self] & 252) + 4 + PREPARING; j = 0 };
           do
           :: d_step { j < SIZE ->
                  place[self * SIZE + j] = NTH(ORDERED(j));
                  expected[self * SIZE + j] = seen[j];
                  desired[self * SIZE + j] = NEXT(seen[j], (PAYLOAD(seen[j]) + self + 1) & 3);
                  seen[j] = 0;
                  j++ }
           :: j == SIZE -> break
           od;
           skip;
           d_step {
               status[self] = (status[self] & 252) + UNDECIDED;
               push(REFERENCE(self, status[self] >> 2), LOOK);
               j = 0;
               do
               :: j < SIZE ->
                  c_place[j] = place[self * SIZE + j];
                  c_expected[j] = expected[self * SIZE + j];
                  c_desired[j] = desired[self * SIZE + j];
                  j++
               :: else -> break
               od;
               j = 0;
               changes++
           };
           run_to_end();
           d_step {
               assert(STATE(status[self]) == (verdict -> SUCCEEDED : FAILED));
               verdict = false;
               ended++
           }
        :: else -> break
        od;
        gone[self] = true
    } unless { kill[self] };
    if
    :: d_step { kill[self] ->
           kill[self] = false;
           life[self] = DEAD;
           forget();
           do
           :: j < SIZE -> seen[j] = 0; j++
           :: else -> break
           od;
           j = 0 };
       if
       /* a successor */
       :: d_step { !locked[self] && life[self] != ALIVE -> life[self] = ALIVE } ->
          goto born
       :: gone[self] = true
       fi
    :: else
    fi
}

/* change(word), of the last word, from a payload that was read. */
proctype Single() {
    byte seen, left = SINGLES;
    do
    :: d_step { left > 0 && !IS_REFERENCE(word[WORDS - 1]) ->
           seen = word[WORDS - 1];
           assert(PAYLOAD(seen) == truth[WORDS - 1]);
           left-- };
       d_step {
           if
           :: word[WORDS - 1] == seen ->
              word[WORDS - 1] = NEXT(seen, (PAYLOAD(seen) + 1) & 3);
              truth[WORDS - 1] = PAYLOAD(word[WORDS - 1]);
              succeeded++
           :: else
           fi;
           seen = 0;
           ended++ }
    :: left > 0 -> left = 0
    :: left == 0 -> break
    od
}

/* The holder of the dead participant's lock. */
proctype Janitor() {
    STACK;
    byte j, who;
born:
    skip;
    {
end_idle:
        do
        :: d_step { life[0] == DEAD && !locked[0] -> locked[0] = true; who = 0 };
           finish(0);
           d_step { locked[0] = false; life[0] = CLEARED; verdict = false }
        :: d_step { life[1] == DEAD && !locked[1] -> locked[1] = true; who = 1 };
           finish(1);
           d_step { locked[1] = false; life[1] = CLEARED; verdict = false; who = 0 }
        od
    } unless { kill[JANITOR] };
    d_step { kill[JANITOR] = false; locked[who] = false; who = 0; forget() };
    goto born
}

proctype Killer() {
end:
    do
    :: d_step { deaths > 0 && !gone[0] && life[0] == ALIVE -> deaths--; kill[0] = true }
    :: d_step { deaths > 0 && !gone[1] && life[1] == ALIVE -> deaths--; kill[1] = true }
    :: d_step { deaths > 0 && (locked[0] || locked[1]) && !kill[JANITOR] ->
           deaths--; kill[JANITOR] = true }
    :: d_step { deaths > 0 -> deaths = 0 }
    od
}

/* The end state, when no step is left. */
proctype Judge() {
    byte w;
    timeout;
    d_step {
        do
        :: w < WORDS -> assert(!IS_REFERENCE(word[w]) && PAYLOAD(word[w]) == truth[w]); w++
        :: else -> break
        od;
        assert(life[0] != DEAD && life[1] != DEAD);
        assert(gone[0] && gone[1]);
        assert(ended == 0 || succeeded > 0)
    }
}

init {
    atomic {
        run Participant(0, CHANGES_0);
        run Participant(1, CHANGES_1);
#if PARTICIPANTS > 2
        run Participant(2, CHANGES_2);
#endif
#if SINGLES > 0
        run Single();
#endif
#if DEATHS > 0
        run Janitor();
        run Killer();
#endif
        run Judge()
    }
}
