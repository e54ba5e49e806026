/* The credit of trajectories: writers that ask, begin, put or give up; a trainer that takes whole
 * batches and acknowledges them group by group. Any may die at any step, and another joins in its
 * slot; the janitor dies too, and begins anew.
 *
 * A group is one sequence, and the window belongs to one environment with several writers: weights
 * are arithmetic, not order. Every read of a census is a step of its own. Moves of a slot are one
 * compare-and-swap each, modelled in queue.pml.
 *
 *   here            | src/trajectories
 *   ----------------+-----------------------------------------------------------------------
 *   Writer          | Board::sign; WriterState::wait_for_credit; TrajectoryWriter::commit, close
 *   take_census     | Board::take_census, for_each_waiting, is_living
 *   try_begin       | Board::try_begin
 *   hand_over       | WriterState::hand_over
 *   Trainer         | Search::look, choose, take; TrajectoryBatch::ack, untake
 *   Janitor         | QueueCore::reap, take_over
 *   notify          | Signal, of which signal.pml has the rest
 *   Clock           | the end of a slice, when no other step is possible
 *
 * The words of the board are sequentially consistent; -DSTORE_BUFFER shows what would happen
 * otherwise. Credit beyond the window for a stuck trainer is left out: all groups have one size.
 *
 * Checked: running and waiting groups never exceed the window; an accepted group is acknowledged
 * once, or still there; the version is stored before the credit that comes with it, and in a window
 * of one batch every group is used for the version with which it was begun; an asker gets all free
 * room while the others are quiet, so that neither the dead nor acknowledged groups hold credit; in
 * the end all writers have begun their groups, and no whole batch is left untaken. With -DVAIN:
 * where there is no credit, no writer is woken again and again.
 *
 * Negative controls: -DASK_LATE, -DSTORE_BUFFER, -DANSWER_BEFORE_RUNNING, -DLEAVE_BEFORE_PUT,
 * -DSLOTS_FIRST, -DRUNNING_FIRST, -DCOUNT_THE_DEAD, -DDIRTY_PLACE, -DBLIND_ACK,
 * -DCREDIT_BEFORE_VERSION, -DWAKE_IN_TURN (with -DVAIN).
 */
#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef WINDOW       /* groups: (max_staleness + 1) batches */
#define WINDOW 2
#endif
#ifndef BATCH
#define BATCH 2
#endif
#ifndef ROUNDS       /* rollouts that a writer begins in one life */
#define ROUNDS 1
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef BIRTHS       /* joins in the slot of a dead participant */
#define BIRTHS 1
#endif
#ifndef LOOKS        /* kLooks of try_begin */
#define LOOKS 2
#endif
#ifndef GIVE_UPS     /* rollouts that are released without a put */
#define GIVE_UPS 1
#endif
#ifndef UNTAKES      /* batches that are untaken */
#define UNTAKES 0
#endif
#ifndef SLOTS
#define SLOTS (WINDOW + 1)
#endif
#define TRAINER WRITERS
#define JANITOR (WRITERS + 1)
#define NONE 15

mtype = { EMPTY, READY, TAKEN, RETURNED };

byte asking[WRITERS], running[WRITERS];  /* the board */
bool role[WRITERS];
mtype slot[SLOTS] = EMPTY;
byte begun[SLOTS];                       /* the version that its rollout had */
byte version;
bool announced[WRITERS];                 /* sleepers on the credit signal */

bool kill[JANITOR + 1], dead[JANITOR], gone[JANITOR];
byte deaths = DEATHS, births = BIRTHS, give_ups = GIVE_UPS, untakes = UNTAKES;

byte rollouts[WRITERS];                  /* ghost: of living writers, not put yet */
bool is_owed[SLOTS];                     /* ghost: accepted and not acknowledged */
byte freed_step;                         /* step of the last ack that freed credit */
bool has_died;
byte alone = NONE;                       /* writer that asks while all others are quiet */
#ifdef VAIN          /* failed asks in a row while nothing else changes */
byte vain;
#define something_happened() vain = 0
#else
#define something_happened() skip
#endif

#ifdef STORE_BUFFER
bool pending[WRITERS];
active proctype Memory() {
end:
    do
    :: d_step { pending[0] -> pending[0] = false; asking[0] = 1 }
    :: d_step { pending[1] -> pending[1] = false; asking[1] = 1 }
    od
}
#endif

#define IS_WAITING(s) (slot[s] != EMPTY)

inline count_truth(sum) {
    sum = 0;
    count = 0;
    do
    :: count < WRITERS -> sum = sum + rollouts[count]; count++
    :: else -> break
    od;
    count = 0;
    do
    :: count < SLOTS ->
       if
       :: IS_WAITING(count) -> sum++
       :: else
       fi;
       count++
    :: else -> break
    od;
    count = 0
}

inline notify() {
    d_step {
        announced[0] = false;
        announced[1] = false;
#if WRITERS > 2
        announced[2] = false;
#endif
        skip
    }
}

inline look_at_slots() {
    do
    :: d_step { at < SLOTS -> total = total + (IS_WAITING(at) -> 1 : 0); at++ }
    :: d_step { at == SLOTS -> at = 0 } -> break
    od
}

inline look_at_asking() {
    d_step {
        if
        :: asking[place] != 0 ->
           total = total + asking[place];
           has_asker = true;
           has_earlier = has_earlier || place < self
        :: else
        fi
    }
}

/* Sums into `total`, without this writer's own request. */
inline take_census() {
#ifdef SLOTS_FIRST
    look_at_slots();
#endif
    do
    :: d_step { place < WRITERS && place == self -> total = total + running[self]; place++ }
    :: d_step { place < WRITERS && place != self && !role[place] -> place++ }
    :: place < WRITERS && place != self && role[place] ->
#ifdef RUNNING_FIRST
       total = total + running[place];
       look_at_asking();
       place++
#else
       look_at_asking();
       d_step { total = total + running[place]; place++ }
#endif
    :: d_step { place == WRITERS -> place = 0 } -> break
    od;
#ifndef SLOTS_FIRST
    look_at_slots();
#endif
    skip
}

inline say_what_is_wanted() {
#ifdef STORE_BUFFER
    pending[self] = true
#else
    asking[self] = 1
#endif
}

inline withdraw() {
#ifdef STORE_BUFFER
    !pending[self] -> asking[self] = 0
#else
    asking[self] = 0
#endif
}

#ifdef WAKE_IN_TURN
#define WAKES true
#else
#define WAKES !is_again  /* a writer woken in vain wakes no other */
#endif

inline try_begin() {
#ifndef ASK_LATE
    say_what_is_wanted();
#endif
    do
    :: d_step { look < LOOKS && !is_begun -> look++ };
       take_census();
       atomic {
           is_begun = total < WINDOW;
           has_met = has_met || has_asker;
           is_refused = !is_begun && (has_earlier || !has_asker);
           total = 0; has_asker = false; has_earlier = false
       };
#ifdef ASK_LATE
       say_what_is_wanted();
#endif
       if
       :: is_refused -> break
       :: else
       fi
    :: atomic { look == LOOKS || is_begun -> break }
    od;
    if
    :: is_begun ->
#ifdef ANSWER_BEFORE_RUNNING
       withdraw();
#endif
       d_step {
           running[self]++;
           rollouts[self]++;
           count_truth(total);
           assert(total <= WINDOW);
           total = 0; look = 0;
           something_happened()
       };
#ifndef ANSWER_BEFORE_RUNNING
       withdraw();
#endif
       if
       :: has_met -> notify()
       :: else
       fi;
       has_met = false
    :: else ->
       withdraw();
       d_step {
           /* All others are quiet: only counted groups can be in the way. */
           if
           :: alone == self -> count_truth(total); assert(total == WINDOW); total = 0
           :: else
           fi;
           alone = (alone == self -> NONE : alone);
#ifdef VAIN
           assert(vain < VAIN);
           vain++;
#endif
           look = 0; is_refused = false
       };
       if
       :: has_met && WAKES -> notify()
       :: else
       fi;
       atomic { has_met = false; is_again = true }
    fi
}

inline hand_over() {
    d_step { running[self]--; something_happened() };
    notify()
}

inline put() {
    /* A slot is free: there are more slots than groups in the window. */
    d_step {
        do
        :: at < SLOTS && IS_WAITING(at) -> at++
        :: else -> break
        od;
        assert(at < SLOTS && !is_owed[at]);
        slot[at] = READY;
        is_owed[at] = true;
        begun[at] = known;
        rollouts[self]--;
        at = 0;
        something_happened();
        known = 0
    }
}

proctype Writer(byte self) {
    byte total, count, place, at, look, known, rounds;
    bool has_asker, has_earlier, has_met, is_begun, is_refused, is_again;
born:
    skip;
    {
#ifndef DIRTY_PLACE
        running[self] = 0;
        asking[self] = 0;
#endif
        role[self] = true;
        do
        :: rounds < ROUNDS ->
           do
           :: announced[self] = true;
              try_begin();
              if
              :: is_begun -> break
              :: else
              fi;
end_asleep:
              !announced[self]
           od;
           atomic {
               known = version;
               assert(known >= freed_step);
               is_begun = false;
               is_again = false;
               announced[self] = false;
               alone = (alone == self -> NONE : alone);
               rounds++
           };
           if
#ifdef LEAVE_BEFORE_PUT
           :: hand_over();
              put()
#else
           :: put();
              hand_over()
#endif
           :: d_step { give_ups > 0 -> give_ups--; rollouts[self]--; known = 0 };
              hand_over()
           fi
        :: else -> break
        od;
        role[self] = false;
        notify();
        gone[self] = true
    } unless { kill[self] };
    atomic {
        if
        :: kill[self] ->
           kill[self] = false; dead[self] = true; has_died = true;
           rollouts[self] = 0; announced[self] = false;
           alone = (alone == self -> NONE : alone)
        :: else
        fi;
        gone[self] = true;
        total = 0; count = 0; place = 0; at = 0; look = 0; known = 0; rounds = 0;
        has_asker = false; has_earlier = false; has_met = false; is_begun = false;
        is_refused = false; is_again = false
    };
end_gone:
    atomic { !dead[self] && births > 0 -> births--; gone[self] = false };
    goto born
}

#define IS_THERE(s) (slot[s] == READY || slot[s] == RETURNED)

proctype Trainer(byte self) {
    byte at, held, step;
born:
    skip;
    {
end_idle:
        do
        :: atomic { held < BATCH && IS_THERE(0) -> slot[0] = TAKEN; held++ }
#if SLOTS > 1
        :: atomic { held < BATCH && IS_THERE(1) -> slot[1] = TAKEN; held++ }
#endif
#if SLOTS > 2
        :: atomic { held < BATCH && IS_THERE(2) -> slot[2] = TAKEN; held++ }
#endif
        :: d_step { held > 0 && untakes > 0 -> untakes-- };
           do
           :: at < SLOTS ->
              d_step {
                  if
                  :: slot[at] == TAKEN -> slot[at] = RETURNED
                  :: else
                  fi;
                  at++
              }
           :: else -> break
           od;
           atomic { at = 0; held = 0 }
        :: held == BATCH ->
           step = version + 1;
#ifndef CREDIT_BEFORE_VERSION
           version = step;
#endif
           do
           :: at < SLOTS ->
              if
              :: d_step {
                     slot[at] == TAKEN ->
                     assert(is_owed[at]);
#if WINDOW == BATCH
                     /* max_staleness is 0: it is used for the version with which it was begun. */
                     assert(has_died || begun[at] + 1 == step);
#endif
                     is_owed[at] = false;
                     slot[at] = EMPTY; begun[at] = 0; freed_step = step;
                     something_happened()
                 };
#ifdef BLIND_ACK
                 slot[at] = EMPTY
#endif
              :: slot[at] != TAKEN
              fi;
              at++
           :: else -> break
           od;
#ifdef CREDIT_BEFORE_VERSION
           version = step;
#endif
           notify();
           d_step { at = 0; held = 0; step = 0 }
        od
    } unless { kill[self] };
    d_step {
        kill[self] = false; dead[self] = true; gone[self] = true; has_died = true;
        at = 0; held = 0; step = 0
    };
end_gone:
    atomic { !dead[self] && births > 0 -> births--; gone[self] = false };
    goto born
}

inline clear_writer(who) {
#ifndef COUNT_THE_DEAD
    role[who] = false;
#endif
    dead[who] = false
}

/* The process with the dead participant's lock: one at a time, and another after its death. */
proctype Janitor() {
    byte at;
born:
    skip;
    {
end_idle:
        do
        :: dead[0] -> clear_writer(0)
        :: dead[1] -> clear_writer(1)
#if WRITERS > 2
        :: dead[2] -> clear_writer(2)
#endif
        :: dead[TRAINER] ->
           do
           :: at < SLOTS ->
              d_step {
                  if
                  :: slot[at] == TAKEN -> slot[at] = RETURNED
                  :: else
                  fi;
                  at++
              }
           :: else -> break
           od;
           atomic { at = 0; dead[TRAINER] = false }
        od
    } unless { kill[JANITOR] };
    d_step { kill[JANITOR] = false; at = 0 };
    goto born
}

proctype Killer() {
end:
    do
    :: d_step { deaths > 0 && !gone[0] -> deaths--; kill[0] = true }
    :: d_step { deaths > 0 && !gone[1] -> deaths--; kill[1] = true }
#if WRITERS > 2
    :: d_step { deaths > 0 && !gone[2] -> deaths--; kill[2] = true }
#endif
    :: d_step { deaths > 0 && !gone[TRAINER] -> deaths--; kill[TRAINER] = true }
    :: d_step { deaths > 0 && (dead[0] || dead[1] || dead[WRITERS - 1] || dead[TRAINER]) ->
           deaths--; kill[JANITOR] = true }
    :: d_step { deaths > 0 -> deaths = 0 }
    od
}

/* Wakes one sleeper at a time when all are quiet, and checks the end when none sleeps any more, or
 * only those whose window is full for ever. */
proctype Clock() {
    byte total, count;
end:
    do
    :: atomic {
           timeout ->
           d_step {
               assert(!dead[0] && !dead[1] && !dead[WRITERS - 1] && !dead[TRAINER]);
               count_truth(total);
               do
               :: count < SLOTS -> assert(is_owed[count] == IS_WAITING(count)); count++
               :: else -> break
               od;
               count = 0
           };
           if
           :: gone[TRAINER] && total == WINDOW -> break
           :: !(gone[TRAINER] && total == WINDOW) && announced[0] -> announced[0] = false; alone = 0
           :: !(gone[TRAINER] && total == WINDOW) && announced[1] -> announced[1] = false; alone = 1
#if WRITERS > 2
           :: !(gone[TRAINER] && total == WINDOW) && announced[2] -> announced[2] = false; alone = 2
#endif
           :: !announced[0] && !announced[1] && !announced[WRITERS - 1] ->
              /* All writers are gone, and a trainer has taken every whole batch. */
              assert(gone[0] && gone[1] && gone[WRITERS - 1] && (gone[TRAINER] || total < BATCH));
              break
           fi;
           total = 0
       }
    od
}

init {
    atomic {
        run Writer(0);
        run Writer(1);
#if WRITERS > 2
        run Writer(2);
#endif
        run Trainer(TRAINER);
        run Janitor();
        run Killer();
        run Clock()
    }
}
