// What every Penstock segment has in common, seen from outside: where it may live, how its memory
// is had, who is attached to it, and what is left of it when its people are dead.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "penstock/error.hpp"

namespace penstock {

enum class Kind : std::uint32_t { Broadcast = 1, Queue = 2, Store = 3, Service = 4 };

std::string_view to_string(Kind kind) noexcept;

// How the memory of a new segment is had. Each is an error at creation when it can't be had.
struct MemoryOptions {
    bool huge_pages = false;   // MADV_HUGEPAGE on the payload (tmpfs must allow it)
    bool populate = false;     // fault every reserved page in now
    bool lock_memory = false;  // mlock what is reserved (RLIMIT_MEMLOCK)
    std::optional<int> numa_node = std::nullopt;  // bind the payload's pages to this node
};

// One who is, or was, attached. For people: code asks the kernel's lock, never a process id.
struct Participant {
    unsigned slot = 0;
    std::string role;              // "writer", "reader 2"
    bool alive = false;            // the kernel's word, at the moment of asking
    bool stopped = false;          // SIGSTOP, debugger; false where that can't be known
    std::uint32_t pid = 0;         // in the participant's own PID namespace
    std::string process;           // its short name
    std::int64_t attached_at = 0;  // ns since the epoch
};

// One segment as `penstock ls` shows it.
struct SegmentSummary {
    std::string name;  // without the "penstock." prefix, or "file:/path"
    Kind kind = Kind::Broadcast;
    std::uint64_t reserved_bytes = 0;  // memory it takes now
    std::uint64_t range_bytes = 0;     // address range it may grow into
    std::vector<Participant> participants;
    std::string problem;  // why it can't be read, in words; empty when all is well

    [[nodiscard]] bool is_abandoned() const noexcept;  // nobody alive is attached
};

// Every segment in /dev/shm that bears Penstock's prefix. Attaches nowhere, changes nothing.
std::vector<SegmentSummary> list_segments();

// One segment by name. Throws NotFound, PermissionDenied, Incompatible, Corrupt.
SegmentSummary inspect_segment(const std::string& name);

// Removes the segment if nobody alive is attached. False: somebody is. Throws NotFound.
// Safe against a process that attaches or creates at the same moment: it wins or it waits.
bool remove_if_abandoned(const std::string& name);

// Sizes as people write them: "64MiB", "1.5GiB", "4096", "10MB". Throws InvalidArgument.
std::uint64_t parse_size(const std::string& text);

}  // namespace penstock
