// What every Penstock segment has in common, seen from outside: where it may live, how its memory
// is obtained, which processes are attached to it, and what is left of it when all have died.
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

// How the memory of a new segment is had. Each is an error at creation when it can't be had.
struct MemoryOptions {
    bool huge_pages = false;   // MADV_HUGEPAGE on the payload (tmpfs must allow it)
    bool populate = false;     // fault every reserved page in now
    bool lock_memory = false;  // mlock what is reserved (RLIMIT_MEMLOCK)
    std::optional<int> numa_node = std::nullopt;  // bind the payload's pages to this node
    // Ends a creation that takes memory, some 0.5 s for each GiB: Timeout or Cancelled, and nothing
    // was created. Asked between pieces of 16 to 32 MiB; not used after creation.
    Wait wait = {};
};

// Whose segments a process takes part in. Always those of its own effective user, root's for root;
// no other's, unless `owner` names that user. The owner of a segment can put anything into it and
// truncate it, which ends every process that has it mapped by SIGBUS.
struct Trust {
    // User id, whose segments are taken part in besides one's own.
    std::optional<std::uint32_t> owner = std::nullopt;
    // What is read out of it may run code, as pickles do: then one's own user's only, whatever
    // `owner` says. PermissionDenied otherwise.
    bool runs_code = false;
};

// The id of a user, by name or number: "alice", "1000". Throws InvalidArgument.
std::uint32_t parse_user(const std::string& text);

// A process that is, or was, attached. For display: code asks the kernel's lock, and no pid.
struct Participant {
    unsigned slot = 0;
    std::string role;              // "writer", "reader 2"
    bool alive = false;            // the kernel's word, at the moment of asking
    bool stopped = false;          // SIGSTOP, debugger; false where that can't be known
    std::uint32_t pid = 0;         // in the participant's own PID namespace
    std::string process;           // its short name
    std::int64_t attached_at = 0;  // ns since the epoch
};

// What an abandoned segment holds and would be lost with it: the next to attach can still have it.
struct KeptData {
    // Of a queue: not acknowledged. Queued, taken by consumers that died, or dead letters.
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
    // Only of a segment without a living participant; others are not looked into.
    KeptData kept;
    std::string problem;  // why it can't be read, in words; empty when all is well
    // PermissionDenied: another user's, which may well be healthy. Ok when all is well.
    ErrorCode problem_code = ErrorCode::Ok;

    [[nodiscard]] bool is_abandoned() const noexcept;  // no living participant
};

// Every segment in /dev/shm that bears Penstock's prefix and that this user may read.
// Attaches nowhere, maps nothing, changes nothing.
std::vector<SegmentSummary> list_segments();

// One segment by name. Throws NotFound, PermissionDenied, Incompatible, Corrupt.
SegmentSummary inspect_segment(const std::string& name);

// What becomes of data that an abandoned segment holds.
enum class OnData : std::uint8_t { Keep, Remove };

// Removes the segment if no living process is attached and, unless told to remove that too, it
// holds no data (KeptData). False: it stays. Throws NotFound. Safe against a process that attaches
// or creates at the same moment: it wins or it waits. Maps nothing; root may remove every user's.
bool remove_if_abandoned(const std::string& name, OnData on_data = OnData::Keep);

// Sizes as people write them: "64MiB", "1.5GiB", "4096", "10MB". Throws InvalidArgument.
std::uint64_t parse_size(const std::string& text);

}  // namespace penstock
