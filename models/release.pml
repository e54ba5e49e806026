/* One reader's messages, released by several threads in any order while the handle is closed: which
 * thread gives the room back, which one is the last and deletes the core.
 *
 *   here            | src/broadcast/reader_core.cpp
 *   ----------------+----------------------------------------------------------------
 *   Receiver        | ReaderCore::recv, hand_out; recv_into; close_handle
 *   Thread          | Message::keep, release, on any thread
 *   announce        | ReaderCore::announce: work_ is `to_see` (low half) and `let_go` (high half)
 *   give_back       | ReaderCore::free_released, publish_position
 *   deleted         | ReaderCore::leave
 *
 * Checked: a deleted core is not touched; it is deleted once, by the last; the position never goes
 * back, and in the end has passed everything; after close() the gate opens as soon as no message is
 * held in the ring, whatever is kept in blocks.
 *
 * Negative controls: -DENTRY_BEFORE_POSITION (oldest_ moves before the position), -DBLIND_END
 * (announcements made meanwhile are not looked for), -DGATE_WITH_THE_LAST.
 */
#define MESSAGES 3
#define RECEIVED 4  /* the fourth by recv_into, when nothing is held */

byte to_see, let_go;              /* work_ */
byte handed_out = 1;              /* the handle, and every Message */
bool handle_closed;
byte oldest, next;                /* entries */
bool released[MESSAGES];
byte end_of[MESSAGES];
byte cursor;                      /* position_ */
byte line;                        /* ReaderLine::position */
bool gate_is_open, deleted;
byte kept;                        /* ghost: messages held in blocks only */
bool waiting[MESSAGES];           /* handed out, not taken by a thread yet */

#define TOUCH assert(!deleted)

inline give_back() {
    first = oldest;
    end = next;
    now = first;
    do
    :: now != end && released[now] -> now++
    :: else -> break
    od;
    if
    :: now != first ->
#ifdef ENTRY_BEFORE_POSITION
       oldest = now;
#endif
       d_step { TOUCH; assert(end_of[now - 1] >= line); line = end_of[now - 1] };
#ifndef ENTRY_BEFORE_POSITION
       oldest = now
#endif
    :: else
    fi
}

inline announce(last) {
    d_step { TOUCH; is_busy = (to_see != 0); to_see++; let_go = let_go + last };
    if
    :: is_busy  /* the busy thread handles it; the core is not touched again */
    :: else ->
       d_step { TOUCH; seen = to_see; seen_let_go = let_go };
       do
       :: give_back();
          if
          :: handle_closed && seen_let_go == handed_out ->
             d_step { TOUCH; deleted = true; gate_is_open = true };
             break
#ifndef GATE_WITH_THE_LAST
          :: handle_closed && seen_let_go != handed_out && oldest == next -> gate_is_open = true
          :: !handle_closed || (seen_let_go != handed_out && oldest != next)
#else
          :: else
#endif
          fi;
          d_step {
              TOUCH;
#ifdef BLIND_END
              is_busy = true; to_see = 0
#else
              is_busy = (to_see == seen && let_go == seen_let_go);  /* compare_exchange */
              if
              :: is_busy -> to_see = 0
              :: else -> seen = to_see; seen_let_go = let_go
              fi
#endif
          };
          if
          :: is_busy -> break
          :: else
          fi
       od
    fi;
    skip;
    d_step { is_busy = false; seen = 0; seen_let_go = 0; first = 0; end = 0; now = 0 }
}

proctype Receiver() {
    byte first, end, now, seen, seen_let_go;
    bool is_busy;
    do
    :: cursor < RECEIVED && next < MESSAGES ->  /* recv */
       d_step { TOUCH; cursor++; end_of[next] = cursor; handed_out++ };
       d_step { TOUCH; next++; waiting[next - 1] = true }
    :: cursor < RECEIVED && next == oldest ->  /* recv_into: no other thread, no entry */
       cursor++;
       d_step { TOUCH; assert(cursor >= line); line = cursor }
    :: break
    od;
    TOUCH;
    handle_closed = true;
    announce(1)
}

inline release(m) {
    if
    :: true ->
       released[m] = true;
       announce(1)
    :: d_step { kept == 0 -> kept++ };  /* keep, and release later */
       released[m] = true;
       announce(0);
       if
       :: true
       :: true -> gate_is_open  /* kept until then */
       fi;
       kept--;
       announce(1)
    fi
}

proctype Thread() {
    byte first, end, now, seen, seen_let_go;
    bool is_busy;
end_idle:
    do
    :: atomic { waiting[0] -> waiting[0] = false }; release(0)
    :: atomic { waiting[1] -> waiting[1] = false }; release(1)
    :: atomic { waiting[2] -> waiting[2] = false }; release(2)
    od
}

proctype Judge() {
    timeout;
    assert(deleted && line == cursor && let_go == handed_out)
}

init {
    atomic {
        run Receiver();
        run Thread();
        run Thread();
        run Judge()
    }
}
