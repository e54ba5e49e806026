/* The slots of a Queue: two producers, two consumers, two slots. Producers are overtaken and claim
 * again; messages are nacked, and come again; blocks change owners. Any may die at any step, the
 * janitor too, which then begins anew.
 *
 * A move is one compare-and-swap on a slot's word; the load before it is not a step of its own,
 * since a move that fails has changed nothing and is tried again. All other shared memory
 * (announcements, hints, a block's word, what names it) is a step of its own.
 *
 *   here                 | src/queue, src/segment/memory/arena.cpp
 *   ---------------------+----------------------------------------------------------------------
 *   Producer             | QueueCore::allocate, try_put; SlotRing::claim, publish, abandon
 *   Consumer             | QueueCore::try_take; SlotRing::take
 *   look_for_returned    | SlotRing::take_returned
 *   acknowledge          | SlotRing::acknowledge
 *   give_back            | SlotRing::nack, announce_returned
 *   free_block           | SlotRing::free_block; Arena::free, release_run
 *   free_slot            | SlotRing::free_slot
 *   Janitor              | QueueCore::reap, take_over; SlotRing::clear; Arena::reap
 *   dead[]               | a slot that is announced and not locked
 *
 * A producer may pass a held slot at any time, PASSES times; a consumer may lose its patience
 * OVERTAKES times. Their reasons, and time, are left out: that a look ends, and how soon. The order
 * among redelivered messages is left out too. A spent ticket stays spent; so without -DHINTS all
 * act on the first ticket that is not (tail, head). With it each walks there by itself, from a hint
 * that is advanced or not, and read or not.
 * Memory is sequentially consistent: the pairs are argued in protocols.md.
 *
 * Checked: an accepted message is acknowledged once, or still there when no consumer is left; it
 * comes a second time only marked as such, and never after its acknowledgement; first deliveries
 * keep each producer's order; no hint is ahead; in the end every slot is empty and every block was
 * freed, once.
 *
 * Negative controls: -DBLIND_PUBLISH, -DSKIP_CLAIMED, -DHINT_AHEAD (with -DHINTS), -DBLIND_FREE,
 * -DSAME_LAP, -DANNOUNCE_FIRST, -DNO_ANNOUNCEMENT_FOR_THE_DEAD, -DBACK_TO_ZERO, -DEMPTY_FIRST,
 * -DHAND_OVER_FIRST, -DCLEAR_READY.
 */
#ifndef MESSAGES_0  /* of producer 0, and of producer 1; two each at most */
#define MESSAGES_0 2
#endif
#ifndef MESSAGES_1
#define MESSAGES_1 1
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef PASSES
#define PASSES 1
#endif
#ifndef OVERTAKES
#define OVERTAKES 1
#endif
#ifndef RETURNS  /* by a consumer's nack */
#define RETURNS 1
#endif
#define SLOTS 2
#define NUMBER 4          /* of messages: producer * 2 + 0 or 1 */
#define HAS_BLOCK(m) ((m) % 2 == 0)
#define JANITOR 4         /* participants 0 and 1 produce, 2 and 3 consume */
#define QUEUE 5
#define NONE 9

mtype = { EMPTY, CLAIMED, READY, TAKEN, DONE, OVERTAKEN, RETURNED };  /* a slot */
mtype = { UNUSED, HEAD, FREEING, FREED };                             /* a block */

mtype state[SLOTS] = EMPTY;
byte owner[SLOTS] = NONE;
byte lap[SLOTS];
byte deliveries[SLOTS];
byte message[SLOTS] = NONE;
byte named[SLOTS] = NONE;   /* QueueSlot::block; a block has its message's number */

byte tail_hint, head_hint;
byte tail, head;            /* the first tickets not spent, for producers and for consumers */
byte announcements;         /* QueueState::returned: a count, and whether it is announced */
bool is_announced;

mtype block[NUMBER] = UNUSED;
byte block_owner[NUMBER] = NONE;

bool kill[5], dead[4], gone[4];
byte deaths = DEATHS, passes = PASSES, overtakes = OVERTAKES, returns = RETURNS;

bool accepted[NUMBER];      /* ghost */
byte taken[NUMBER];
bool acknowledged[NUMBER];

#define S(t) ((t) % SLOTS)
#define L(t) ((t) / SLOTS)
#define IS_SPENT(t) (lap[S(t)] > L(t) || (lap[S(t)] == L(t) && state[S(t)] != EMPTY))
#define IS_SPENT_FOR_TAKERS(t) (lap[S(t)] > L(t) || (lap[S(t)] == L(t) && state[S(t)] != EMPTY \
                           && state[S(t)] != CLAIMED && state[S(t)] != READY))
#define LEFT_BY_JANITOR(b) (block[b] == FREEING && block_owner[b] == JANITOR)
#define IS_HELD(t) (lap[S(t)] < L(t) && state[S(t)] != EMPTY && state[S(t)] != READY)

#ifdef HINTS
#define TAIL t
#define HEAD_OF t
#define settle() skip
#else
#define TAIL tail
#define HEAD_OF head
/* In one step with every change of a word. */
inline settle() {
    do
    :: IS_SPENT(tail) -> tail++
    :: else -> break
    od;
    do
    :: IS_SPENT_FOR_TAKERS(head) -> head++
    :: else -> break
    od;
    skip  /* a d_step must not end with a break */
}
#endif

/* Called by the slot's owner. Passing producers may have spent a later lap in it meanwhile. */
inline free_slot(s, known_lap) {
    d_step {
        if
        :: state[s] == TAKEN -> acknowledge_message(message[s])
        :: else
        fi;
        state[s] = EMPTY;
        owner[s] = NONE;
        message[s] = NONE;
        deliveries[s] = 0;
#ifdef BLIND_FREE
        lap[s] = known_lap + 1
#elif defined(SAME_LAP)
        skip
#else
        lap[s] = lap[s] + 1
#endif
        ;
        settle()
    }
}

inline acknowledge_message(m) {
    assert(!acknowledged[m]);
    acknowledged[m] = true
}

inline free_block(s, self) {
    if
    :: d_step { named[s] != NONE -> b = named[s] };
       if
       :: d_step { block[b] == HEAD -> block[b] = FREEING; block_owner[b] = self };
          d_step { assert(block[b] == FREEING && block_owner[b] == self);
                   block[b] = FREED; block_owner[b] = NONE }
       :: block[b] != HEAD  /* Arena::is_valid */
       fi;
       d_step { named[s] = NONE; b = 0 }
    :: named[s] == NONE
    fi
}

inline announce_returned() {
    d_step { announcements++; is_announced = true }
}

inline give_back(s) {
#ifdef ANNOUNCE_FIRST
    announce_returned();
    d_step { assert(state[s] == TAKEN); state[s] = RETURNED; owner[s] = NONE }
#else
    d_step { assert(state[s] == TAKEN); state[s] = RETURNED; owner[s] = NONE };
    announce_returned()
#endif
}

inline push(hint, ticket) {
#ifdef HINTS
    if
    :: d_step { hint < ticket -> hint = ticket }
    :: skip
    fi
#else
    skip
#endif
}

inline claim() {
end_full:
    do
    :: d_step { lap[S(TAIL)] == L(TAIL) && state[S(TAIL)] == EMPTY ->
           t = TAIL;
           assert(named[S(t)] == NONE);
           state[S(t)] = CLAIMED; owner[S(t)] = self; message[S(t)] = m;
           settle() } ->
       break
    :: d_step { IS_HELD(TAIL) && passes > 0 ->
           passes--;
           lap[S(TAIL)] = L(TAIL);
           state[S(TAIL)] = (state[S(TAIL)] == CLAIMED -> OVERTAKEN : state[S(TAIL)]);
           settle() }
    :: lap[S(TAIL)] < L(TAIL) && state[S(TAIL)] == EMPTY -> assert(false)  /* a hint is ahead */
#ifdef HINTS
    :: d_step { t < tail_hint -> t = tail_hint }
    :: d_step { IS_SPENT(t) -> t++ }
#endif
    od;
    push(tail_hint, t + 1)
}

proctype Producer(byte self; byte number) {
    byte t, sent, m;
    {
        do
        :: sent < number ->
           d_step {
               m = self * 2 + sent;
               if
               :: HAS_BLOCK(m) -> block[m] = HEAD; block_owner[m] = self
               :: else
               fi
           }
           do
           :: claim();
              if
              :: HAS_BLOCK(m) ->
#ifdef HAND_OVER_FIRST
                 block_owner[m] = QUEUE;
                 named[S(t)] = m
#else
                 named[S(t)] = m;
                 block_owner[m] = QUEUE
#endif
              :: else
              fi;
              if
#ifdef BLIND_PUBLISH
              :: d_step { state[S(t)] != EMPTY ->
#else
              :: d_step { state[S(t)] == CLAIMED && lap[S(t)] == L(t) ->
#endif
                     assert(owner[S(t)] == self);
                     state[S(t)] = READY; owner[S(t)] = NONE; lap[S(t)] = L(t);
                     accepted[m] = true;
                     t++; sent++; m = 0 };
                 break
              :: else ->
                 assert(state[S(t)] == OVERTAKEN && owner[S(t)] == self);
                 if
                 :: HAS_BLOCK(m) ->
                    block_owner[m] = self;
                    named[S(t)] = NONE
                 :: else
                 fi;
                 free_slot(S(t), L(t));
                 t++
              fi
           od
        :: else -> break
        od;
        gone[self] = true
    } unless { kill[self] };
    if
    :: d_step { kill[self] -> kill[self] = false; dead[self] = true; gone[self] = true }
    :: else
    fi
}

/* In one step with the move to TAKEN. */
inline take(s) {
    at = s;
    m = message[s];
    assert(state[s] == READY || state[s] == RETURNED);
    assert(accepted[m] && !acknowledged[m]);
    state[s] = TAKEN;
    owner[s] = self;
    deliveries[s]++;
    taken[m]++;
    assert(deliveries[s] == taken[m]);  /* otherwise the mark is wrong */
    if
    :: deliveries[s] == 1 -> assert(m % 2 >= next[m / 2]); next[m / 2] = m % 2 + 1
    :: else
    fi;
#ifdef BLIND_FREE
    known = lap[s];
#endif
    m = 0
}

inline look_for_returned() {
    do
    :: i < SLOTS ->
       d_step {
           if
           :: state[i] == RETURNED && found == NONE -> found = i
           :: else
           fi;
           i++
       }
    :: else -> break
    od;
    if
    :: d_step { found != NONE && state[found] == RETURNED -> take(found) }
#ifdef BACK_TO_ZERO
    :: d_step { found == NONE && announcements == count ->
           is_announced = false; announcements = 0 }
#else
    :: d_step { found == NONE && announcements == count -> is_announced = false }
#endif
    :: else
    fi;
    d_step { found = NONE; i = 0; count = 0 }
}

inline acknowledge(s) {
    if
    :: named[s] != NONE ->
#ifdef EMPTY_FIRST
       d_step { b = named[s]; named[s] = NONE };
       free_slot(s, known);
       d_step { assert(block[b] == HEAD); block[b] = FREED; block_owner[b] = NONE; b = 0 }
#else
       d_step { assert(state[s] == TAKEN && owner[s] == self);
                acknowledge_message(message[s]); state[s] = DONE };
       free_block(s, self);
       free_slot(s, known)
#endif
    :: else ->
       assert(state[s] == TAKEN && owner[s] == self);
       free_slot(s, known)
    fi
}

proctype Consumer(byte self) {
    byte t, m, known, count, i, b, at = NONE, found = NONE;
    byte next[2];
    {
end_idle:
        do
        :: d_step { at == NONE && is_announced -> count = announcements };
           look_for_returned()
        :: d_step { at == NONE && lap[S(HEAD_OF)] == L(HEAD_OF) && state[S(HEAD_OF)] == READY ->
               take(S(HEAD_OF));
               settle() };
           push(head_hint, t + 1)
#ifdef SKIP_CLAIMED
        :: d_step { at == NONE && lap[S(HEAD_OF)] == L(HEAD_OF) && state[S(HEAD_OF)] == CLAIMED &&
                    overtakes > 0 ->
               overtakes--;
               HEAD_OF = HEAD_OF + 1 }
#else
        :: d_step { at == NONE && lap[S(HEAD_OF)] == L(HEAD_OF) && state[S(HEAD_OF)] == CLAIMED &&
                    overtakes > 0 ->
               overtakes--;
               state[S(HEAD_OF)] = OVERTAKEN;
               settle() }
#endif
#ifdef HINTS
        :: d_step { at == NONE && t < head_hint -> t = head_hint }
        :: d_step { at == NONE && IS_SPENT_FOR_TAKERS(t) -> t++ };
           push(head_hint, t)
#ifdef HINT_AHEAD
        :: d_step { at == NONE && lap[S(t)] == L(t) && state[S(t)] == EMPTY && head_hint <= t ->
               head_hint = t + 1 }
#endif
#endif
        :: at != NONE ->
           acknowledge(at);
           d_step { at = NONE; known = 0 }
        :: d_step { at != NONE && returns > 0 -> returns-- };
           give_back(at);
           d_step { at = NONE; known = 0 }
        od
    } unless { kill[self] };
    d_step { kill[self] = false; dead[self] = true; gone[self] = true }
}

inline clear() {
    do
    :: i < SLOTS ->
       if
       :: state[i] == RETURNED -> has_returned = true
       :: state[i] == TAKEN && owner[i] == who -> give_back(i)
       :: (state[i] == CLAIMED || state[i] == OVERTAKEN || state[i] == DONE) && owner[i] == who ->
          free_block(i, JANITOR);
          free_slot(i, lap[i])
#ifdef CLEAR_READY
       :: state[i] == READY && message[i] / 2 == who ->
          free_block(i, JANITOR);
          free_slot(i, lap[i])
#endif
       :: else
       fi;
       i++
    :: else -> break
    od;
    if
#ifndef NO_ANNOUNCEMENT_FOR_THE_DEAD
    :: has_returned -> announce_returned()
#endif
    :: else
    fi;
    d_step { i = 0; has_returned = false };
    do
    :: i < NUMBER ->
       d_step {
           if
           :: block_owner[i] == who -> assert(block[i] == HEAD || block[i] == FREEING);
              block[i] = FREED; block_owner[i] = NONE
           :: else
           fi;
           i++
       }
    :: i == NUMBER ->
       d_step { dead[who] = false; who = NONE; i = 0 };
       break
    od
}

/* The process with the dead participant's lock: one at a time, and another after its death. */
proctype Janitor() {
    byte who = NONE, i, b;
    bool has_returned;
born:
    skip;
    {
end_idle:
        do
        :: d_step { dead[0] -> who = 0 } -> clear()
        :: d_step { dead[1] -> who = 1 } -> clear()
        :: d_step { dead[2] -> who = 2 } -> clear()
        :: d_step { dead[3] -> who = 3 } -> clear()
        :: LEFT_BY_JANITOR(0) -> block_owner[0] = NONE; block[0] = FREED
        :: LEFT_BY_JANITOR(2) -> block_owner[2] = NONE; block[2] = FREED
        od
    } unless { kill[JANITOR] };
    d_step { kill[JANITOR] = false; who = NONE; i = 0; b = 0; has_returned = false };
    goto born
}

proctype Killer() {
end:
    do
    :: d_step { deaths > 0 && !gone[0] -> deaths--; kill[0] = true }
    :: d_step { deaths > 0 && !gone[1] -> deaths--; kill[1] = true }
    :: d_step { deaths > 0 && !gone[2] -> deaths--; kill[2] = true }
    :: d_step { deaths > 0 && !gone[3] -> deaths--; kill[3] = true }
    :: d_step { deaths > 0 && (dead[0] || dead[1] || dead[2] || dead[3]) ->
           deaths--; kill[JANITOR] = true }
    :: d_step { deaths > 0 -> deaths = 0 }
    od
}

#define HAS(s, m) (message[s] == (m) && (state[s] == READY || state[s] == RETURNED))
#define IS_THERE(m) (HAS(0, m) || HAS(1, m))

/* The end state, when no step is left. */
proctype Judge() {
    byte m;
    bool is_drained;
    timeout;
    d_step {
        is_drained = !gone[2] || !gone[3];
        assert(!dead[0] && !dead[1] && !dead[2] && !dead[3]);
        assert(!is_drained || (gone[0] && gone[1]));
        assert(!is_drained || (state[0] == EMPTY && state[1] == EMPTY));
        do
        :: m < NUMBER ->
           if
           :: accepted[m] && !acknowledged[m] ->
              assert(!is_drained && IS_THERE(m));
              assert(!HAS_BLOCK(m) || (block[m] == HEAD && block_owner[m] == QUEUE))
           :: else -> assert(block[m] == UNUSED || block[m] == FREED || !gone[m / 2])
           fi;
           m++
        :: else -> break
        od
    }
}

init {
    atomic {
        run Producer(0, MESSAGES_0);
        run Producer(1, MESSAGES_1);
        run Consumer(2);
        run Consumer(3);
        run Janitor();
        run Killer();
        run Judge()
    }
}
