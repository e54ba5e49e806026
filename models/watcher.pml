/* The watcher: a process's thread that is told by pidfds of the end of processes, and wakes that
 * process's waits. A wait whose peers are all watched sleeps without end here (for kLongSlice in
 * the sources, as a safety net); every other wait sleeps in slices.
 *
 *   here        | src/segment/waiting
 *   ------------+--------------------------------------------------------------------------------
 *   list        | LongWait::next_slice, Watcher::watches
 *   look        | wait_until: peer_gone, Cancel
 *   ask         | LongWait::is_to_ask, Wait::interrupted
 *   rouse       | Watcher::rouse_next, LongWait::rouse, Signal::rouse, with the watcher's mutex
 *   serve       | Watcher::serve, settle; os::ProcessWatch::add
 *   note        | Watcher::note, run; the mutex is free before the waits are roused
 *   Peer        | the kernel: locks are released, then the pidfd is readable. A process that was
 *               | forked off and has not closed its copy yet may hold the lock for longer
 *   Joiner      | QueueCore::join, StoreCore::join
 *   Canceller   | Cancel::cancel
 *   Asker       | what `interrupted` looks at, then ask_all_waits()
 *   Other       | a waker of another wait on the same word: Signal::wake. -DNEIGHBOUR: the waker of
 *               | Neighbour, which waits for its change in another process. The watcher's process may
 *               | die in the middle of rouse, and only wakes its own sleepers
 *
 * Checked: the waiter does not sleep for ever (invalid end states): it notices that the lock is
 * free, whatever the order of its look, its sleep, the peer's death and the watcher's steps.
 * -DJOINS: the peer joins while the waiter waits, and dies. -DCANCELS: the peer lives, the wait is
 * cancelled. -DASKS: the peer lives, and what `interrupted` looks at changes.
 * -DNEIGHBOUR: nor does a waiter of another process, whose waker has made its change.
 * Negative controls: -DNEIGHBOUR -DCLEAR (rouse clears the announcement), -DNO_CHANGE (rouse wakes sleepers and does not change the word), -DASSUME
 * (sleeps long when it has asked), -DTRUST_PIDFD (the dead stay watched), -DJOINS -DNO_NOTICE,
 * -DCANCELS -DRAISE_FIRST, -DCANCELS -DLIST_LATE (after the look), -DASKS -DNO_LOOK_AT_FLAG (sleeps
 * long although it was told to ask while it was awake), -DASKS -DLONG_AT_ONCE (before it has asked
 * since it was listed). -DLIST_LATE alone must pass: a peer that ends before the wait is listed is
 * not watched any more.
 */
mtype = { Unknown, Asked, Watched, Unwatched };

byte word;            /* bit 0: announced; the rest counts wake-ups */
bool asleep, neighbour_asleep;
bool mutex;           /* the watcher's */
bool listed;
mtype state = Unknown;  /* of the peer, for the watcher */
bool asked, raised;   /* a request to watch it; the watcher's pipe is readable */
bool in_set;          /* the pidfd is in the epoll set */
bool readable;        /* the pidfd: the peer has ended */
bool lock = true;
bool cancelled;
bool killed;          /* the process of the waiter and the watcher */
bool sent;            /* what the neighbour waits for */
bool due, asks_all, told;  /* ASKS: interrupted() is true; for the watcher; for the wait */
#ifdef JOINS
bool joined;
#else
bool joined = true;
#endif

#define GONE (cancelled || (joined && !lock))

inline announce() { d_step { word = word | 1; seen = word } }

/* Wakes all sleepers on the word, and lets no announced waiter begin to sleep. */
inline wake() {
    d_step {
        if
        :: word & 1 -> word++
        :: else
        fi
    };
    d_step { asleep = false; neighbour_asleep = false }
}

/* The same for those of its own process. The announcement stays. */
inline rouse() {
#ifndef NO_CHANGE
    d_step {
        if
#ifdef CLEAR
        :: word & 1 -> word++
#else
        :: word & 1 -> word = word + 2
#endif
        :: else
        fi
    };
#endif
#ifdef NEIGHBOUR
    if
    :: true
    :: killed = true; goto over
    fi;
#endif
    asleep = false
}

/* The exchange of the flag, and interrupted(). */
inline ask() {
    d_step { is_told = told; told = false };
    if
    :: is_told || has_passed -> has_asked = true;
       if
       :: due -> break
       :: else
       fi
    :: else
    fi;
    d_step { is_told = false; has_passed = false }
}

/* A sleep before the first ask is no long one. */
#if defined(ASKS) && !defined(LONG_AT_ONCE)
#define MAY_BE_LONG has_asked
#else
#define MAY_BE_LONG true
#endif

inline list() {
    atomic {
        !mutex ->
        listed = true;
        if
        :: joined && state == Unknown -> state = Asked; asked = true; raised = true
        :: else
        fi;
#ifdef ASSUME
        is_long = !joined || state == Watched || state == Asked
#else
        is_long = MAY_BE_LONG && (!joined || state == Watched)
#endif
    }
}

proctype Waiter() {
    byte seen;
    bool is_long, is_told, has_passed, has_asked;
    {
    announce();
    do
    ::
#ifndef LIST_LATE
       list();
#endif
       if
       :: GONE -> break
       :: else
       fi;
#ifdef LIST_LATE
       list();
#endif
#if defined(ASKS) && !defined(NO_LOOK_AT_FLAG)
       is_told = told;
#endif
       d_step { asleep = (word == seen && !is_told); is_told = false };
       if
       :: !asleep
       :: atomic { asleep && !is_long -> asleep = false; has_passed = true }  /* of a slice */
       fi;
#ifdef ASKS
       ask();
#endif
       if
       :: word != seen -> announce()
       :: else
       fi
    od;
    atomic { !mutex -> listed = false }
    } unless { killed }
}

proctype Watcher() {
    bool is_gone, is_to_ask;
end:
    do
    :: atomic { in_set && readable -> in_set = false };
#ifndef TRUST_PIDFD
       atomic { !mutex -> state = Unwatched };
#endif
       atomic { !mutex -> mutex = true };
       if
       :: listed -> rouse()
       :: else
       fi;
       mutex = false
    :: atomic { raised -> raised = false };
       d_step { is_to_ask = asks_all; asks_all = false };
       atomic { !mutex -> mutex = true };
       if
       :: listed && is_to_ask -> told = true; rouse()
       :: listed && !is_to_ask && cancelled -> rouse()
       :: else
       fi;
       is_to_ask = false;
       mutex = false;
       atomic {
           if
           :: asked -> asked = false
           :: else -> goto end
           fi
       };
       atomic {
           if
           :: readable -> is_gone = true  /* and reaped: pidfd_open fails */
           :: in_set = true  /* if it is readable by now, the next wait returns at once */
           fi
       };
       atomic { !mutex -> state = (is_gone -> Unwatched : Watched) };
       atomic { !mutex -> mutex = true };
#ifndef ASSUME
       if
       :: is_gone && listed -> rouse()
       :: else
       fi;
#endif
       mutex = false
    od;
over:
    skip
}

proctype Neighbour() {
    byte seen;
    do
    :: announce();
       if
       :: sent -> break
       :: else
       fi;
       d_step { neighbour_asleep = (word == seen) };
       !neighbour_asleep
    od
}

proctype Peer() {
    bool has_heir;
#ifdef JOINS
    joined = true;
#ifndef NO_NOTICE
    if
    :: word & 1 -> wake()
    :: else
    fi;
#endif
#endif
    if
    :: lock = false
    :: has_heir = true
    fi;
    readable = true;
    lock = false
}

proctype Canceller() {
#ifdef RAISE_FIRST
    raised = true;
    cancelled = true
#else
    cancelled = true;
    raised = true
#endif
}

proctype Asker() {
    due = true;
    asks_all = true;
    raised = true
}

proctype Other() {
#ifdef NEIGHBOUR
    sent = true;
    if
    :: word & 1 -> wake()
    :: else
    fi
#else
    if
    :: word & 1 -> wake()
    :: true
    fi
#endif
}

init {
    atomic {
#ifndef JOINS
        if
        :: state = Watched; in_set = true  /* an earlier wait has asked */
        :: true
        fi;
#endif
        run Waiter();
        run Watcher();
        run Other();
#ifdef NEIGHBOUR
        run Neighbour();
#endif
#ifdef CANCELS
        run Canceller()
#elif defined(ASKS)
        run Asker()
#else
        run Peer()
#endif
    }
}
