/* The origin of a Broadcast's ring: the writer moves it while no gating reader is behind; two
 * ranks with readers that attach, read in place, leave and are replaced. ring.pml has the rest:
 * padding, waits, deaths and janitors.
 *
 * Positions count cells; each record takes one. Stores that the argument depends on go through
 * store buffers: the writer's position and origin (issued / visible) and a joiner's gate. The
 * origin may become visible at any time before the next position. A fence empties the buffers of
 * its process.
 *
 *   here             | src/broadcast
 *   -----------------+------------------------------------------------------------------------
 *   Writer, look     | WriterCore::send, make_room, find_slowest, rewind_if_idle, raise_limit
 *   Reader, join     | ReaderCore::take_gate
 *   look_for_more    | ReaderCore::look_for_more
 *   read             | ReaderCore::parse; a message held, then publish_position
 *
 * Checked: each reader finds every record where it looks, whole, in order and not overwritten while
 * it reads it; at the end none is missing.
 *
 * Negative controls: -DNO_WRITER_FENCE, -DNO_READER_FENCE, -DORIGIN_LAST (stored after the
 * position), -DORIGIN_FIRST (loaded before the position), -DLAGGARDS (rewinds although a reader is
 * behind).
 */
#define CAP 3
#ifndef MESSAGES
#define MESSAGES 5
#endif
#ifndef LIVES  /* readers of rank 1, one after the other */
#define LIVES 2
#endif
#define BUFFER 2  /* positions that the writer's store buffer takes */
#define TORN 254

mtype = { EXPECTED, ACTIVE, VACANT };

byte cell[CAP] = TORN;
byte issued, visible;                /* WriterLine::position */
byte origin, visible_origin;         /* WriterState::origin */
bool closed;
mtype gate[2] = EXPECTED;
byte position[2];
bool gate_on_its_way[2];             /* a joiner's gate and first position, in its store buffer */
byte position_on_its_way[2];

inline flush_writer() {
    d_step { visible = issued; visible_origin = origin }
}

inline flush_gate(r) {
    if
    :: d_step { gate_on_its_way[r] ->
           position[r] = position_on_its_way[r];
           gate[r] = ACTIVE;
           gate_on_its_way[r] = false }
    :: else
    fi
}

inline look_at(r) {
    if
    :: gate[r] == VACANT
    :: else -> slowest = (position[r] < slowest -> position[r] : slowest)  /* one load */
    fi
}

inline look() {
#ifndef NO_WRITER_FENCE
    flush_writer();
#endif
    slowest = issued;
    look_at(0);
    look_at(1);
    if
#ifdef LAGGARDS
    :: slowest + 1 >= issued -> next_origin = (CAP - (issued % CAP)) % CAP
#else
    :: slowest == issued -> next_origin = (CAP - (issued % CAP)) % CAP
#endif
    :: true
    fi;
#ifndef ORIGIN_LAST
    origin = next_origin;
#endif
    if
    :: slowest + CAP > limit -> limit = slowest + CAP
    :: else
    fi;
    slowest = 0
}

proctype Writer() {
    byte limit = CAP, slowest, next_origin;
    do
    :: issued < MESSAGES ->
       if
       :: true -> look()  /* after any stretch, also one record */
       :: issued + 1 <= limit
       fi;
       do
       :: issued + 1 <= limit -> break
       :: else ->
          /* Sleeps until there is room. */
          (gate[0] == VACANT || position[0] + CAP > issued) &&
          (gate[1] == VACANT || position[1] + CAP > issued);
          look()
       od;
       cell[(issued + next_origin) % CAP] = TORN;
       cell[(issued + next_origin) % CAP] = issued;
       d_step { issued - visible < BUFFER -> issued++ };
       origin = next_origin
    :: else -> break
    od;
    flush_writer();
    closed = true
}

/* A store leaves a buffer. */
proctype Buffer() {
end:
    do
#ifdef ORIGIN_LAST
    :: d_step { visible < issued -> visible++ }
#else
    :: d_step { visible < issued -> visible_origin = origin; visible++ }
#endif
    :: d_step { visible_origin != origin -> visible_origin = origin }
    :: d_step { gate_on_its_way[0] ->
           position[0] = position_on_its_way[0]; gate[0] = ACTIVE; gate_on_its_way[0] = false }
    :: d_step { gate_on_its_way[1] ->
           position[1] = position_on_its_way[1]; gate[1] = ACTIVE; gate_on_its_way[1] = false }
    od
}

inline join(r) {
    if
    :: gate[r] == VACANT ->
       d_step { position_on_its_way[r] = visible; gate_on_its_way[r] = true };
#ifndef NO_READER_FENCE
       flush_gate(r);
#endif
       at = visible;
#ifdef NO_READER_FENCE
       flush_gate(r);  /* the next store may not overtake it */
#endif
       position[r] = at
    :: else ->
       at = position[r];
       gate[r] = ACTIVE
    fi;
    known = at
}

inline look_for_more() {
#ifdef ORIGIN_FIRST
    begin = visible_origin;
    known = visible
#else
    known = visible;
    begin = visible_origin
#endif
}

inline read(r) {
    assert(cell[(at + begin) % CAP] == at);
    d_step {
        assert(cell[(at + begin) % CAP] == at);  /* again, just before its release */
        at++
    };
    position[r] = at
}

proctype Reader(byte r; byte lives) {
    byte at, known, begin;
    do
    :: lives > 0 ->
       lives--;
       join(r);
       do
       :: at < known -> read(r)
       :: at == known -> look_for_more()
       :: at == known && visible == at && closed -> assert(at == MESSAGES); break
       :: at == known -> break  /* leaves early */
       od;
       gate[r] = VACANT;
       d_step { at = 0; known = 0; begin = 0 }
    :: else -> break
    od
}

init {
    atomic {
        run Writer();
        run Buffer();
        run Reader(0, 1);
        run Reader(1, LIVES)
    }
}
