/* The map of free blocks: two regions and the two levels of the map above them; and the heap words
 * that it summarizes. Customers free, take, and lower the map, in any order, and die at any step.
 *
 *   here        | src/segment/memory/free_map.cpp, src/segment/memory/heap.cpp
 *   ------------+--------------------------------------------------------------------------------
 *   largest[]   | the largest free block of a region, as Heap::scan finds it
 *   low[], high | the two levels of the map
 *   raise       | FreeMap::raise, raise_from
 *   lower       | FreeMap::lower
 *   correct     | Heap::correct, and the scan before it
 *   note[]      | MultiWord::Note: the region that a participant is changing
 *   Judge       | Heap::restore_noted, as after a failed search
 *
 * A byte is changed by itself: a compare-and-swap that fails because of other bytes in its word
 * only costs another turn. Memory is sequentially consistent.
 *
 * Checked: when all have finished or died, a look at the notes and then at the map leads to every
 * region that has a free block.
 *
 * Negative controls: -DNO_SECOND_LOOK (lower does not look again at the level below),
 * -DNO_SECOND_SCAN (correct does not look again at the words), -DNO_NOTES.
 */
#ifndef CUSTOMERS
#define CUSTOMERS 2
#endif
#ifndef TURNS  /* of each customer */
#define TURNS 2
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#define REGIONS 2
#define LARGEST(one, other) ((one) > (other) -> (one) : (other))

byte largest[REGIONS];       /* a class of sizes: 0 nothing, 1, 2 */
byte low[REGIONS], high;
byte note[CUSTOMERS];        /* a region, plus one */
byte deaths = DEATHS;
byte ended;
bool kill[CUSTOMERS];

inline raise(region, size) {
    if
    :: d_step { low[region] < size -> low[region] = size };
       raise_above(size)
    :: low[region] >= size
    fi
}

inline raise_above(size) {
    if
    :: d_step { high < size -> high = size }
    :: high >= size
    fi
}

inline lower() {
    if
    :: d_step { low[r] == said -> low[r] = found };
       least = LARGEST(low[0], low[1]);
       now = high;
       if
       :: now <= least
       :: d_step { now > least && high == now -> high = least };
#ifndef NO_SECOND_LOOK
          since = LARGEST(low[0], low[1]);
          if
          :: since > least -> raise_above(since)
          :: else
          fi
#endif
       :: now > least && high != now
       fi
    :: low[r] != said
    fi
}

inline correct() {
    said = low[r];
    found = largest[r];
    if
    :: found < said ->
#ifndef NO_NOTES
       note[self] = r + 1;
#endif
       lower();
#ifndef NO_SECOND_SCAN
       since = largest[r];
       if
       :: since > found -> raise(r, since)
       :: else
       fi;
#endif
       note[self] = 0
    :: else
    fi
}

proctype Customer(byte self) {
    byte turns = TURNS, r, said, found, least, now, since, size;
    {
        do
        :: turns > 0 ->
           turns--;
           if
           :: r = 0
           :: r = 1
           fi;
           if
           :: size = 1
           :: size = 2
           :: size = 0
           fi;
           if
           :: size > 0 ->
#ifndef NO_NOTES
              note[self] = r + 1;
#endif
              largest[r] = LARGEST(largest[r], size);
              raise(r, size);
              note[self] = 0
           :: largest[r] > 0 -> largest[r] = 0  /* the map is not lowered */
           :: correct()
           fi;
           d_step { r = 0; said = 0; found = 0; least = 0; now = 0; since = 0; size = 0 }
        :: turns == 0 -> break
        od;
        skip
    } unless { kill[self] };
    d_step {
        turns = 0; r = 0; said = 0; found = 0; least = 0; now = 0; since = 0; size = 0;
        ended++
    }
}

proctype Killer() {
end:
    do
    :: d_step { deaths > 0 && !kill[0] -> deaths--; kill[0] = true }
    :: d_step { deaths > 0 && !kill[1] -> deaths--; kill[1] = true }
    :: d_step { deaths > 0 -> deaths = 0 }
    od
}

proctype Judge() {
    byte who;
    ended == CUSTOMERS;
    d_step {
        do
        :: who < CUSTOMERS ->
           if
           :: note[who] > 0 ->
              low[note[who] - 1] = LARGEST(low[note[who] - 1], largest[note[who] - 1]);
              high = LARGEST(high, LARGEST(low[0], low[1]))
           :: else
           fi;
           who++
        :: else -> break
        od;
        assert(low[0] >= largest[0] && low[1] >= largest[1]);
        assert(high >= largest[0] && high >= largest[1])
    }
}

init {
    atomic {
        run Customer(0);
        run Customer(1);
#if CUSTOMERS > 2
        run Customer(2);
#endif
#if DEATHS > 0
        run Killer();
#endif
        run Judge()
    }
}
