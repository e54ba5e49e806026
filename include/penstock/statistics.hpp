// Statistics of segments. A concept's header has a table in which each statistic stands once: the
// struct follows from it, and so do the Python class, the numbers of `penstock info` and its
// --json, and the names of `penstock metrics`. Statistics of all segments stand here.
//
// Structs of statistics are plain values: copies of words in shared memory, each read by itself, so
// that they need not fit together exactly.
#pragma once

#include <cstdint>

#include "penstock/wait.hpp"

namespace penstock {

// The kind of a statistic: how it is shown, and which metric it becomes.
struct StatisticKind {
    const char* name;  // "counter": only grows while the segment exists; "gauge": a value now;
                       // "word": a choice; "part": a text, or nested statistics
    const char* unit;  // "bytes", "seconds" or empty
};
namespace statistic_kind {
inline constexpr StatisticKind Counter{"counter", ""};
inline constexpr StatisticKind CountedBytes{"counter", "bytes"};
inline constexpr StatisticKind CountedSeconds{"counter", "seconds"};
inline constexpr StatisticKind Gauge{"gauge", ""};
inline constexpr StatisticKind Bytes{"gauge", "bytes"};
inline constexpr StatisticKind Seconds{"gauge", "seconds"};
inline constexpr StatisticKind Word{"word", ""};
inline constexpr StatisticKind Part{"part", ""};
}  // namespace statistic_kind

// One row of a table.
template <typename Stats, typename Value>
struct Statistic {
    const char* name;
    Value Stats::* member;
    StatisticKind kind;
    const char* help;  // a sentence
};

// The base of every struct of statistics. for_each(visit) calls `visit` with each Statistic; a
// base's come last.
struct Statistics {
    template <typename Visit>
    static constexpr void for_each(Visit&& /*visit*/) {}
};

// Defines the struct NAME of a table, which is a macro of rows X(type, name, kind, help).
#define PENSTOCK_STATISTICS(NAME, BASE, TABLE)          \
    struct NAME : BASE {                                \
        TABLE(PENSTOCK_STATISTIC_MEMBER)                \
        template <typename Visit>                       \
        static constexpr void for_each(Visit&& visit) { \
            using Stats = NAME;                         \
            TABLE(PENSTOCK_STATISTIC_ROW)               \
            BASE::for_each(visit);                      \
        }                                               \
    }
#define PENSTOCK_STATISTIC_MEMBER(type, name, kind, help) type name{};
#define PENSTOCK_STATISTIC_ROW(type, name, kind, help) \
    visit(Statistic<Stats, type>{#name, &Stats::name, statistic_kind::kind, help});

// Statistics of every segment, filled in by detail::read_segment_stats().
#define PENSTOCK_SEGMENT_STATISTICS(X)                                                       \
    X(std::uint64_t, reserved_bytes, Bytes, "Memory that the segment takes now.")            \
    X(std::uint64_t, huge_page_bytes, Bytes,                                                 \
      "Of a segment created with huge_pages: its memory in huge pages now.")                 \
    X(std::uint64_t, joins, Counter, "Participants that ever joined, the creator included.") \
    X(std::uint64_t, deaths, Counter, "Participants found dead.")                            \
    X(WaitPolicy, waiting, Word, "What waiting may cost the processor.")                     \
    X(double, spin_seconds, CountedSeconds,                                                  \
      "Processor time that waits spent spinning; of a broadcast's handle: its own.")         \
    X(std::uint64_t, spins_won, Counter, "Waits that ended while they were spinning.")       \
    X(std::uint64_t, waits_slept, Counter, "Waits that had to sleep in the kernel.")
PENSTOCK_STATISTICS(SegmentStats, Statistics, PENSTOCK_SEGMENT_STATISTICS);

}  // namespace penstock
