/* Memory that a dead participant of a store held, while its janitor or its successor is at work: a
 * participant that needs it must not report that there is none. One participant dies at any step,
 * or has died; a janitor and a process that joins in its slot reap it, and may die while they do.
 *
 *   here               | src/segment/life/membership.hpp
 *   -------------------+---------------------------------------------------------
 *   claim              | Participants::claim: life, note_dead, try_claim, note_dead
 *   clear_place        | Membership::reap, StoreCore::take_over
 *   HAS_JANITOR        | Participants::has_janitor
 *   await_janitor      | Membership::await_janitor, with endless patience here
 *   Reserver           | StoreCore::allocate: reap, then the second look
 *   Successor          | Membership::claim_any, inherit, enter
 *
 * Left out: the janitor's work on entries and blocks (store.pml), and the end of patience.
 *
 * Checked: a reserver that begins when no living participant has the memory gets it, unless another
 * does; a participant was found dead before its holdings are taken over.
 *
 * Negative controls: -DMARK_LATE (found_dead is stored after the lock is taken), -DNO_WAIT,
 * -DNOTE_ONCE (not again after the lock is taken: another may have joined and died in between), and
 * -DLOOKS=1 with -DDEATHS=1 -DJANITOR=0: the janitor owns the memory for a moment and dies, in a
 * slot that has been looked at already.
 */
#ifndef DEATHS   /* of the janitor or the successor */
#define DEATHS 0
#endif
#ifndef JANITOR  /* its slot; the first dead participant has the other */
#define JANITOR 1
#endif
#ifndef LOOKS    /* at all slots */
#define LOOKS 2
#endif
#define FIRST (1 - JANITOR)
#define SUCCESSOR 3  /* in the slot of the first */
#define RESERVER 2

byte joins[2] = 1, found[2], lock[2];  /* lock: owner + 1 */
bool announced[2] = true, holds[2];
bool room, over[4], is_killed[4];
byte deaths = DEATHS;

#define IS_DEAD(p) (announced[p] && lock[p] == 0)

/* The result is in has_lock. */
inline claim(p) {
    d_step { join = joins[p]; is_dead = IS_DEAD(p); is_alive = announced[p] && lock[p] != 0 };
    if
    :: is_alive
    :: !is_alive ->
#ifndef MARK_LATE
       if
       :: d_step { is_dead && joins[p] == join -> found[p] = (found[p] < join -> join : found[p]) }
       :: !is_dead || joins[p] != join
       fi;
#endif
       if
       :: atomic { lock[p] == 0 -> lock[p] = self + 1; has_lock = true }
       :: lock[p] != 0
       fi;
#ifdef MARK_LATE
       if
       :: d_step { has_lock && is_dead -> found[p] = (found[p] < join -> join : found[p]) }
       :: !has_lock || !is_dead
       fi
#elif !defined(NOTE_ONCE)
       if
       :: d_step { has_lock && announced[p] && found[p] < joins[p] -> found[p] = joins[p] }
       :: !has_lock || !announced[p] || found[p] >= joins[p]
       fi
#endif
    fi;
    atomic { join = 0; is_dead = false; is_alive = false }
}
/* The janitor owns the dead participant's memory for a moment. */
inline take_over(p, to) {
    atomic { holds[p] -> holds[p] = false; holds[to] = true };
    atomic { holds[to] = false; room = true }
}
/* The result is in has_lock. */
inline clear_place(p) {
    claim(p);
    if
    :: has_lock ->
       if
       :: announced[p] ->
          assert(found[p] == joins[p]);
          if
          :: self == RESERVER && holds[p] -> atomic { holds[p] = false; room = true }
          :: self != RESERVER && holds[p] -> take_over(p, JANITOR)
          :: !holds[p]
          fi;
          announced[p] = false
       :: !announced[p]
       fi;
       lock[p] = 0
    :: !has_lock
    fi
}

#define HAS_JANITOR(p) (joins[p] == found[p] && announced[p])

inline await_janitor(p) {
    do
    :: atomic { !HAS_JANITOR(p) -> break }
    :: atomic { HAS_JANITOR(p) && IS_DEAD(p) };
       clear_place(p);
       if
       :: atomic { has_lock -> has_lock = false; break }
       :: !has_lock
       fi
    od
}

proctype Reserver() {
    byte self = RESERVER, p, join, looks = 1;
    bool is_dead, is_alive, has_lock, is_owed;
    atomic { is_owed = (lock[FIRST] != FIRST + 1) };
    if
    :: room -> goto end
    :: !room
    fi;
    do
    :: p < 2 ->
       if
       :: IS_DEAD(p) -> clear_place(p)
       :: !IS_DEAD(p)
       fi;
       if
       :: has_lock -> has_lock = false; p++
#ifndef NO_WAIT
       :: !has_lock && HAS_JANITOR(p) -> await_janitor(p); p++
       :: !has_lock && !HAS_JANITOR(p) -> p++
#else
       :: !has_lock -> p++
#endif
       fi
    :: p == 2 && looks < LOOKS -> atomic { p = 0; looks++ }
    :: p == 2 && looks == LOOKS -> break
    od;
    atomic { assert(room || !is_owed) };
end:
    over[RESERVER] = true
}

proctype Janitor() {
    byte self = JANITOR, join;
    bool is_dead, is_alive, has_lock;
    {
        if
        :: IS_DEAD(FIRST) -> clear_place(FIRST)
        :: true
        fi;
        over[self] = true;
        false
    } unless { is_killed[JANITOR] || over[JANITOR] }
}

proctype Successor() {
    byte self = SUCCESSOR, join;
    bool is_dead, is_alive, has_lock;
    {
        claim(FIRST);
        if
        :: has_lock ->
           if
           :: announced[FIRST] ->
              assert(found[FIRST] == joins[FIRST]);
              if
              :: holds[FIRST] -> atomic { holds[FIRST] = false; room = true }
              :: !holds[FIRST]
              fi;
              announced[FIRST] = false
           :: !announced[FIRST]
           fi;
           atomic { joins[FIRST]++; announced[FIRST] = true }
        :: !has_lock
        fi;
        over[self] = true;
        false
    } unless { is_killed[SUCCESSOR] || over[SUCCESSOR] }
}

inline let_locks_go(who) {
    lock[0] = (lock[0] == who + 1 -> 0 : lock[0]);
    lock[1] = (lock[1] == who + 1 -> 0 : lock[1])
}

proctype Killer() {
    let_locks_go(FIRST);
    do
    :: d_step { deaths > 0 && !over[JANITOR] -> deaths--; is_killed[JANITOR] = true;
                let_locks_go(JANITOR) }
    :: d_step { deaths > 0 && !over[SUCCESSOR] -> deaths--; is_killed[SUCCESSOR] = true;
                let_locks_go(SUCCESSOR) }
    :: true -> break
    od
}

init {
    atomic {
        lock[FIRST] = FIRST + 1;
        lock[JANITOR] = JANITOR + 1;
        holds[FIRST] = true;
        run Reserver();
        run Janitor();
        run Successor();
        run Killer()
    }
}
