/* The arena: two allocators claim, free and trim runs of granules, die at any step, and are reaped
 * by janitors, one of which dies too.
 *
 *   here              | src/segment/memory/arena.cpp
 *   ------------------+-----------------------------------------------------------------
 *   claim_run         | Arena::claim_run, search (runs of one, two and three granules)
 *   release_run       | Arena::release_run
 *   Allocator         | Arena::allocate, reserve_run, free, trim
 *   Janitor, reap     | Arena::reap under the dead one's slot lock
 *   state, owner, …   | the granule word: each step changes state, owner and length of one at once
 *   marked, real      | its kReserved bit; whether the file has memory there
 *
 * Generations are left out: the model holds without them.
 * Checked: no granule has two users; memory in use exists; once the dead are reaped and the living
 * have freed, every granule is free.
 *
 * Negative controls: -DHEAD_FIRST (release_run frees the head before its bodies), -DANY_BODY (it
 * frees bodies of other blocks), -DPUNCH_FIRST (trim punches before it unmarks).
 */
#define GRANULES 3
#define NONE 0
#ifndef DEATHS
#define DEATHS 2
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif

mtype = { FREE, HEAD, BODY, FREEING };

mtype state[GRANULES] = FREE;
byte owner[GRANULES], length[GRANULES];
bool marked[GRANULES], real[GRANULES];
byte user[GRANULES];         /* ghost */
bool dead[3];                /* slots 1 and 2 */
bool locked[3];              /* by a janitor; the living have their own */
byte finished, deaths = DEATHS;
bool kill[5];                /* 1, 2: allocators; 3, 4: janitors */

/* The caller owns the head at `at`, `n` long, or is its dead owner's janitor. */
inline release_run(at, n) {
#ifdef HEAD_FIRST
    d_step { state[at] = FREE; owner[at] = NONE; length[at] = 0 };
#endif
    i = n - 1;
    do
    :: i > 0 ->
       d_step {
           if
#ifdef ANY_BODY
           :: state[at + i] == BODY ->
#else
           :: state[at + i] == BODY && length[at + i] == i ->
#endif
              state[at + i] = FREE; owner[at + i] = NONE; length[at + i] = 0
           :: else
           fi;
           i--
       }
    :: else -> break
    od;
#ifndef HEAD_FIRST
    skip;
    d_step { state[at] = FREE; owner[at] = NONE; length[at] = 0 }
#endif
}

inline claim_run() {
    got = false;
    if
    :: d_step { state[first] == FREE -> state[first] = HEAD; owner[first] = me; length[first] = n };
       i = 1;
       do
       :: i == n -> got = true; break
       :: i < n ->
          if
          :: d_step { state[first + i] == FREE ->
                 state[first + i] = BODY; owner[first + i] = me; length[first + i] = i; i++ }
          :: else -> release_run(first, n); break
          fi
       od;
       i = 0
    :: else
    fi
}

#define USED_BY(g, who) (first <= g && g < first + n -> who : user[g])

inline use() {
    d_step {
        assert(user[first] == NONE && real[first]);
        assert(n < 2 || (user[first + 1] == NONE && real[first + 1]));
        assert(n < 3 || (user[2] == NONE && real[2]));
        user[0] = USED_BY(0, me);
        user[1] = USED_BY(1, me);
        user[2] = USED_BY(2, me)
    }
}

inline stop_using() {
    d_step { user[0] = USED_BY(0, NONE); user[1] = USED_BY(1, NONE); user[2] = USED_BY(2, NONE) }
}

inline reserve(at) {
    if
    :: marked[at]
    :: else -> real[at] = true; marked[at] = true
    fi
}

proctype Allocator(byte me) {
    byte first, n, i, round;
    bool got;
    {
        do
        :: round < ROUNDS ->
           round++;
           if
           :: n = 1; first = 2
           :: n = 2; first = 0
           :: n = 2; first = 1
           :: n = 3; first = 0
           fi;
           claim_run();
           if
           :: got ->  /* allocate, use, free */
              reserve(first);
              if :: n > 1 -> reserve(first + 1) :: else fi;
              if :: n > 2 -> reserve(2) :: else fi;
              use();
              stop_using();
              d_step { assert(state[first] == HEAD && owner[first] == me); state[first] = FREEING };
              release_run(first, n)
           :: got && n == 1 ->  /* trim */
#ifdef PUNCH_FIRST
              real[first] = false; marked[first] = false;
#else
              marked[first] = false; real[first] = false;
#endif
              release_run(first, n)
           :: !got
           fi
        :: round == ROUNDS -> break
        od
    } unless { kill[me] };
    atomic {
        if
        :: kill[me] ->
           dead[me] = true;
           if :: user[0] == me -> user[0] = NONE :: else fi;
           if :: user[1] == me -> user[1] = NONE :: else fi;
           if :: user[2] == me -> user[2] = NONE :: else fi
        :: else
        fi;
        finished++; first = 0; n = 0; i = 0; got = false; round = ROUNDS
    }
}

inline reap_granule(at) {
    if
    :: d_step { (state[at] == HEAD || state[at] == FREEING) && owner[at] == slot ->
           n = length[at] };
       release_run(at, n);
       n = 0
    :: else
    fi
}

/* Two, so that one may die while it reaps and be followed by the other. */
proctype Janitor(byte me) {
    byte slot, n, i;
    {
end_idle:
        do
        :: d_step { dead[1] && !locked[1] -> locked[1] = true; slot = 1 };
           if
           :: dead[1] -> reap_granule(0); reap_granule(1); reap_granule(2); dead[1] = false
           :: else
           fi;
           d_step { locked[1] = false; slot = NONE }
        :: d_step { dead[2] && !locked[2] -> locked[2] = true; slot = 2 };
           if
           :: dead[2] -> reap_granule(0); reap_granule(1); reap_granule(2); dead[2] = false
           :: else
           fi;
           d_step { locked[2] = false; slot = NONE }
        od
    } unless { kill[me] };
    atomic { if :: slot != NONE -> locked[slot] = false :: else fi; slot = NONE; n = 0; i = 0 }
}

/* SIGKILL. Only the first janitor dies, so that one is left. */
proctype Reaper() {
    do
    :: atomic { deaths > 0 && !kill[1] && finished < 2 -> kill[1] = true; deaths-- }
    :: atomic { deaths > 0 && !kill[2] && finished < 2 -> kill[2] = true; deaths-- }
    :: atomic { deaths > 0 && !kill[3] -> kill[3] = true; deaths-- }
    :: break  /* and no more */
    od
}

proctype Judge() {
    timeout;
    assert(finished == 2 && !dead[1] && !dead[2]);
    assert(state[0] == FREE && state[1] == FREE && state[2] == FREE)
}

init {
    atomic {
        run Allocator(1);
        run Allocator(2);
        run Janitor(3);
        run Janitor(4);
        run Reaper();
        run Judge()
    }
}
