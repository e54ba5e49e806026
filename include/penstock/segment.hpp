// Properties of every segment, seen from outside: its location, its memory, its participants, and
// the data it holds when all of them have died.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "penstock/error.hpp"
#include "penstock/wait.hpp"

namespace penstock {

enum class Kind : std::uint32_t { Broadcast = 1, Queue = 2, Store = 3, Service = 4 };

std::string_view to_string(Kind kind) noexcept;

// Memory of a new segment. An option that the system cannot grant is an error at creation.
struct MemoryOptions {
    // Puts what is reserved into huge pages (MADV_COLLAPSE: no privilege, Linux 6.1). Where they
    // run out, the rest gets small pages; see huge_page_bytes of the statistics.
    bool huge_pages = false;
    bool populate = false;                        // fault every reserved page in now
    bool lock_memory = false;                     // mlock what is reserved (RLIMIT_MEMLOCK)
    std::optional<int> numa_node = std::nullopt;  // bind the payload's pages to this node
    // Bounds a creation that takes memory, some 0.5 s for each GiB: Timeout or Cancelled, and
    // nothing was created. Checked between pieces of 16 to 32 MiB; not used after creation.
    Wait wait = {};
};

// Users whose segments a process attaches to: always its own effective user (root for root), and no
// other unless `owner` names it. The owner of a segment can put anything into it, and can truncate
// it, which ends every process that has it mapped by SIGBUS.
struct Trust {
    // User id of the second user.
    std::optional<std::uint32_t> owner = std::nullopt;
    // Reading from the segment may run code (pickles): then only this process's own user is
    // accepted, whatever `owner` says. PermissionDenied otherwise.
    bool runs_code = false;
};

// The id of a user, by name or number: "alice", "1000". Throws InvalidArgument.
std::uint32_t parse_user(const std::string& text);

// A process that is, or was, attached. For display: code asks the kernel's lock, never a pid.
struct Participant {
    unsigned slot = 0;
    std::string role;              // "writer", "reader 2"
    bool alive = false;            // by the kernel's lock, at the moment of the call
    bool stopped = false;          // SIGSTOP or a debugger; false where that is unknown
    std::uint32_t pid = 0;         // in the participant's own PID namespace
    std::string process;           // its short name
    std::int64_t attached_at = 0;  // ns since the epoch
    // Of a dead participant: how its process ended, as far as that was seen.
    std::optional<int> exit_code = std::nullopt;  // of one that exited without closing
    std::optional<int> signal = std::nullopt;     // that killed the process
    std::string how_it_died = {};  // "killed by signal 9 (SIGKILL)", or why that is not known
};

// Data that an abandoned segment holds and that would be lost with it; a process that attaches
// still gets it.
struct KeptData {
    // Unacknowledged messages of a queue: queued, taken by consumers that died, or dead letters.
    std::uint64_t messages = 0;
    std::uint64_t objects = 0;  // of a persistent store
    std::uint64_t bytes = 0;    // of those messages or objects
    bool persistent = false;    // a store that was created to stay, with or without objects

    [[nodiscard]] bool is_nothing() const noexcept { return messages == 0 && !persistent; }
    // "1000 messages", "3 objects, 64 MiB, persistent"; empty for nothing.
    [[nodiscard]] std::string describe() const;
};

// One segment as `penstock ls` shows it.
struct SegmentSummary {
    std::string name;  // without the "penstock." prefix, or "file:/path"
    Kind kind = Kind::Broadcast;
    std::uint64_t reserved_bytes = 0;  // memory it takes now
    std::uint64_t range_bytes = 0;     // address range it may grow into
    std::uint32_t owner = 0;           // user id; unknown where there is a problem
    std::vector<Participant> participants;
    // Dead participants that were reaped: the last of each slot, until another process joins there.
    // Without process name and time if those are no longer known.
    std::vector<Participant> reaped;
    // Empty for a segment with a living participant, whose data is not counted.
    KeptData kept;
    std::string problem;  // why it can't be read, as a sentence; empty if there is no problem
    // PermissionDenied: another user's segment, which may be sound. Ok if there is no problem.
    ErrorCode problem_code = ErrorCode::Ok;

    [[nodiscard]] bool is_abandoned() const noexcept;  // no living participant
};

// Every segment in /dev/shm that has Penstock's prefix and is readable to this user. Attaches to
// nothing, maps nothing, changes nothing.
std::vector<SegmentSummary> list_segments();

// One segment by name. Throws NotFound, PermissionDenied, Incompatible, Corrupt.
SegmentSummary inspect_segment(const std::string& name);

// Whether remove_if_abandoned() also removes segments that hold data.
enum class OnData : std::uint8_t { Keep, Remove };

// Removes the segment if no living process is attached and, unless `on_data` is Remove, it holds no
// data (KeptData). False: it stays. Throws NotFound. Safe against a process that attaches or
// creates at the same moment. Maps nothing; root may remove every user's segments.
bool remove_if_abandoned(const std::string& name, OnData on_data = OnData::Keep);

// Sizes as people write them: "64MiB", "1.5GiB", "4096", "10MB". Throws InvalidArgument.
std::uint64_t parse_size(const std::string& text);

}  // namespace penstock
