/* A large message lies in a block and its record in the ring. A reader may keep the block beyond
 * its record, by its holder bit; the writer, which alone has the list of free blocks, reuses one only
 * when every reader has passed its record and no announced reader holds it. Readers die or leave with
 * and without blocks; one rank gets a replacement.
 *
 *   here          | src/broadcast
 *   --------------+-----------------------------------------------------------------
 *   Writer        | WriterCore::loan, allocate, commit, publish_block
 *   recycle       | WriterBlocks::recycle, give_back; WriterCore::find_slowest; BlockHolders::is_held
 *   Reader, keep  | ReaderCore::claim_rank, take_gate, recv, keep (BlockHolders::hold), release
 *   clear         | take_over_reader; Membership::reap: retire
 *   drop_all      | BlockHolders::drop_all, of a joiner
 *   found[]       | the slot's found_dead: noted before the lock is taken, outdated by a join
 *   COUNTS        | is_holder in holders.cpp
 *   contents[]    | what the block holds: which message, or TORN while it is written
 *
 * Positions count messages; the ring has room for all of them. Stores are visible at once: ring.pml
 * models delayed stores.
 * Checked: a message is read as it was sent, for as long as it is held; no live process waits for a
 * block that only dead readers hold; no reader begins with bits of a predecessor; in the end every
 * block can be freed.
 *
 * With -DLATE a reader that lost its lock lives, and may do one step late: it sets its holder bit on
 * any block, before its successor joins if there is one.
 *
 * Negative controls: -DKEEP_LATE (the holder bit after the position), -DIGNORE_BITS, -DCOUNT_ALL
 * (bits count whether or not their reader is announced), -DJOIN_DIRTY (a joiner drops nothing).
 */
#define BLOCKS 2
#ifndef MESSAGES
#define MESSAGES 3
#endif
#define TORN 99
#define UNUSED 98
#ifndef DEATHS
#define DEATHS 1
#endif

mtype = { EXPECTED, ACTIVE, VACANT, NOBODY, WRITER, READER };

byte contents[BLOCKS] = UNUSED;
byte block_of[MESSAGES];          /* the BlockRecord in the ring */
byte record_of[BLOCKS] = UNUSED;  /* sent_, kept_: the message that was sent in it */
bool held[4];                     /* holder bits: block * 2 + rank */
byte published;
bool closed, is_blocked;

mtype gate[2] = EXPECTED;
byte position[2];
bool announced[2], found[2];
mtype lock[2] = NOBODY;
byte deaths = DEATHS;
bool kill[2];

#define DEAD(r) (announced[r] && lock[r] == NOBODY)
#ifdef COUNT_ALL
#define COUNTS(r) true
#else
#define COUNTS(r) (announced[r] && !found[r])
#endif

inline drop_all(r) {
    held[r] = false;
    held[2 + r] = false
}

inline clear(r) {
    if
    :: d_step { gate[r] == ACTIVE -> gate[r] = VACANT }
    :: else
    fi;
    announced[r] = false
}

inline reap(r) {
    if
    :: d_step { DEAD(r) -> lock[r] = WRITER; found[r] = true };
       if
       :: announced[r] -> clear(r)
       :: else
       fi;
       lock[r] = NOBODY
    :: else
    fi
}

inline look_at(r) {
    if
    :: gate[r] == VACANT
    :: else -> passed = (position[r] < passed -> position[r] : passed)
    fi
}

inline recycle() {
    passed = published;
    look_at(0);
    look_at(1);
    b = 0;
    do
    :: b < BLOCKS && record_of[b] < passed ->
#ifdef IGNORE_BITS
       is_held = false;
#else
       is_held = held[b * 2];  /* one word each: two loads */
       is_held = is_held && COUNTS(0);
       if
       :: !is_held ->
          is_held = held[b * 2 + 1];
          is_held = is_held && COUNTS(1)
       :: else
       fi;
#endif
       if
       :: !is_held -> record_of[b] = UNUSED
       :: else -> is_held = false
       fi;
       b++
    :: b < BLOCKS && record_of[b] >= passed -> b++
    :: b == BLOCKS -> break
    od;
    b = 0;
    passed = 0
}

/* The condition for which the writer sleeps. */
#define PASSED(m, r) (gate[r] == VACANT || position[r] > (m))
#define DONE(k) (record_of[k] != UNUSED && PASSED(record_of[k], 0) && PASSED(record_of[k], 1) \
                 && !(held[(k) * 2] && COUNTS(0)) && !(held[(k) * 2 + 1] && COUNTS(1)))

proctype Writer() {
    byte b, passed;
    bool is_held;
    do
    :: published < MESSAGES ->
       recycle();
       if
       :: record_of[0] == UNUSED -> b = 0
       :: record_of[1] == UNUSED -> b = 1
       :: else ->
          is_blocked = true;
          reap(0);
          reap(1);
end_blocked:
          DONE(0) || DONE(1) || DEAD(0) || DEAD(1);
          is_blocked = false;
          b = BLOCKS
       fi;
       if
       :: b < BLOCKS ->
          contents[b] = TORN;
          d_step { contents[b] = published; block_of[published] = b };
          d_step { record_of[b] = published; published++; b = 0 }
       :: else -> b = 0
       fi
    :: else -> break
    od;
    closed = true;
    /* The writer goes on to free blocks, as it would for more large messages. */
end_closed:
    do
    :: DEAD(0) -> reap(0)
    :: DEAD(1) -> reap(1)
    :: DONE(0) || DONE(1) -> recycle()
    od
}

#define CONTENTS contents[block_of[at]]

proctype Reader(byte r; byte lives) {
    byte at, mine = BLOCKS, which;
#ifdef LATE
    bool is_late;
#endif
idle:
    skip;
    {
        skip;
end_away:
        atomic { lives > 0 && lock[r] == NOBODY -> lock[r] = READER; lives--; found[r] = true };
        if
        :: announced[r] -> clear(r)
        :: else
        fi;
#ifndef JOIN_DIRTY
        drop_all(r);
#endif
        d_step {
            assert(!held[r] && !held[2 + r]);
            announced[r] = true;
            found[r] = false
        };
        if
        :: gate[r] == VACANT ->
           position[r] = published;
           gate[r] = ACTIVE;
           at = published;  /* the second look */
           position[r] = at
        :: else ->
           gate[r] = ACTIVE
        fi;
end_waiting:
        do
        :: at < published ->
           assert(CONTENTS == at);
           if
           :: true ->
              assert(CONTENTS == at);
              at++;
              position[r] = at
           :: r == 0 && mine == BLOCKS ->  /* keeps the block */
              d_step { mine = block_of[at]; which = at };
#ifdef KEEP_LATE
              at++;
              position[r] = at;
              held[mine * 2 + r] = true
#else
              held[mine * 2 + r] = true;
              at++;
              position[r] = at
#endif
           fi
        :: mine != BLOCKS ->
           assert(contents[mine] == which);
           d_step { held[mine * 2 + r] = false; mine = BLOCKS; which = 0 }
        :: closed && at == published && mine == BLOCKS -> break
        :: r == 0 && mine == BLOCKS -> break  /* leaves early */
        od;
        gate[r] = VACANT;
        announced[r] = false
    } unless { kill[r] };
    atomic {
        if :: lock[r] == READER -> lock[r] = NOBODY :: else fi;
#ifdef LATE
        is_late = kill[r];
#endif
        kill[r] = false;
        at = 0; mine = BLOCKS; which = 0
    };
#ifdef LATE
    if
    :: is_late -> held[r] = true
    :: is_late -> held[2 + r] = true
    :: true
    fi;
    is_late = false;
#endif
    goto idle
}

/* SIGKILL. */
proctype Reaper() {
    do
    :: atomic { deaths > 0 && lock[0] == READER && !kill[0] -> kill[0] = true; deaths-- }
    :: atomic { deaths > 0 && lock[1] == READER && !kill[1] -> kill[1] = true; deaths-- }
    :: break
    od
}

#define WAITS_FOR(r) (gate[r] == EXPECTED)

proctype Judge() {
    timeout;
    if
    :: WAITS_FOR(0) || WAITS_FOR(1)  /* a first reader never attached */
    :: else -> assert(closed && record_of[0] == UNUSED && record_of[1] == UNUSED)
    fi
}

init {
    atomic {
        run Writer();
        run Reader(0, 2);
        run Reader(1, 1);
        run Reaper();
        run Judge()
    }
}
