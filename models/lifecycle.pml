/* The life of a name: segments are made in private and published under it, joined, left, removed
 * and replaced, by processes that die at any step and never wait for long.
 *
 *   here            | src/segment/life/segment.cpp, src/os/shared_file_linux.cpp
 *   ----------------+----------------------------------------------------------------------
 *   Creator         | Segment::create, publish, make_way; then WriterCore::close
 *   Joiner          | open_to_join, ReaderCore::claim_rank, Segment::joined; then leave
 *   remove          | remove_patiently, remove_if_dead, unlink_if_same (look, then unlink)
 *   Collector       | Visit::remove_if_abandoned (`penstock gc`)
 *   locked, alive   | the kernel's lock on the slot; that and the slot's word (Participants::life)
 *   joining, busy   | the life-cycle lock on byte 0: shared by joiners, exclusive for a remover
 *
 * Two creators and a joiner; -DJOINERS: one creator, two joiners; -DCOLLECTORS: two creators and
 * two collectors. Slot 0 of a segment is its creator's, slot 1 its joiner's. Patience (200 ms) may
 * end at any moment.
 * Checked: no process unlinks a segment with a living participant, nor a name that leads to another
 * segment by now; a joiner is in a segment that has its name; two segments never share a name; and
 * when all went in order, no name is left.
 *
 * Negative controls: -DNO_LIFE_CYCLE_LOCK (joiners don't take it), -DNO_LINK_CHECK (they don't
 * check whether the opened file was removed meanwhile), -DFAIL_QUIETLY (a joiner that is refused
 * does not try to remove the name), -DNO_INODE_CHECK (removal trusts the name), -DNO_THIRD_LOOK (a
 * remover that found a living participant under the lock does not look again after unlocking).
 */
#define SEGMENTS 2
#define NONE 9
#ifndef DEATHS
#define DEATHS 1
#endif

byte name = NONE;                  /* the segment that the name leads to */
bool linked[SEGMENTS];
bool locked[4], alive[4];          /* slots: segment * 2 + slot; alive: locked and announced */
byte joining[SEGMENTS];            /* shared locks on byte 0 */
bool busy[SEGMENTS];               /* exclusive lock on byte 0 */
byte deaths = DEATHS, done;
bool kill[6], anybody_died;

#define ANYBODY_ALIVE(s) (alive[(s) * 2] || alive[(s) * 2 + 1])

/* Sets `gone` if the segment has no living participant and is no longer linked. */
inline remove(s) {
    gone = false;
    do
    :: ANYBODY_ALIVE(s) -> break
    :: else ->
       if
       :: d_step { !busy[s] && joining[s] == 0 -> busy[s] = true; mine = s };
          if
          :: ANYBODY_ALIVE(s)
          :: else ->
#ifdef NO_INODE_CHECK
             is_same = true;
#else
             is_same = (name == s);
#endif
             if
             :: is_same ->
                d_step {
                    assert(name == s || name == NONE);
                    assert(!ANYBODY_ALIVE(s));
                    name = NONE;
                    linked[s] = false
                }
             :: else
             fi;
             is_same = false;
             gone = true
          fi;
          d_step { busy[s] = false; mine = NONE };
#ifdef NO_THIRD_LOOK
          break
#else
          if  /* a leaver may have given up because of this lock: look again */
          :: gone -> break
          :: else
          fi
#endif
       :: busy[s] || joining[s] > 0 -> skip  /* tries again */
       :: busy[s] || joining[s] > 0 -> break /* gives up */
       fi
    od
}

/* The kernel's part at the end of a process. */
inline end(s, slot) {
    atomic {
        if
        :: kill[me] -> anybody_died = true
        :: else
        fi;
        if :: mine != NONE -> busy[mine] = false; mine = NONE :: else fi;
        if :: is_joining -> joining[s]--; is_joining = false :: else fi;
        if
        :: s != NONE && has_slot ->
           alive[s * 2 + slot] = false; locked[s * 2 + slot] = false; has_slot = false
        :: else
        fi;
        s = NONE; gone = false; is_same = false;
        done++
    }
}

proctype Creator(byte me; byte own) {
    byte mine = NONE, other = NONE;
    bool gone, is_same, is_joining, has_slot;
    {
        d_step { alive[own * 2] = true; has_slot = true };  /* in private */
        do
        :: d_step { name == NONE -> name = own; linked[own] = true }; break
        :: d_step { name != NONE -> other = name };
           remove(other);
           if
           :: gone -> skip
           :: !gone && ANYBODY_ALIVE(other) -> goto refused
           :: !gone && !ANYBODY_ALIVE(other) -> goto refused
           fi
        od;
        assert(linked[own]);
        skip;  /* works */
        assert(name == own);
        d_step { alive[own * 2] = false; has_slot = false };  /* retire, release */
        remove(own)
refused:
        skip
    } unless { kill[me] };
    end(own, 0)
}

proctype Joiner(byte me) {
    byte mine = NONE, s = NONE;
    bool gone, is_same, is_joining, has_slot;
    {
        do
        :: name == NONE -> goto away  /* NotFound */
        :: d_step { name != NONE -> s = name };  /* opens it */
#ifdef NO_LIFE_CYCLE_LOCK
           break
#else
           if
           :: d_step { !busy[s] -> joining[s]++; is_joining = true };
#ifndef NO_LINK_CHECK
              if
              :: linked[s] -> break
              :: else -> d_step { joining[s]--; is_joining = false; s = NONE }
              fi
#else
              break
#endif
           :: busy[s] -> s = NONE
           :: busy[s] -> goto away
           fi
#endif
        od;
        if
        :: d_step { !locked[s * 2 + 1] -> locked[s * 2 + 1] = true; has_slot = true };
           d_step { assert(linked[s] && name == s); alive[s * 2 + 1] = true };
           d_step {
               if :: is_joining -> joining[s]--; is_joining = false :: else fi
           };
           assert(linked[s] && name == s);
           d_step { alive[s * 2 + 1] = false; locked[s * 2 + 1] = false; has_slot = false };
           remove(s)
        :: true ->  /* refused: no such rank, taken, another kind... */
#ifndef FAIL_QUIETLY
           d_step {
               if :: is_joining -> joining[s]--; is_joining = false :: else fi
           };
           remove(s)
#else
           skip
#endif
        fi;
away:
        skip
    } unless { kill[me] };
    end(s, 1)
}

proctype Collector(byte me) {
    byte mine = NONE, s = NONE;
    bool gone, is_same, is_joining, has_slot;
    {
        if
        :: d_step { name != NONE -> s = name }; remove(s)
        :: true
        fi
    } unless { kill[me] };
    end(s, 1)
}

/* SIGKILL. */
proctype Reaper() {
    do
    :: atomic { deaths > 0 -> kill[0] = true; deaths-- }
    :: atomic { deaths > 0 -> kill[1] = true; deaths-- }
    :: atomic { deaths > 0 -> kill[2] = true; deaths-- }
    :: atomic { deaths > 0 -> kill[3] = true; deaths-- }
    :: break  /* and no more */
    od
}

proctype Judge() {
    timeout;
    assert(done == 4);
    assert(anybody_died || name == NONE)
}

init {
    atomic {
        run Creator(0, 0);
#ifdef JOINERS
        run Joiner(1);
        run Joiner(2);
        done++;
#elif defined(COLLECTORS)
        run Creator(1, 1);
        run Collector(2);
        run Collector(3);
#else
        run Creator(1, 1);
        run Joiner(2);
        done++;
#endif
        run Reaper();
        run Judge()
    }
}
