/* The line of requests of a queue: several consumers, each of which wants several messages at once,
 * one that takes a message past them and puts it back, and a producer. One consumer may die and one
 * may stop, at any step; the stopped one continues when all others have been served.
 *
 *   here      | src/queue
 *   ----------+--------------------------------------------------------------------------
 *   arrive    | WaitingLine::arrive
 *   join      | WaitingLine::join: the request, then its announcement
 *   IS_FIRST  | WaitingLine::is_first
 *   Consumer  | take_whole, WholeRequest::try_take; QueueCore::wait_turn
 *   leave     | WaitingLine::leave
 *   slice     | the end of a sleep: QueueCore::reap, WaitingLine::clear and tend
 *   Barger    | Queue::take(Deadline::now()), Delivery::untake
 *   Stopper   | SIGSTOP and SIGCONT
 *
 * A slice ends only where a consumer is dead or shows no sign of life (or seems to: LATE), so that
 * lost wake-ups are found. Moves of one word are one step; signal.pml has the rest of a sleep,
 * queue.pml the rest of a slot.
 *
 * Checked: a request in the line before another is served first, unless it died or was passed; no
 * consumer sleeps with a message in hand; in the end all living consumers have been served, and no
 * message is lost (invalid end states, and the sum).
 * Negative controls: -DANY_TIME (takes before its turn), -DHOLD (keeps messages while it waits),
 * -DNO_WAKE (leaves without waking the line), -DNO_PASS (a stopped request is waited for),
 * -DNO_CLEAR (a dead one is).
 */
#ifndef CONSUMERS
#define CONSUMERS 3
#endif
#ifndef WANT
#define WANT 2
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef STOPS
#define STOPS 1
#endif
#ifndef LATE         /* times that a live consumer is passed */
#define LATE 0
#endif
#ifndef BARGES
#define BARGES 1
#endif
#define NONE 9

byte count;                     /* QueueState::line, without its bit 0 */
byte request[CONSUMERS];        /* tickets; 0: none */
bool passed[CONSUMERS];
bool joined[CONSUMERS];         /* ghost: it has announced itself, and waits */
byte before[CONSUMERS];         /* ghost: a bit for each that had joined before it */
byte ready, held[CONSUMERS];    /* messages */
byte served;
bool on_data[CONSUMERS], on_turn[CONSUMERS];
bool killed[CONSUMERS], dead[CONSUMERS], cleared[CONSUMERS], stopped[CONSUMERS], over[CONSUMERS];
byte late = LATE;
byte all_put;

#define EARLIER(a, me) (request[a] != 0 && !passed[a] && \
    (request[a] < request[me] || (request[a] == request[me] && a < me)))
#if CONSUMERS == 2
#define IS_FIRST(me) (!(EARLIER(0, me) || EARLIER(1, me)))
#define ANY_DEAD ((dead[0] && !cleared[0]) || (dead[1] && !cleared[1]))
#define ANY_STOPPED ((stopped[0] && !passed[0]) || (stopped[1] && !passed[1]))
#define FOR_ALL(array, value) array[0] = value; array[1] = value
#define OTHERS_OVER(me) ((over[0] || me == 0) && (over[1] || me == 1))
#else
#define IS_FIRST(me) (!(EARLIER(0, me) || EARLIER(1, me) || EARLIER(2, me)))
#define ANY_DEAD ((dead[0] && !cleared[0]) || (dead[1] && !cleared[1]) || (dead[2] && !cleared[2]))
#define ANY_STOPPED ((stopped[0] && !passed[0]) || (stopped[1] && !passed[1]) || \
    (stopped[2] && !passed[2]))
#define FOR_ALL(array, value) array[0] = value; array[1] = value; array[2] = value
#define OTHERS_OVER(me) ((over[0] || me == 0) && (over[1] || me == 1) && (over[2] || me == 2))
#endif

#ifdef NO_PASS
#undef ANY_STOPPED
#define ANY_STOPPED false
#endif
#ifdef NO_CLEAR
#undef ANY_DEAD
#define ANY_DEAD false
#endif
#ifdef ANY_TIME
#define TURN(me) (IS_FIRST(me) || ready >= WANT)
#else
#define TURN(me) (IS_FIRST(me))
#endif

/* Reaps the dead, and watches the first of the other requests. */
inline slice(me) {
    d_step {
        other = 0;
        do
        :: other < CONSUMERS ->
           if
#ifndef NO_CLEAR
           :: dead[other] && !cleared[other] ->
              cleared[other] = true;
              request[other] = 0;
              ready = ready + held[other];
              held[other] = 0;
              FOR_ALL(on_data, false);
              FOR_ALL(on_turn, false)
#endif
#ifndef NO_PASS
           :: !dead[other] && stopped[other] && EARLIER(other, me) ->
              passed[other] = true;
              FOR_ALL(on_turn, false)
#endif
           :: else
           fi;
           other++
        :: else -> break
        od;
        other = 0;
        passed[me] = false
    }
}

/* A live consumer that got no processor for a while. */
inline take_for_stopped(me) {
    d_step {
        late--;
        other = 0;
        do
        :: other < CONSUMERS ->
           if
           :: !dead[other] && EARLIER(other, me) -> passed[other] = true
           :: else
           fi;
           other++
        :: else -> break
        od;
        other = 0;
        FOR_ALL(on_turn, false)
    }
}

proctype Consumer(byte me) provided (!stopped[me]) {
    byte other, took, arrived;
    {
        d_step {                                            /* arrive */
            arrived = count + 1;
            do
            :: other < CONSUMERS ->
               before[me] = before[me] | ((joined[other] && !passed[other]) << other);
               other++
            :: else -> break
            od;
            other = 0
        };
        request[me] = arrived;                              /* join */
        d_step { count++; joined[me] = true; arrived = 0 };
        do
        :: !TURN(me) ->
           on_turn[me] = true;
           if
           :: d_step { TURN(me) -> on_turn[me] = false }
           :: else ->
              assert(held[me] == 0);
              if
              :: !on_turn[me]
              :: ANY_DEAD || ANY_STOPPED -> slice(me); on_turn[me] = false
              :: late > 0 -> take_for_stopped(me); on_turn[me] = false
              fi
           fi
        :: TURN(me) ->
           on_data[me] = true;
           if
           :: ready + held[me] >= WANT -> on_data[me] = false
           :: else ->
#ifndef HOLD
              assert(held[me] == 0);
#endif
#ifdef HOLD
              d_step { held[me] = held[me] + ready; ready = 0 };
#endif
              if
              :: !on_data[me]
              :: ANY_DEAD -> slice(me); on_data[me] = false
              fi
           fi;
           if
           :: !(ready + held[me] >= WANT && TURN(me)) -> skip
           :: else ->
              do
              :: atomic { held[me] < WANT && ready > 0 -> ready--; held[me]++ }
              :: else -> break
              od;
              if
              :: held[me] == WANT -> break
              :: else ->                                    /* a barger was quicker */
                 atomic { ready = ready + held[me]; held[me] = 0 };
                 d_step { FOR_ALL(on_data, false) }
              fi
           fi
        od;
        skip;
        d_step {
            do
            :: other < CONSUMERS ->
               assert(!(before[me] >> other & 1) || !joined[other] || passed[other] || dead[other]);
               other++
            :: else -> break
            od;
            other = 0;
            joined[me] = false
        };
        d_step { served = served + held[me]; held[me] = 0; over[me] = true };
        request[me] = 0;                                    /* leave */
#ifndef NO_WAKE
        d_step { FOR_ALL(on_turn, false) };
#endif
        other = 0
    } unless { killed[me] };
    d_step {
        if
        :: killed[me] -> dead[me] = true; joined[me] = false; over[me] = true
        :: else
        fi;
        on_data[me] = false;
        on_turn[me] = false;
        other = 0; took = 0; arrived = 0
    }
}

active proctype Producer() {
    do
    :: all_put < CONSUMERS * WANT ->
       d_step { ready++; all_put++ };
       d_step { FOR_ALL(on_data, false) }
    :: else -> break
    od
}

#if BARGES
active proctype Barger() {
    byte barges = BARGES;
end:
    do
    :: atomic { barges > 0 && ready > 0 -> ready--; barges-- };
       ready++;
       d_step { FOR_ALL(on_data, false) }
    :: barges == 0 -> break
    od
}
#endif

#if STOPS
active proctype Stopper() {
    byte whom;
    select(whom : 0 .. (CONSUMERS - 1));
end:
    atomic { !dead[whom] && !over[whom] -> stopped[whom] = true };
    do
    :: atomic { OTHERS_OVER(whom) -> stopped[whom] = false; on_data[whom] = false } -> break
    od
}
#endif

#if DEATHS
active proctype Killer() {
    byte whom;
    select(whom : 0 .. (CONSUMERS - 1));
end:
    atomic { !over[whom] && !stopped[whom] -> killed[whom] = true }
}
#endif

init {
    atomic {
        run Consumer(0);
        run Consumer(1);
#if CONSUMERS > 2
        run Consumer(2);
#endif
        skip
    }
}
