/* The event count that waiters sleep on, with its asymmetric fence: no wake-up is lost, whichever
 * process dies at whatever step; at most it comes a slice late, and only if its waker died on the
 * way.
 *
 * Wakers publish by advancing a position, which may stay in their store buffer (issued, visible)
 * while they already read the word. Waiters wait until every waker's position has reached a goal.
 * Readers of a Broadcast that wait for their writer: one waker, two waiters. Its writer that waits
 * for its readers: two wakers, one waiter, and -DWANTED: wakers below `wanted` don't wake.
 *
 *   here        | src/segment/waiting/signal.hpp, src/broadcast
 *   ------------+--------------------------------------------------------------------------------
 *   announce    | Signal::announce, os::asymmetric_fence_heavy
 *   has_waiters | Signal::has_waiters; ReaderCore::publish_position (WANTED)
 *   wake        | Signal::wake, os::futex_wake_all
 *   Waiter      | wait_until: announce, look again, look at the peer, sleep, is_standing
 *   slices      | sleeps that end by themselves: this many for no reason, any number after a death
 *
 * Checked: no waiter sleeps for ever (invalid end states).
 * Default: wakers need no fence, waiters call membarrier(2). -DSYMMETRIC: no membarrier, both have
 * a fence.
 * Negative controls: -DNO_MEMBARRIER, -DSYMMETRIC -DNO_WAKER_FENCE, -DNO_SECOND_LOOK,
 * -DNO_COMPARISON, -DSYMMETRIC -DCLOSE_WITHOUT_FENCE. -DWANTED_FIRST (a waker's two reads swapped,
 * as ARM might) must pass: the fences cover `wanted` too.
 */
#ifndef WAKERS
#define WAKERS 1
#define WAITERS 2
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef LAST
#define LAST 2  /* positions to reach; the last one is the waker's close() */
#endif
#define NEVER 99

byte word;              /* bit 0: a waiter announced itself; the rest counts wake-ups */
byte issued[WAKERS], visible[WAKERS];
byte wanted = NEVER;    /* as an earlier wait left it */
bool asleep[WAITERS];
bool gone[WAKERS];
byte deaths = DEATHS;
byte slices = 1;
bool kill_waker[WAKERS], kill_waiter[WAITERS];

#if WAKERS == 1
#define REACHED(goal) (visible[0] >= goal)
#define FLUSH visible[0] = issued[0]
#define ALL_GONE gone[0]
#else
#define REACHED(goal) (visible[0] >= goal && visible[1] >= goal)
#define FLUSH visible[0] = issued[0]; visible[1] = issued[1]
#define ALL_GONE (gone[0] || gone[1])
#endif

inline announce() {
    d_step { word = word | 1; seen = word };
#if !defined(SYMMETRIC) && !defined(NO_MEMBARRIER)
    d_step { FLUSH }  /* a full barrier in every thread of every registered process */
#endif
}

inline wake_all() {
    d_step {
        asleep[0] = false;
#if WAITERS == 2
        asleep[1] = false
#endif
    }
}

inline wake(me) {
    /* A successful compare-and-swap, or a system call, makes earlier stores visible first. */
    d_step {
        if
        :: word & 1 -> visible[me] = issued[me]; word++
        :: else
        fi
    };
    d_step { visible[me] = issued[me] };
    wake_all()
}

proctype Waker(byte me) {
    byte old;
    bool look;
    {
        do
        :: issued[me] < LAST ->
           issued[me]++;
#ifdef SYMMETRIC
#ifdef CLOSE_WITHOUT_FENCE
           if
           :: issued[me] < LAST -> visible[me] = issued[me]
           :: else
           fi;
#elif !defined(NO_WAKER_FENCE)
           visible[me] = issued[me];
#endif
#endif
#ifdef WANTED
#ifdef WANTED_FIRST
           old = wanted;
           look = word & 1;
#else
           look = word & 1;
           old = wanted;
#endif
           look = look && issued[me] >= old;
#else
           look = word & 1;
#endif
           old = 0;
           if
           :: look -> look = false; wake(me)
           :: else
           fi
        :: else -> break
        od
    } unless { kill_waker[me] };
    atomic { visible[me] = issued[me]; gone[me] = true; old = 0; look = 0 }
}

proctype Buffer() {
end:
    do
    :: d_step { visible[0] < issued[0] -> visible[0]++ }
#if WAKERS == 2
    :: d_step { visible[1] < issued[1] -> visible[1]++ }
#endif
    od
}

proctype Waiter(byte me) {
    byte goal = 1, seen;
    {
        do
        :: goal > LAST -> break
        :: goal <= LAST && REACHED(goal) -> goal++
        :: goal <= LAST && !REACHED(goal) ->
           wanted = goal;
           announce();
           do
#ifndef NO_SECOND_LOOK
           :: REACHED(goal) -> break
#endif
           :: ALL_GONE -> goto over  /* PeerGone; the caller takes its last look */
           :: else ->
#ifdef NO_COMPARISON
              asleep[me] = true;
#else
              d_step { asleep[me] = (word == seen) };
#endif
              if
              :: !asleep[me]
              :: d_step { asleep[me] && (slices > 0 || deaths < DEATHS) ->
                     asleep[me] = false;
                     slices = (slices > 0 -> slices - 1 : 0) }
              fi;
              if
              :: REACHED(goal) -> break
              :: else
              fi;
              if
              :: word != seen -> announce()
              :: else
              fi
           od
        od;
over:
        skip
    } unless { kill_waiter[me] };
    atomic { asleep[me] = false; seen = 0 }
}

/* SIGKILL. */
proctype Reaper() {
    do
    :: atomic { deaths > 0 && !gone[0] && !kill_waker[0] -> kill_waker[0] = true; deaths-- }
    :: atomic { deaths > 0 && !kill_waiter[0] -> kill_waiter[0] = true; deaths-- }
    :: break  /* and no more */
    od
}

init {
    atomic {
        run Waker(0);
#if WAKERS == 2
        run Waker(1);
#endif
        run Buffer();
        run Waiter(0);
#if WAITERS == 2
        run Waiter(1);
#endif
        run Reaper()
    }
}
