/* The ring of a Broadcast: one writer that publishes, wraps and refreshes its limit; two ranks with
 * readers that attach, read in place, leave or die, and are replaced; janitors. Any may die at any
 * step.
 *
 * Positions count cells, as the sources count bytes. Stores that the argument depends on go through
 * store buffers: the writer's position (issued / visible) and a joiner's gate. Cells have no
 * buffer: their stores may overtake a position that is still under way, which is weaker than x86
 * and allowed on ARM. A fence, or death, empties the buffers of its process.
 *
 *   here             | src/broadcast
 *   -----------------+------------------------------------------------------------------------
 *   Writer           | WriterCore::send, measure, make_room, publish, close
 *   find_limit       | WriterCore::find_slowest, raise_limit
 *   reap, clear      | WriterCore::reap_readers; take_over_reader (control.cpp)
 *   Reader, join     | ReaderCore::claim_rank, take_gate
 *   read             | ReaderCore::find, parse; a message held, then publish_position
 *   leave            | ReaderCore::leave
 *   lock[], dead     | the kernel's lock on a participant's slot; Participants::life
 *
 * Checked: no reader reads an unpublished, torn or overwritten record; each gets every message once
 * and in order, from the first one or from where it joined, to the last one published; an endless
 * wait is for a living process, or for a first reader that never attached.
 *
 * Negative controls: -DNO_WRITER_FENCE, -DNO_READER_FENCE, -DNO_SECOND_LOOK, -DDEATH_BY_LATENESS,
 * -DNO_JANITOR.
 */
#define CAP 3
#ifndef MESSAGES
#define MESSAGES 5
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef LIVES_0  /* attaches at rank 0, and at rank 1 (0: there is no rank 1) */
#define LIVES_0 2
#define LIVES_1 0
#endif
#define BUFFER 2  /* positions that the writer's store buffer takes */
/* The third record takes two cells and needs padding before it: 0, 1, (pad) 3-4, 5, 6... */
#define LENGTH(m) (1 + ((m) == 2))
#define START(m) ((m) + ((m) >= 2) + ((m) >= 3))

#define TORN 254
#define PADDING 253
#define UNKNOWN 252

mtype = { EXPECTED, ACTIVE, VACANT, NOBODY, WRITER, READER };

byte cell[CAP] = TORN;
byte issued, visible;       /* WriterLine::position: stored by the writer; seen by the others */
byte sent, seen;            /* messages up to there */
bool closed, writer_gone;   /* WriterState::closed; the writer's lock is free */
byte needed;                /* the end that a blocked writer can't reach yet; 0: not blocked */

mtype gate[2] = EXPECTED;   /* ReaderLine::gate, ReaderLine::position */
byte position[2];
bool gate_on_its_way[2];    /* a joiner's gate and first position, in its store buffer */
byte position_on_its_way[2];
bool announced[2];          /* ParticipantSlot::word */
mtype lock[2] = NOBODY;
bool stopped[2];            /* for ever; alive all the same */

byte deaths = DEATHS;
bool kill_writer, kill_reader[2];

#define DEAD(r) (announced[r] && lock[r] == NOBODY)
#define ALLOWS(r) (gate[r] == VACANT || position[r] + CAP >= needed)

inline flush_position() {
    d_step { visible = issued; seen = sent }
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

/* The caller holds the lock of a slot that is announced. */
inline clear(r) {
#ifndef NO_JANITOR
    if
    :: d_step { gate[r] == ACTIVE -> gate[r] = VACANT }
    :: else
    fi;
#endif
    announced[r] = false
}

inline reap(r) {
    if
    :: d_step { DEAD(r) -> lock[r] = WRITER };
       if
       :: announced[r] -> clear(r)
       :: else
       fi;
       lock[r] = NOBODY
#ifdef DEATH_BY_LATENESS
    :: d_step { stopped[r] && gate[r] == ACTIVE -> gate[r] = VACANT }
#endif
    :: else
    fi
}

inline look_at(r) {
    if
    :: gate[r] == VACANT
    :: else -> slowest = (position[r] < slowest -> position[r] : slowest)  /* one load */
    fi
}

inline find_limit() {
#ifndef NO_WRITER_FENCE
    flush_position();
#endif
    slowest = issued;
    look_at(0);
    look_at(1);
    if
    :: slowest + CAP > limit -> limit = slowest + CAP
    :: else
    fi;
    slowest = 0
}

proctype Writer() {
    byte limit = CAP, slowest, end, at;
    bool pads;
    {
        do
        :: sent < MESSAGES ->
           d_step {
               pads = (issued % CAP) + LENGTH(sent) > CAP;
               at = (pads -> issued + CAP - (issued % CAP) : issued);
               end = at + LENGTH(sent);
           }
           do
           :: end <= limit -> break
           :: else ->
              find_limit();
              if
              :: end <= limit -> break
              :: else
              fi;
              needed = end;
              reap(0);
              reap(1);
              /* Sleeps; woken by room, or by its next look for the dead. See signal.pml. */
end_blocked:
              (ALLOWS(0) && ALLOWS(1)) || DEAD(0) || DEAD(1)
           od;
           needed = 0;
           d_step {
               cell[at % CAP] = TORN;
               cell[(end - 1) % CAP] = TORN;
               if
               :: pads -> cell[issued % CAP] = PADDING
               :: else
               fi
           }
           d_step {
               cell[at % CAP] = sent;
               cell[(end - 1) % CAP] = sent
           }
           d_step { sent - seen < BUFFER -> issued = end; sent++ }
        :: else -> break
        od;
        flush_position();  /* closed is stored with release: not before it */
        closed = true
    } unless { kill_writer };
    atomic {  /* the kernel drops its locks, whether it left or died */
        flush_position();
        needed = 0;
        if :: lock[0] == WRITER -> lock[0] = NOBODY :: else fi;
        if :: lock[1] == WRITER -> lock[1] = NOBODY :: else fi;
        writer_gone = true;
    }
}

/* A store leaves the writer's buffer. */
proctype Buffer() {
end:
    do
    :: d_step { seen < sent -> visible = START(seen) + LENGTH(seen); seen++ }
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
       known = position_on_its_way[r];
#ifndef NO_READER_FENCE
       flush_gate(r);
#endif
#ifndef NO_SECOND_LOOK
       known = visible;
#endif
       at = known;
       message = UNKNOWN;
#ifdef NO_READER_FENCE
       flush_gate(r);  /* the next store may not overtake it */
#endif
       position[r] = at
    :: else ->
       d_step { at = position[r]; message = 0 };
       gate[r] = ACTIVE
    fi;
    known = at
}

/* Every cell of the record is as it was published. */
inline examine() {
    assert(cell[at % CAP] == message);
    assert(cell[(at + LENGTH(message) - 1) % CAP] == message);
    assert(START(message) == at)
}

inline read(r) {
    d_step {
        if
        :: cell[at % CAP] == PADDING -> at = at + CAP - (at % CAP)
        :: else
        fi;
        if
        :: message == UNKNOWN -> message = cell[at % CAP]; assert(message < MESSAGES)
        :: else
        fi;
        examine()
    };
    d_step {
        examine();  /* again, just before its release */
        at = at + LENGTH(message);
        message++
    };
    position[r] = at
}

proctype Reader(byte r; byte lives) {
    byte at, known, message;
    bool is_over;
idle:
    is_over = false;
    {
        skip;  /* attaches, or never does */
end_away:
        atomic { lives > 0 && lock[r] == NOBODY -> lock[r] = READER; lives-- };
        if
        :: announced[r] -> clear(r)
        :: else
        fi;
        if
        :: gate[r] == VACANT && (closed || writer_gone) -> goto left
        :: else
        fi;
        announced[r] = true;
        join(r);
end_waiting:
        do
        :: at < known -> read(r)
        :: at == known && visible != at -> known = visible
        :: at == known && (closed || writer_gone) ->
           known = visible;  /* the last look, after the end was seen */
           if
           :: at == known -> is_over = true; break
           :: else
           fi
        :: r == 0 -> break                           /* leaves early */
        :: r == 1 && !stopped[0] && !stopped[1] -> stopped[r] = true
        :: stopped[r] ->
end_stopped:
           false
        od;
        if
        :: is_over -> assert(at == issued)  /* no published message is missing */
        :: else
        fi;
        gate[r] = VACANT;
        announced[r] = false;
    } unless { kill_reader[r] };
left:
    skip;
    d_step {
        if
        :: gate_on_its_way[r] ->
           position[r] = position_on_its_way[r]; gate[r] = ACTIVE; gate_on_its_way[r] = false
        :: else
        fi;
        if :: lock[r] == READER -> lock[r] = NOBODY :: else fi;
        stopped[r] = false;
        kill_reader[r] = false;
        at = 0; known = 0; message = 0
    };
    goto idle
}

/* SIGKILL. */
proctype Reaper() {
    do
    :: atomic { deaths > 0 && !writer_gone && !kill_writer -> kill_writer = true; deaths-- }
    :: atomic { deaths > 0 && lock[0] == READER && !kill_reader[0] ->
           kill_reader[0] = true; deaths-- }
    :: atomic { deaths > 0 && lock[1] == READER && !kill_reader[1] ->
           kill_reader[1] = true; deaths-- }
    :: break  /* and no more */
    od
}

#define BLOCKS(r) (!ALLOWS(r) && (gate[r] == EXPECTED || lock[r] == READER))

/* The end state, when no step is left. */
proctype Judge() {
    timeout;
    assert(needed == 0 || BLOCKS(0) || BLOCKS(1))
}

init {
    atomic {
        run Writer();
        run Buffer();
        run Reader(0, LIVES_0);
        if
        :: LIVES_1 > 0 -> run Reader(1, LIVES_1)
        :: else -> gate[1] = VACANT
        fi;
        run Reaper();
        run Judge()
    }
}
