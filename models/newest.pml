/* The second copy of a small record beside the writer's position: a reader takes the record that
 * the position published from there, or nothing.
 *
 * Memory is a process: every word of the writer's two lines becomes visible on its own, in any
 * order that the writer's fence and release permit. Message i stores newest_end, fence, words,
 * position, and each of these stores may be delayed until a later rule waits for it. The writer may
 * die anywhere: stores that it had not made by then never become visible.
 *
 *   here     | src/broadcast
 *   ---------+-----------------------------------------------------------
 *   Memory   | WriterCore::copy_newest, WriterCore::publish
 *   Reader   | ReaderCore::look_for_more, ReaderCore::copy_newest
 *
 * Checked: a copy that is believed has all its words from one message, the one that was published.
 * Negative controls: -DNO_WRITER_FENCE, -DNO_READER_FENCE, -DNO_SECOND_LOOK, -DEARLY_POSITION.
 */
#ifndef MESSAGES
#define MESSAGES 4
#endif

byte end, first, second, position;  /* the number of the message that each was last stored for */
byte believed;

active proctype Memory() {
    do
    :: end < MESSAGES -> end++                  /* relaxed: even before the last position is seen */
#ifdef NO_WRITER_FENCE
    :: first < MESSAGES -> first++
    :: second < MESSAGES -> second++
#else
    :: atomic { first < end && position >= first -> first++ }
    :: atomic { second < end && position >= second -> second++ }
#endif
#ifdef EARLY_POSITION
    :: position < MESSAGES -> position++
#else
    :: atomic { position < first && position < second && position < end -> position++ }
#endif
    :: break                                    /* dead, or done */
    od
}

active proctype Reader() {
    byte known, one, two, again;
    do
    :: believed < MESSAGES ->
        known = position;
        if
        :: known == 0 || end != known -> skip   /* the ring has it */
        :: else ->
#ifdef NO_READER_FENCE
            again = end;                        /* the second look may come before the words */
#endif
            if                                  /* the words in any order */
            :: one = first; two = second
            :: two = second; one = first
            fi;
#if !defined(NO_READER_FENCE) && !defined(NO_SECOND_LOOK)
            again = end;
#endif
#ifdef NO_SECOND_LOOK
            again = known;
#endif
            if
            :: again == known -> assert(one == known && two == known); believed = known
            :: else -> skip
            fi
        fi
    :: break
    od
}
