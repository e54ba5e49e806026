/* The store: participants reserve, commit, abort, read, retain, remove, clear and evict, with two
 * entries and memory for one object. Any may die at any step; participants, the janitor and the
 * janitor's successor reap the dead. With -DSTOPS all but one stop at any step, and stay stopped;
 * that one must then get everything that no living participant holds.
 *
 *   here              | src/store
 *   ------------------+---------------------------------------------------------------------
 *   PUT to commit     | StoreCore::stage, claim_entry, allocate; StoreEntries; StoreIndex::claim
 *   look_for_writer   | stage: the first look; refuse_staged
 *   acquire, release  | Pins
 *   pin, unpin        | StoreEntries::pin, unpin
 *   collect           | StoreEntries::collect
 *   evict             | StoreEntries::evict, StoreOrder::may_go
 *   remove            | StoreEntries::remove
 *   CLEAR             | StoreCore::clear
 *   go_on             | StoreCore::unstick_all, StoreEntries::unstick
 *   take_over         | StoreEntries::reap_entry, free
 *   reap_dead        | StoreCore::reap: Membership::reap_all_and_wait
 *   Janitor           | another participant: StoreCore::join (claim_any, inherit, enter), reap
 *
 * Several words at once are one step (words.pml), and so are a load and the compare-and-swap after
 * it where nothing else is read in between; a word that has changed since it was read is known by
 * its generation, here by `seen`. Left out: hints, the order of eviction, sizes; hash and tag are
 * compared together with the word, and again under the pin. A deadline may pass at any moment.
 *
 * Checked: a key is Staged, Resident or Evicting at most once; an object that a reader pinned and
 * checked is not freed before its release; a retained object is not evicted; a get that begins when
 * the key is there finds it, unless it is removed meanwhile; in the end there are only free entries
 * and objects, no holder bit is left, and all memory is free or an object's; a participant alone
 * gets memory and an entry that no living participant has, in a few attempts.
 *
 * That a participant alone comes to an end, whatever it does, is a formula (-DENDS, with -DSTOPS),
 * which needs a verifier compiled without -DSAFETY and run with -a: not a part of `run`.
 *
 * Negative controls: -DEVICT_BLINDLY, -DKEPT_FIRST, -DOLD_LOOK (at the holders, before the word
 * that it changes; needs -DSHARED), -DPIN_BLINDLY, -DMISS_EVICTING, -DLAST_DOES_NOT_LOOK,
 * -DFORGET_BITS, -DFORGET_FREEING, -DFORGET_DOOMED, -DNO_VERSION, -DTHERE_FIRST, -DCOMMIT_BLINDLY,
 * -DNO_BUSY (with -DSHARED), -DNO_GO_ON and -DNO_GO_ON_NEARBY (with -DSTOPS).
 */
#define PUT 1      /* key 0 */
#define OTHER 2    /* a put of key 1 */
#define GET 4      /* these: key 0 */
#define REMOVE 8
#define KEEP 16
#define CLEAR 32
#define PROBE 64   /* a put of key 2, by the participant alone */
#ifndef DOES_0     /* any sum of these */
#define DOES_0 (PUT + GET)
#endif
#ifndef DOES_1
#define DOES_1 (OTHER + REMOVE)
#endif
#ifndef DOES_2
#define DOES_2 GET
#endif
#ifndef TIMES_0    /* how many */
#define TIMES_0 1
#endif
#ifndef TIMES_1
#define TIMES_1 1
#endif
#ifndef TIMES_2
#define TIMES_2 1
#endif
#ifndef RUNNERS    /* besides the janitor */
#define RUNNERS 2
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef ROOM       /* memory, in objects */
#define ROOM 1
#endif
#ifndef EXPIRES    /* reservations have a deadline */
#define EXPIRES 1
#endif
#ifndef BIRTHS     /* joins in the slot of a dead participant */
#define BIRTHS 0
#endif
#define ENTRIES 2
#define JANITOR RUNNERS
#define NONE 7
#ifdef SHARED      /* runners 0 and 1 are threads of one participant; none dies */
#define MEMBER(t) ((t) == 1 -> 0 : (t))
#else
#define MEMBER(t) (t)
#endif
#define ME MEMBER(self)
#define BIT(m) (1 << (m))

mtype = { FREE, CLAIMED, STAGED, RESIDENT, EVICTING, DOOMED, FREEING, EXPIRED };
mtype = { ALIVE, DEAD, CLEARED };

mtype state[ENTRIES] = FREE;
byte owner[ENTRIES], key[ENTRIES], bits[ENTRIES];
bool kept[ENTRIES], has_memory[ENTRIES];
byte room = ROOM;

byte seen[RUNNERS + 1];          /* entry + 1 whose word has not changed since it was read */
bool seen_version[RUNNERS + 1];
byte has_pinned[RUNNERS + 1];    /* entry + 1 that it may read */
bool is_sure[RUNNERS + 1];       /* ghost: its key has been there all the time */
mtype life[RUNNERS + 1] = ALIVE;
byte lock[RUNNERS + 1];          /* of the dead: janitor + 1 */
bool gone[RUNNERS + 1];
byte deaths = DEATHS, births = BIRTHS;
byte alone = NONE;               /* continues when all others have stopped */
bool is_over;
#ifdef SHARED
#define BUSY 7
byte count[ENTRIES];             /* of participant 0 */
#endif

#if RUNNERS > 2
#define nobody_reads(e) \
    assert(has_pinned[0] != e + 1 && has_pinned[1] != e + 1 && has_pinned[2] != e + 1)
#else
#define nobody_reads(e) assert(has_pinned[0] != e + 1 && has_pinned[1] != e + 1)
#endif
#define IS_VALID(e) (state[e] == STAGED || state[e] == RESIDENT || state[e] == EVICTING)

/* These are parts of a d_step or of an atomic. */
inline set(e, s, m) {
    state[e] = s;
    owner[e] = m;
    seen[0] = (seen[0] == e + 1 -> 0 : seen[0]);
    seen[1] = (seen[1] == e + 1 -> 0 : seen[1]);
    seen[2] = (seen[2] == e + 1 -> 0 : seen[2]);
#if RUNNERS > 2
    seen[3] = (seen[3] == e + 1 -> 0 : seen[3]);
#endif
    assert(!(IS_VALID(0) && IS_VALID(1) && key[0] == key[1]))
}
inline not_sure(e) {
    is_sure[0] = is_sure[0] && key[e] != 0;
    is_sure[1] = is_sure[1] && key[e] != 0;
#if RUNNERS > 2
    is_sure[2] = is_sure[2] && key[e] != 0;
#endif
    skip
}

/* Frees the block, then the entry. */
inline finish_freeing() {
    d_step {
        assert(state[e] == FREEING && owner[e] == ME);
        nobody_reads(e);
        set(e, FREE, 0);
        key[e] = 0;
        kept[e] = false;
        room = room + has_memory[e];
        has_memory[e] = false
    }
}

inline collect() {
    do
    :: atomic { state[e] != DOOMED -> break }
    :: d_step { state[e] == DOOMED -> seen[self] = e + 1 };
       if
       :: atomic { bits[e] != 0 -> seen[self] = 0; break }
       :: bits[e] == 0
       fi;
       if
       :: d_step { seen[self] != 0 -> nobody_reads(e); set(e, FREEING, ME) };
          finish_freeing();
          break
       :: seen[self] == 0
       fi
    od
}

#ifdef SHARED
inline acquire() {
    if
    :: ME != 0 -> bits[e] = bits[e] | BIT(ME)
    :: ME == 0 ->
#ifdef NO_BUSY  /* the count is raised before the bit is set */
       if
       :: d_step { count[e] > 0 -> count[e]++ }
       :: d_step { count[e] == 0 -> count[e] = 1 };
          bits[e] = bits[e] | 1
       fi
#else
       if
       :: d_step { count[e] > 0 && count[e] != BUSY -> count[e]++ }
       :: d_step { count[e] == 0 -> count[e] = BUSY };
          bits[e] = bits[e] | 1;
          count[e] = 1
       fi
#endif
    fi
}
inline release() {
    if
    :: d_step { ME != 0 -> has_pinned[self] = 0; bits[e] = bits[e] & ~BIT(ME) }; is_last = true
    :: d_step { ME == 0 && count[e] > 1 && count[e] != BUSY ->
           has_pinned[self] = 0; count[e]--; is_last = false }
#ifdef NO_BUSY
    :: d_step { ME == 0 && count[e] == 1 -> has_pinned[self] = 0; count[e] = 0 };
       d_step { bits[e] = bits[e] & ~1; is_last = true }
#else
    :: d_step { ME == 0 && count[e] == 1 -> has_pinned[self] = 0; count[e] = BUSY };
       bits[e] = bits[e] & ~1;
       d_step { count[e] = 0; is_last = true }
#endif
    fi
}
#else
inline acquire() { bits[e] = bits[e] | BIT(ME) }
inline release() {
    d_step { has_pinned[self] = 0; bits[e] = bits[e] & ~BIT(ME); is_last = true }
}
#endif

inline unpin() {
    release();
#ifndef LAST_DOES_NOT_LOOK
    if
    :: is_last -> is_last = false; collect()
    :: else
    fi
#else
    is_last = false
#endif
}

/* The result is in has_pinned. */
inline pin() {
    acquire();
    do
    :: d_step { state[e] == RESIDENT -> has_pinned[self] = e + 1 }; break
#ifdef PIN_BLINDLY
    :: d_step { state[e] != RESIDENT -> has_pinned[self] = e + 1 }; break
#elif defined(MISS_EVICTING)
    :: state[e] != RESIDENT -> unpin(); break
#else
    :: d_step { state[e] == EVICTING -> set(e, RESIDENT, 0); has_pinned[self] = e + 1 }; break
    :: state[e] != RESIDENT && state[e] != EVICTING -> unpin(); break
#endif
    od
}

/* The result is in is_done. */
inline evict() {
    if
    :: d_step { state[e] == RESIDENT -> set(e, EVICTING, ME) };
       do
#ifdef OLD_LOOK
       :: true ->
          d_step { is_wanted = (bits[e] != 0) };
          d_step { is_wanted = is_wanted || kept[e] };
          if
          :: d_step { state[e] == EVICTING && owner[e] == ME -> seen[self] = e + 1 }
          :: atomic { !(state[e] == EVICTING && owner[e] == ME) -> break }
          fi;
#else
       :: atomic { !(state[e] == EVICTING && owner[e] == ME) -> break }
       :: d_step { state[e] == EVICTING && owner[e] == ME -> seen[self] = e + 1 };
#ifdef EVICT_BLINDLY
          skip;
#elif defined(KEPT_FIRST)
          is_wanted = kept[e];
          is_wanted = is_wanted || bits[e] != 0;
#else
          is_wanted = (bits[e] != 0);
          if
          :: is_wanted
          :: !is_wanted -> is_wanted = kept[e]
          fi;
#endif
#endif
          if
          :: atomic { seen[self] != 0 && is_wanted -> set(e, RESIDENT, 0); break }
          :: d_step { seen[self] != 0 && !is_wanted ->
                 assert(!kept[e]);
                 nobody_reads(e);
                 not_sure(e);
                 set(e, FREEING, ME) };
             finish_freeing();
             is_done = true;
             break
          :: d_step { seen[self] == 0 -> is_wanted = false }
          fi
       od;
       is_wanted = false
    :: state[e] != RESIDENT
    fi
}

inline remove() {
    do
    :: d_step { state[e] == EVICTING -> set(e, RESIDENT, 0) }
    :: d_step { state[e] == RESIDENT -> not_sure(e); set(e, DOOMED, 0) }; break
    :: state[e] != EVICTING && state[e] != RESIDENT -> break
    od
}

inline go_on() {
    e = 0;
    do
    :: e < ENTRIES ->
       collect();
       atomic {
           if
           :: state[e] == EVICTING -> set(e, RESIDENT, 0)
           :: else
           fi;
           e++
       }
    :: else -> break
    od
}

inline take_over(who) {
    e = 0;
    do
    :: e < ENTRIES ->
#ifndef FORGET_BITS
       if
       :: d_step { (bits[e] & BIT(who)) != 0 -> bits[e] = bits[e] & ~BIT(who) }
       :: (bits[e] & BIT(who)) == 0
       fi;
#endif
#ifndef FORGET_DOOMED
       collect();
#endif
       if
       :: d_step { state[e] == EVICTING && owner[e] == who -> set(e, RESIDENT, 0) }
       :: d_step { (state[e] == CLAIMED || state[e] == STAGED || state[e] == EXPIRED
#ifndef FORGET_FREEING
                    || state[e] == FREEING
#endif
                   ) && owner[e] == who -> set(e, FREEING, ME) };
          finish_freeing()
       :: else
       fi;
       e++
    :: else -> break
    od;
    e = 0
}

/* Entries of a dead participant without a janitor. */
#if DEATHS > 0
inline reap_dead() {
    place = 0;
    do
    :: atomic { place <= RUNNERS && place != ME && life[place] == DEAD && lock[place] == 0 ->
           lock[place] = self + 1 };
       take_over(place);
       d_step { life[place] = CLEARED; lock[place] = 0; place++ }
    :: atomic { place <= RUNNERS && (place == ME || life[place] != DEAD || lock[place] != 0) ->
           place++ }
    :: atomic { place > RUNNERS -> place = 0; break }
    od
}
#else
inline reap_dead() { skip }
#endif

#define IS_DEAD(m) (life[m] == DEAD && lock[m] == 0)
#define DEAD_BITS ((IS_DEAD(0) -> 1 : 0) + (IS_DEAD(1) -> 2 : 0) + (IS_DEAD(2) -> 4 : 0))
/* No living participant has the entry. */
#define IS_TO_BE_HAD(e)                                                                          \
    (state[e] == FREE ||                                                                         \
     ((state[e] == RESIDENT || state[e] == EVICTING) && !kept[e] &&                              \
      (bits[e] & ~DEAD_BITS) == 0) ||                                                            \
     (state[e] == DOOMED && (bits[e] & ~DEAD_BITS) == 0) ||                                      \
     ((state[e] == CLAIMED || state[e] == STAGED || state[e] == EXPIRED ||                       \
       state[e] == FREEING) && IS_DEAD(owner[e])))

#define KEY (op == PROBE -> 2 : (op == OTHER -> 1 : 0))
#define IS_PUT (op == PUT || op == OTHER || op == PROBE)

/* The writer of a staged entry decides: goes to `again` or to `done`, or continues. */
inline look_for_writer() {
    e = 0;
    do
    :: d_step { e < ENTRIES && !(state[e] == STAGED && key[e] == KEY) -> e++ }
    :: atomic { e < ENTRIES && state[e] == STAGED && key[e] == KEY ->
           seen[self] = e + 1; other = owner[e] };
       if
#if EXPIRES
       :: d_step {
              if
              :: seen[self] != 0 -> set(e, EXPIRED, other)
              :: else
              fi;
              other = 0 };
          goto again
#endif
#if DEATHS > 0
       :: other != ME && life[other] == DEAD ->
          seen[self] = 0;
          reap_dead();
          other = 0;
          goto again
#endif
       :: other == ME || life[other] != DEAD -> goto done
       fi
    :: atomic { e == ENTRIES -> e = 0; break }
    od
}

inline forget() {
    seen[self] = 0; seen_version[self] = false; has_pinned[self] = 0; is_sure[self] = false;
    e = 0; op = 0; mine = 0; other = 0; tries = 0; place = 0; round = 0;
    is_done = false; is_wanted = false; is_last = false; has_cleared = false; has_looked = false;
    is_owed = false; is_pinned = false
}

proctype Member(byte self; byte does; byte times) provided (alone == NONE || alone + 1 == _pid) {
    byte e, op, mine, other, tries, place, round;
    bool is_done, is_wanted, is_last, has_cleared, has_looked, is_owed, is_pinned,
        has_probed;
born:
    {
        skip;
next:
        if
        :: atomic { alone == self && !has_probed ->
               has_probed = true;
               op = PROBE;
               is_owed = (IS_TO_BE_HAD(0) || IS_TO_BE_HAD(1)) &&
                         (room > 0 || (IS_TO_BE_HAD(0) && has_memory[0]) ||
                          (IS_TO_BE_HAD(1) && has_memory[1])) }
        :: atomic { times > 0 && alone == NONE && (does & PUT) != 0 -> times--; op = PUT }
        :: atomic { times > 0 && alone == NONE && (does & OTHER) != 0 -> times--; op = OTHER }
        :: atomic { times > 0 && alone == NONE && (does & GET) != 0 -> times--; op = GET;
               is_sure[self] =
                   (((state[0] == RESIDENT || state[0] == EVICTING) && key[0] == 0) ||
                    ((state[1] == RESIDENT || state[1] == EVICTING) && key[1] == 0)) }
        :: atomic { times > 0 && alone == NONE && (does & REMOVE) != 0 -> times--; op = REMOVE }
        :: atomic { times > 0 && alone == NONE && (does & KEEP) != 0 -> times--; op = KEEP }
        :: atomic { times > 0 && alone == NONE && (does & CLEAR) != 0 -> times--; op = CLEAR };
           do
           :: d_step { e < ENTRIES && state[e] == STAGED -> set(e, EXPIRED, owner[e]); e++ }
           :: e < ENTRIES && (state[e] == RESIDENT || state[e] == EVICTING) ->
              pin();
              if
              :: has_pinned[self] != 0 -> remove(); unpin()
              :: else
              fi;
              e++
           :: d_step { e < ENTRIES && state[e] != STAGED && state[e] != RESIDENT &&
                       state[e] != EVICTING -> e++ }
           :: e == ENTRIES -> break
           od;
           goto done
        :: (times == 0 || alone == self) && (alone == NONE || has_probed) -> goto end_leaving
        fi;
again:
        atomic {
            e = 0;
            mine = 0;
            has_cleared = false;
            round = 0;
            if
            :: op == PROBE -> tries++; assert(tries < 4)
            :: else
            fi;
            seen_version[self] = IS_PUT
        };
#ifndef THERE_FIRST
        if
        :: IS_PUT -> look_for_writer()
        :: else
        fi;
#endif
        /* pin_hash() */
        do
        :: d_step { e < ENTRIES && !((state[e] == RESIDENT || state[e] == EVICTING) &&
                                     key[e] == KEY) -> e++ }
        :: e < ENTRIES && (state[e] == RESIDENT || state[e] == EVICTING) && key[e] == KEY ->
           pin();
           if
           :: has_pinned[self] != 0 && key[e] == KEY ->
              is_sure[self] = false;
              if
              :: op == GET -> assert(has_memory[e])
              :: op == REMOVE -> remove()
              :: op == KEEP -> kept[e] = true
              :: else
              fi;
              assert(has_memory[e] && key[e] == KEY);
              unpin();
              goto done
           :: has_pinned[self] != 0 && key[e] != KEY -> unpin()
           :: has_pinned[self] == 0
           fi;
           e++
        :: e == ENTRIES -> break
        od;
        if
        :: atomic { !IS_PUT -> assert(!is_sure[self]); goto done }
        :: IS_PUT
        fi;
#ifdef THERE_FIRST
        look_for_writer();
#endif
        /* claim_entry() */
        e = 0;
        do
        :: atomic { e < ENTRIES && state[e] == FREE ->
               set(e, CLAIMED, ME); key[e] = KEY; mine = e; break }
        :: d_step { e < ENTRIES && state[e] != FREE -> e++ }
        :: e == ENTRIES && !has_cleared ->
           reap_dead();
#ifndef NO_GO_ON_NEARBY
           go_on();
#endif
           atomic { has_cleared = true; e = 0 }
        :: e == ENTRIES && has_cleared && round < ENTRIES ->
           e = round;
           evict();
           atomic { is_done = false; round++; e = 0 }
        :: atomic { e == ENTRIES && has_cleared && round == ENTRIES ->
               assert(!is_owed);
               goto done }
        od;
        atomic { e = mine; has_cleared = false; round = 0 };
        if
#ifdef NO_VERSION
        :: d_step { true ->
#else
        :: d_step { seen_version[self] ->
#endif
               seen_version[0] = false;
               seen_version[1] = false;
#if RUNNERS > 2
               seen_version[2] = false;
#endif
               kept[e] = false;
               set(e, STAGED, ME) }
#ifndef NO_VERSION
        :: d_step { !seen_version[self] -> set(e, FREEING, ME) };
           finish_freeing();
           goto again
#endif
        fi;
        /* allocate() */
        do
        :: atomic { room > 0 -> room--; has_memory[mine] = true; break }
        :: room == 0 && !has_cleared -> reap_dead(); has_cleared = true
        :: room == 0 && has_cleared ->
           e = 0;
           do
           :: d_step { e < ENTRIES && !(state[e] == RESIDENT && !kept[e] && bits[e] == 0) -> e++ }
           :: e < ENTRIES && state[e] == RESIDENT && !kept[e] && bits[e] == 0 ->
              evict();
              if
              :: is_done -> is_done = false; break
              :: else -> e = 0
              fi
           :: e == ENTRIES -> break
           od;
           if
           :: e < ENTRIES
           :: e == ENTRIES && !has_looked ->
#ifndef NO_GO_ON
              go_on();
#endif
              has_looked = true
           :: atomic { e == ENTRIES && has_looked -> assert(!is_owed); goto abort }
           fi
        od;
        atomic { e = mine; has_cleared = false; has_looked = false };
        if
        :: true   /* commit() */
        :: true -> acquire(); is_pinned = true  /* commit_pinned() */
        :: goto abort
        fi;
        if
#ifdef COMMIT_BLINDLY
        :: d_step { true ->
#else
        :: d_step { state[e] == STAGED && owner[e] == ME ->
#endif
               set(e, RESIDENT, 0);
               has_pinned[self] = (is_pinned -> e + 1 : 0) };
           if
           :: is_pinned -> assert(has_memory[e] && key[e] == KEY); unpin()
           :: else
           fi;
           goto done
#ifndef COMMIT_BLINDLY
        :: state[e] != STAGED || owner[e] != ME
#endif
        fi;
abort:
        atomic {
            e = mine;
            assert((state[e] == STAGED || state[e] == EXPIRED) && owner[e] == ME);
            set(e, FREEING, ME)
        };
        finish_freeing();
        if
        :: is_pinned -> unpin()
        :: else
        fi;
done:
        atomic { forget() };
        goto next;
end_leaving:
        atomic { life[self] = CLEARED; gone[self] = true };
        false
    } unless { life[self] != ALIVE || is_over };
    d_step { forget() };
#if BIRTHS > 0  /* StoreCore::join() of another */
    if
    :: atomic { !gone[self] && !is_over && births > 0 && alone == NONE && lock[self] == 0 ->
           births--; lock[self] = self + 1 };
       if
       :: life[self] == DEAD -> take_over(self)
       :: else
       fi;
       d_step { life[self] = ALIVE; lock[self] = 0 };
       goto born
    :: true
    fi;
#endif
    d_step { times = 0; gone[self] = true }
}

/* The participant with the dead one's lock. If it dies too, its successor begins with its own
 * slot. */
proctype Janitor(byte self) provided (alone == NONE) {
    byte e, place;
    bool is_last;
born:
    {
        if
        :: life[self] == ALIVE
        :: atomic { life[self] != ALIVE && lock[self] == 0 -> lock[self] = self + 1 };
           if
           :: life[self] == DEAD -> take_over(self)
           :: else
           fi;
           d_step { life[self] = ALIVE; lock[self] = 0 }
        fi;
end_idle:
        do
        :: IS_DEAD(0) || IS_DEAD(1) || (RUNNERS > 2 && IS_DEAD(RUNNERS - 1)) -> reap_dead()
        od
    } unless { gone[self] || is_over };
    d_step { gone[self] = false; e = 0; place = 0; seen[self] = 0 };
    if
    :: !is_over -> goto born
    :: is_over
    fi
}

inline die(who) {
    deaths--;
    life[who] = DEAD;
    seen[who] = 0;
    has_pinned[who] = 0;
    is_sure[who] = false;
    lock[0] = (lock[0] == who + 1 -> 0 : lock[0]);
    lock[1] = (lock[1] == who + 1 -> 0 : lock[1]);
    lock[2] = (lock[2] == who + 1 -> 0 : lock[2]);
#if RUNNERS > 2
    lock[3] = (lock[3] == who + 1 -> 0 : lock[3]);
#endif
    skip
}

proctype Killer() {
end:
    do
#if DEATHS > 0
    :: d_step { deaths > 0 && alone == NONE && life[0] == ALIVE -> die(0) }
    :: d_step { deaths > 0 && alone == NONE && life[1] == ALIVE -> die(1) }
    :: d_step { deaths > 0 && alone == NONE && !gone[JANITOR] &&
                (lock[0] == JANITOR + 1 || lock[1] == JANITOR + 1 || lock[2] == JANITOR + 1) ->
           die(JANITOR); gone[JANITOR] = true }
    :: d_step { deaths > 0 -> deaths = 0 }
#endif
#ifdef STOPS
    :: d_step { alone == NONE && life[0] == ALIVE -> alone = 0 }
    :: d_step { alone == NONE && life[1] == ALIVE -> alone = 1 }
    :: alone != NONE -> break
#endif
    :: false
    od
}

/* The end state, when no step is left. */
proctype Judge() {
    byte b, e;
    timeout;
    d_step {
        if
        :: alone != NONE -> assert(gone[alone]); alone = NONE; is_over = true
        :: else ->
           assert(gone[0] && gone[1]);
           assert(life[0] != DEAD && life[1] != DEAD && life[JANITOR] == ALIVE);
#if RUNNERS > 2
           assert(gone[2] && life[2] != DEAD);
#endif
           b = room;
           do
           :: e < ENTRIES ->
              assert(state[e] == FREE || state[e] == RESIDENT);
              assert(has_memory[e] == (state[e] == RESIDENT));
              assert(bits[e] == 0);
              b = b + has_memory[e];
              e++
           :: else -> break
           od;
           assert(b == ROOM)
        fi
    }
}

#ifdef ENDS
ltl ends { !<>[](alone == 0 && !gone[0]) && !<>[](alone == 1 && !gone[1]) }
#endif

init {
    atomic {
#ifdef BEGUN  /* key 0 is there */
        state[0] = RESIDENT;
        has_memory[0] = true;
        room--;
#endif
        run Member(0, DOES_0, TIMES_0);
        run Member(1, DOES_1, TIMES_1);
#if RUNNERS > 2
        run Member(2, DOES_2, TIMES_2);
#endif
#if DEATHS > 0
        run Janitor(JANITOR);
#endif
        run Killer();
        run Judge()
    }
}
