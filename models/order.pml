/* The order of a store's entries, and the choice of a victim: a doubly linked list; its links
 * change together with the word of the entry that is appended, removed or renewed. Members put,
 * evict, read and remove; between any two reads of a word the others may change anything. With
 * -DSTOPS one of them stops at any step, and stays stopped.
 *
 *   here                    | src/store
 *   ------------------------+---------------------------------------------------------------
 *   append, renew           | StoreOrder::append, plan_append, renew
 *   plan_removal, take_out  | StoreOrder::plan_removal, remove
 *   victim                  | StoreOrder::victim, go_round, may_go, passes
 *   visit, one step         | StoreOrder::visit
 *   change, fail            | MultiWord::change(plan); see: a word that WordPlan::set() is given
 *   PUT                     | StoreCore::claim_entry, allocate, commit; StoreEntries::abort, unstick
 *   evict                   | StoreEntries::evict
 *   hold, let_go            | StoreEntries::pin, unpin, collect
 *   REMOVE                  | StoreEntries::remove
 *   EXPIRE                  | StoreCore::clear, of what is staged
 *
 * Entries are numbered from 1; number 0 is the state: older[0] is `newest`, newer[0] `oldest`. Each
 * read of a word is a step, and so is a change of several (words.pml). The model knows of each word
 * read whether it has changed since, also away and back, as its generation tells: `planned` are the
 * words read for a plan, `changed` those of them that have changed. A change that fails leaves new
 * generations in the words before the one at which it failed. Left out: visits beyond one, retained
 * objects, hash and index, the heap (Freeing and Free are one state), delayed stores, damage. A
 * death is a stop for the others, and janitors do no more to the entries of the dead than go_on
 * (store.pml).
 *
 * Checked: after every change the list from the oldest to the newest, and back, has exactly the
 * entries that are Resident or Evicting, once each; a change moves an entry only from the state
 * that its caller saw; an entry that is read is not freed; a failed attempt means that another made
 * progress, or failed itself and left a trace, at most MOST_FUTILE times in a row (with -DNO_TRACES
 * never; the more others try, the more often): so all attempts end, whichever member is stopped; a
 * round without a victim that is not the last means that an entry in it was passed by, or that
 * another made progress; no victim is found only if no entry may go all the time.
 *
 * Negative controls: -DNO_SECOND_LOOK (renew: is it the newest by now?), -DKEEP_OWN_LINKS (a
 * removal leaves them), -DNEWEST_TWICE (append: read for the link, and again for the plan),
 * -DREMOVE_ANY (whatever the word is by now), -DSAME_PAYLOAD (remove continues while the payload is
 * the same), -DFORGET_PASSING, -DPART_OF_A_ROUND (with -DSIEVE), -DONE_HAND (the link by which the
 * round came is not read again after the one by which it continues: where the current entry becomes
 * the newest, the entries in between are skipped, and the round seems complete).
 * -DRENEW_WITHOUT_WORD fails only together with -DBLIND_REMOVAL: a removal that does not check
 * whether its neighbours link to it.
 * That check, and those that -DBLIND_APPEND and -DBLIND_RENEWAL leave out (has the newest entry no
 * newer one?), would be covered by the words in the plan: the model must hold without each of them.
 */
#define PUT 1
#define READ 2
#define REMOVE 4
#define EXPIRE 8
#ifndef DOES_0  /* any sum of these */
#define DOES_0 (PUT + READ + REMOVE)
#endif
#ifndef DOES_1
#define DOES_1 (PUT + READ + REMOVE)
#endif
#ifndef DOES_2
#define DOES_2 (PUT + READ + REMOVE)
#endif
#ifndef TIMES_0  /* how many */
#define TIMES_0 2
#endif
#ifndef TIMES_1
#define TIMES_1 2
#endif
#ifndef TIMES_2
#define TIMES_2 1
#endif
#ifndef MEMBERS  /* 2 or 3 */
#define MEMBERS 2
#endif
#ifndef ENTRIES  /* up to 4 */
#define ENTRIES 3
#endif
#ifndef BEGUN    /* entries at the beginning */
#define BEGUN 3
#endif
#ifndef TRIES    /* of renew */
#define TRIES 2
#endif
#ifdef SIEVE     /* else LRU */
#define IS_SIEVE true
#else
#define IS_SIEVE false
#endif
#ifndef MOST_FUTILE /* failed attempts in a row without progress of another */
#ifdef NO_TRACES
#define MOST_FUTILE 0
#else
#define MOST_FUTILE MEMBERS
#endif
#endif
#ifdef NO_TRACES /* a change that fails leaves no trace */
#define LEFT_A_TRACE false
#else
#define LEFT_A_TRACE is_off
#endif
#ifdef KEEP_OWN_LINKS
#define SEE_OWN(bits) skip
#define SET_OWN(what) skip
#else
#define SEE_OWN(bits) see(bits)
#define SET_OWN(what) what
#endif
#define NONE 7
#define BIT(n) (1 << (n))

/* In the order of their addresses. */
#define WORD(e) (1 << (3 * (e) - 1))
#define NEWER(e) ((e) > 0 -> 1 << (3 * (e)) : 2)
#define OLDER(e) ((e) > 0 -> 2 << (3 * (e)) : 1)

mtype = { FREE, STAGED, EXPIRED, RESIDENT, EVICTING, DOOMED };

mtype state[ENTRIES + 1];
byte owner[ENTRIES + 1], newer[ENTRIES + 1], older[ENTRIES + 1];
byte holders[ENTRIES + 1];
bool visited[ENTRIES + 1];
byte hand;

short planned[MEMBERS], changed[MEMBERS];
byte reads[MEMBERS];             /* entry that it may read */
byte sure[MEMBERS];              /* entries that may go throughout its search */
bool is_calm[MEMBERS];           /* no other made progress during this attempt */
bool gone[MEMBERS];
byte stopped = NONE;
bool is_over;

#define IS_IN(e) (state[e] == RESIDENT || state[e] == EVICTING)


/* These are parts of a d_step or of an atomic. */
inline touch(bits) {
    changed[0] = changed[0] | (planned[0] & (bits));
    changed[1] = changed[1] | (planned[1] & (bits));
#if MEMBERS > 2
    changed[2] = changed[2] | (planned[2] & (bits));
#endif
    skip
}
/* Stores a word; any plan that read it is overtaken. */
inline set(e, s, m, bits) {
    state[e] = s;
    owner[e] = m;
    touch(bits);
    is_calm[0] = false;
    is_calm[1] = false;
    sure[0] = (state[e] != RESIDENT -> sure[0] & ~BIT(e) : sure[0]);
    sure[1] = (state[e] != RESIDENT -> sure[1] & ~BIT(e) : sure[1]);
#if MEMBERS > 2
    is_calm[2] = false;
    sure[2] = (state[e] != RESIDENT -> sure[2] & ~BIT(e) : sure[2]);
    assert(state[e] != FREE || reads[2] != e);
#endif
    assert(state[e] != FREE || (reads[0] != e && reads[1] != e));
    futile = 0
}
/* From the oldest to the newest, and back. */
inline look_through() {
    k = newer[0];
    prior = 0;
    found = 0;
    do
    :: k != 0 ->
       assert(IS_IN(k) && older[k] == prior);
       found++;
       assert(found <= ENTRIES);
       prior = k;
       k = newer[k]
    :: else -> break
    od;
    assert(older[0] == prior);
    k = 1;
    do
    :: k <= ENTRIES -> found = found - (IS_IN(k) -> 1 : 0); k++
    :: else -> break
    od;
    assert(found == 0);
    k = 0;
    prior = 0;
    found = 0
}
inline see(bits) { planned[self] = planned[self] | (bits) }
inline plan(bits) {
    planned[self] = (bits);
    changed[self] = 0;
    is_calm[self] = true
}
inline forget_plan() {
    planned[self] = 0;
    changed[self] = 0;
    next = 0;
    last = 0;
    first = 0;
    is_off = false
}
/* A failed attempt without progress of another: allowed only MOST_FUTILE times in a row. */
inline in_vain() {
    futile = (is_calm[self] -> futile + 1 : 0);
    assert(futile <= MOST_FUTILE)
}
inline fail() {
    k = 0;
    do
    :: (changed[self] & BIT(k)) == 0 -> k++
    :: else -> break
    od;
#ifndef NO_TRACES
    touch(planned[self] & (BIT(k) - 1));
#endif
    k = 0;
    in_vain()
}

inline plan_removal(e) {
    d_step { next = newer[e]; SEE_OWN(NEWER(e)) };
    d_step { last = older[e]; SEE_OWN(OLDER(e)) };
    d_step { is_off = (older[next] != e); see(OLDER(next)) };
    d_step { is_off = is_off || newer[last] != e; see(NEWER(last))
#ifdef BLIND_REMOVAL
             ; is_off = false
#endif
    }
}
inline take_out(e) {
    older[next] = last;
    newer[last] = next;
    SET_OWN(newer[e] = 0);
    SET_OWN(older[e] = 0)
}

/* The result is in is_done; the caller's read of the word is planned already. */
inline remove(e, from, to) {
    do
    :: true ->
#ifdef REMOVE_ANY
       d_step { plan(WORD(e)) };
#else
       d_step { planned[self] = WORD(e); changed[self] = changed[self] & WORD(e) };
#endif
       plan_removal(e);
       if
       :: d_step { !is_off && changed[self] == 0 ->
              assert(state[e] == from);
              take_out(e);
              set(e, to, 0, planned[self]);
              forget_plan();
              look_through();
              is_done = true };
          break
       :: d_step { !is_off && changed[self] != 0 -> fail() }
       :: d_step { is_off -> in_vain() }
       fi;
#ifdef SAME_PAYLOAD
       if
       :: atomic { state[e] != from || (from == EVICTING && owner[e] != self) ->
              forget_plan(); break }
       :: d_step { state[e] == from && (from != EVICTING || owner[e] == self) ->
              is_calm[self] = true }
       fi
#else
       if
       :: atomic { (changed[self] & WORD(e)) != 0 -> forget_plan(); break }
       :: d_step { (changed[self] & WORD(e)) == 0 -> is_calm[self] = true }
       fi
#endif
    od
}

/* commit(), to its end: Resident, or freed because it is Expired. */
inline append(e) {
    do
    :: d_step { state[e] == STAGED -> plan(WORD(e)) };
#ifdef NEWEST_TWICE
       d_step { next = older[0] };
       d_step { see(OLDER(0)) };
#else
       d_step { next = older[0]; see(OLDER(0)) };
#endif
       d_step { is_off = (newer[next] != 0); see(NEWER(next))
#ifdef BLIND_APPEND
                ; is_off = false
#endif
       };
       d_step { see(NEWER(e) | OLDER(e)) };
       if
       :: d_step { !is_off && changed[self] == 0 ->
              assert(state[e] == STAGED && owner[e] == self);
              older[0] = e;
              newer[next] = e;
              newer[e] = 0;
              older[e] = next;
              set(e, RESIDENT, 0, planned[self]);
              forget_plan();
              look_through() };
          break
       :: d_step { !is_off && changed[self] != 0 -> fail(); forget_plan() }
       :: d_step { is_off -> in_vain(); forget_plan() }
       fi
    :: d_step { state[e] == EXPIRED -> set(e, FREE, 0, WORD(e)) }; break
    od
}

inline renew(e) {
    do
    :: atomic { tries == TRIES || state[e] != RESIDENT -> break }
    :: d_step { tries < TRIES && state[e] == RESIDENT ->
           tries++;
#ifdef RENEW_WITHOUT_WORD
           plan(0)
#else
           plan(WORD(e))
#endif
       };
       if
       :: atomic { newer[e] == 0 -> break }
       :: newer[e] != 0
       fi;
       plan_removal(e);
       if
       :: d_step { is_off -> in_vain() }
       :: !is_off ->
          d_step { first = older[0]; see(OLDER(0)) };
          if
#ifndef NO_SECOND_LOOK
          :: atomic { first == e -> break }
          :: first != 0 && first != e ->
#else
          :: first != 0 ->
#endif
             d_step { is_off = (newer[first] != 0); see(NEWER(first))
#ifdef BLIND_RENEWAL
                      ; is_off = false
#endif
             };
             if
             :: d_step { !is_off && changed[self] == 0 ->
                    take_out(e);
                    older[0] = e;
                    newer[first] = e;
                    newer[e] = 0;
                    older[e] = first;
                    set(e, state[e], owner[e], planned[self]);
                    look_through() };
                break
             :: d_step { !is_off && changed[self] != 0 -> fail() }
             :: d_step { is_off -> in_vain() }
             fi
          :: d_step { first == 0 -> in_vain() }
          fi
       fi;
       d_step { forget_plan() }
    od;
    atomic { forget_plan(); tries = 0 }
}

/* The result is in e; 0: none. */
inline victim() {
    d_step {
        sure[self] = 0;
        k = 1;
        do
        :: k <= ENTRIES ->
           sure[self] = sure[self] | (state[k] == RESIDENT && holders[k] == 0 -> BIT(k) : 0);
           k++
        :: else -> break
        od;
        k = 0;
        at = (IS_SIEVE -> hand : 0)
    };
    do
    :: true ->
       d_step {
           is_whole = (at == 0);
           has_passed = false;
           last = 0;
           steps = 0;
           is_calm[self] = true;
           e = 0
       };
       if
       :: d_step { is_whole -> at = newer[0]; plan(NEWER(0)) }
       :: !is_whole
       fi;
       do
       :: atomic { at == 0 || steps == ENTRIES -> e = 0; break }
       :: d_step { at != 0 && steps < ENTRIES -> steps++; e = at; at = newer[e]; see(NEWER(e)) };
#ifndef ONE_HAND
          if
          :: atomic { (changed[self] & NEWER(last)) != 0 && is_whole ->
                 is_off = true; e = 0; break }
          :: d_step { (changed[self] & NEWER(last)) == 0 || !is_whole ->
                planned[self] = NEWER(e); changed[self] = changed[self] & NEWER(e); last = e }
          fi;
#else
          d_step { last = e };
#endif
          if
          :: state[e] != RESIDENT
          :: state[e] == RESIDENT ->
             if
             :: holders[e] != 0
             :: holders[e] == 0 ->
                if
                :: d_step { IS_SIEVE && visited[e] -> visited[e] = false;
#ifndef FORGET_PASSING
                            has_passed = true
#endif
                   }
                :: atomic { !(IS_SIEVE && visited[e]) -> hand = (IS_SIEVE -> at : 0); break }
                fi
             fi
          fi
       od;
       if
       :: atomic { e != 0 -> break }
       :: d_step { e == 0 ->
#ifndef ONE_HAND
              is_done = !is_off && at == 0;
#else
              is_done = (last == older[0]);
#endif
#ifndef PART_OF_A_ROUND
              is_done = is_done && is_whole;
#endif
              is_done = is_done && !has_passed;
              assert(is_done || !is_whole || has_passed || !is_calm[self] || LEFT_A_TRACE) };
          if
          :: d_step { is_done ->
                 assert(sure[self] == 0);
                 is_done = false };
             break
          :: d_step { !is_done -> at = 0; forget_plan() }
          fi
       fi
    od;
    atomic {
        forget_plan();
        sure[self] = 0; at = 0; steps = 0;
        is_whole = false; has_passed = false
    }
}

/* The result is in is_done. */
inline evict(e) {
    if
    :: d_step { state[e] == RESIDENT -> set(e, EVICTING, self, WORD(e)) };
       do
       :: atomic { !(state[e] == EVICTING && owner[e] == self) -> break }
       :: d_step { state[e] == EVICTING && owner[e] == self -> plan(WORD(e)) };
          if
          :: holders[e] != 0 ->
             if
             :: atomic { changed[self] == 0 -> set(e, RESIDENT, 0, WORD(e)); break }
             :: changed[self] != 0
             fi
          :: holders[e] == 0 ->
             remove(e, EVICTING, FREE);
             if
             :: is_done -> break
             :: !is_done
             fi
          fi
       od;
       atomic { forget_plan() }
    :: state[e] != RESIDENT
    fi
}

inline hold(e) {
    d_step {
        holders[e] = holders[e] | BIT(self);
        sure[0] = sure[0] & ~BIT(e);
        sure[1] = sure[1] & ~BIT(e);
#if MEMBERS > 2
        sure[2] = sure[2] & ~BIT(e);
#endif
    };
    d_step {
        if
        :: state[e] == RESIDENT -> reads[self] = e
        :: state[e] == EVICTING -> set(e, RESIDENT, 0, WORD(e)); reads[self] = e
        :: else
        fi
    }
}
inline let_go(e) {
    d_step {
        reads[self] = 0;
        holders[e] = holders[e] & ~BIT(self);
        if
        :: state[e] == DOOMED && holders[e] == 0 -> set(e, FREE, 0, WORD(e))
        :: else
        fi
    }
}
#define IS_FREE(n) (state[n] == FREE)
#define IS_STAGED(n) (state[n] == STAGED)
#if ENTRIES > 3
#define ANY(what) (what(1) || what(2) || what(3) || what(4))
#define CHOOSE(what) if :: what(1) -> e = 1 :: what(2) -> e = 2 :: what(3) -> e = 3              \
                     :: what(4) -> e = 4 fi
#else
#define ANY(what) (what(1) || what(2) || what(3))
#define CHOOSE(what) if :: what(1) -> e = 1 :: what(2) -> e = 2 :: what(3) -> e = 3 fi
#endif

proctype Member(byte self; byte does; byte times) provided (stopped + 1 != _pid) {
    byte e, at, next, last, first, tries, steps, futile, op, k, prior, found;
    bool is_off, is_done, is_whole, has_passed, has_looked;
    {
        do
        :: atomic { times == 0 -> break }
        :: atomic { times > 0 -> times--;
               if
               :: (does & PUT) != 0 -> op = PUT
               :: (does & READ) != 0 && ANY(IS_IN) -> op = READ; CHOOSE(IS_IN)
               :: (does & REMOVE) != 0 && ANY(IS_IN) -> op = REMOVE; CHOOSE(IS_IN)
               :: (does & EXPIRE) != 0 && ANY(IS_STAGED) -> op = EXPIRE; CHOOSE(IS_STAGED)
               :: true
               fi };
           if
           :: op == PUT ->
              do
              :: atomic { ANY(IS_FREE) ->
                     CHOOSE(IS_FREE); visited[e] = false; set(e, STAGED, self, WORD(e)) };
                 append(e);
                 break
              :: !ANY(IS_FREE) ->
                 victim();
                 if
                 :: e != 0 -> evict(e); is_done = false
                 :: e == 0 && !has_looked ->
                    has_looked = true;
                    e = 1;
                    do
                    :: d_step { e <= ENTRIES ->
                           if
                           :: state[e] == EVICTING -> set(e, RESIDENT, 0, WORD(e))
                           :: state[e] == DOOMED && holders[e] == 0 -> set(e, FREE, 0, WORD(e))
                           :: else
                           fi;
                           e++ }
                    :: e > ENTRIES -> break
                    od
                 :: e == 0 && has_looked -> break
                 fi
              od
           :: op == READ || op == REMOVE ->
              hold(e);
              if
              :: reads[self] == 0
              :: reads[self] != 0 && op == READ ->
                 if
                 :: d_step { IS_SIEVE -> visited[e] = true }
                 :: !IS_SIEVE -> renew(e)
                 fi
              :: reads[self] != 0 && op == REMOVE ->
                 do
                 :: d_step { state[e] == EVICTING -> set(e, RESIDENT, 0, WORD(e)) }
                 :: d_step { state[e] == RESIDENT -> plan(WORD(e)) };
                    remove(e, RESIDENT, DOOMED);
                    if
                    :: is_done -> is_done = false; break
                    :: !is_done
                    fi
                 :: atomic { !IS_IN(e) -> break }
                 od
              fi;
              let_go(e)
           :: d_step { op == EXPIRE ->
                  if
                  :: state[e] == STAGED -> set(e, EXPIRED, owner[e], WORD(e))
                  :: else
                  fi }
           :: op == 0
           fi;
           atomic { e = 0; op = 0; futile = 0; has_looked = false; forget_plan() }
        od;
        atomic { gone[self] = true };
        false
    } unless { is_over }
}

#ifdef STOPS
proctype Stopper() {
    if
    :: d_step { stopped == NONE && !gone[0] -> stopped = 0 }
    :: d_step { stopped == NONE && !gone[1] -> stopped = 1 }
#if MEMBERS > 2
    :: d_step { stopped == NONE && !gone[2] -> stopped = 2 }
#endif
    :: true
    fi
}
#endif

/* The end state, when no step is left. */
proctype Judge() {
    byte self, e, k, prior, found;
    timeout;
    d_step {
        do
        :: self < MEMBERS -> assert(gone[self] || stopped == self); self++
        :: else -> break
        od;
        look_through();
        e = 1;
        do
        :: e <= ENTRIES ->
           assert(stopped != NONE || state[e] == FREE || state[e] == RESIDENT);
           assert(stopped != NONE || holders[e] == 0);
           e++
        :: else -> break
        od;
        stopped = NONE;
        is_over = true
    }
}

init {
    byte e;
    atomic {
        e = 1;
        do
        :: e <= BEGUN ->
           state[e] = RESIDENT;
           older[e] = e - 1;
           newer[e - 1] = e;
           older[0] = e;
           e++
        :: e > BEGUN && e <= ENTRIES -> state[e] = FREE; e++
        :: e > ENTRIES -> break
        od;
        e = 0;
        run Member(0, DOES_0, TIMES_0);
        run Member(1, DOES_1, TIMES_1);
#if MEMBERS > 2
        run Member(2, DOES_2, TIMES_2);
#endif
#ifdef STOPS
        run Stopper();
#endif
        run Judge()
    }
}
