// A named piece of shared memory: made in private, published whole, attached to after every field
// of its header has been checked, and removed by the last participant to leave.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <system_error>

#include "os/fork.hpp"
#include "os/shared_file.hpp"
#include "penstock/segment.hpp"
#include "penstock/statistics.hpp"
#include "penstock/wait.hpp"
#include "segment/layout.hpp"
#include "segment/life/name.hpp"
#include "segment/life/participants.hpp"

namespace penstock::detail {

using Geometry = std::array<std::uint64_t, layout::kGeometryWords>;

// What a concept asks of a new segment.
struct SegmentPlan {
    Kind kind = Kind::Broadcast;
    Geometry geometry{};
    unsigned slots = 0;
    std::uint64_t control_bytes = 0;
    std::uint64_t payload_bytes = 0;                  // address range
    std::uint64_t payload_reserved = 0;               // of it, from its start, reserved at once
    std::uint64_t payload_alignment = layout::kPage;  // of its offset and its address
    bool has_views = true;          // the creator reads messages or objects in place, too
    bool may_be_anonymous = false;  // there is a way to attach by descriptor
    // Whose abandoned segment is replaced besides one's own.
    std::optional<std::uint32_t> replaces_owner = std::nullopt;
};

// What an attacher expects, and how it wants the payload mapped.
struct Wanted {
    Kind kind = Kind::Broadcast;
    os::Mapping::Access payload = os::Mapping::Access::Read;
    std::string instance;  // empty: any
    Trust trust = {};
};

// Owns the file, the mappings and the locks of one handle. Not thread-safe, except the const
// members. In a forked child the destructor forgets everything and touches nothing.
class Segment {
public:
    using Fill = std::function<void(Segment&)>;

    Segment(const Segment&) = delete;
    Segment& operator=(const Segment&) = delete;
    ~Segment();

    // Makes the segment, calls `fill` to put its first contents in and to claim a slot, then gives
    // it its name. Replaces a segment of that name whose participants are all dead, unless that
    // holds data (KeptData) and is a store or of another kind: AlreadyExists. An empty name makes
    // an anonymous one where the plan allows it. Throws Error.
    static std::unique_ptr<Segment> create(const std::string& name, const SegmentPlan& plan,
                                           const MemoryOptions& memory, const Fill& fill);

    // Opens and checks. The life-cycle lock is held shared until joined() or destruction, so that
    // the segment is not removed while the caller claims its slot. Throws Error.
    static std::unique_ptr<Segment> attach(const std::string& name, const Wanted& wanted);
    static std::unique_ptr<Segment> attach(int descriptor, const Wanted& wanted);
    void joined() noexcept;

    // Maps what memory the payload has at this moment into this process's page tables, which are
    // its own whatever another process has touched. In pieces, so that `wait` may end it: Timeout
    // or Cancelled; what was done stays of use. InvalidArgument: the kernel can't (before
    // Linux 5.14).
    [[nodiscard]] Status populate(const Wait& wait, const Cancel& closing) noexcept;

    // To be called after one's slot is retired and released: removes the name if no participant
    // is left and `may_go`, asked while none can join, agrees.
    void leave(const std::function<bool()>& may_go = {}) noexcept;

    // After leave(): what refers to this handle changes nothing any more, as is_foreign() says. The
    // memory stays mapped for what still reads it.
    void disown() noexcept;
    // After leave(): gives memory and descriptors back as well. Name, header and instance stay.
    void detach() noexcept;

    // True in a forked child, after disown() or detach(), and for a handle that is_lost(): shared
    // memory is not ours to touch.
    [[nodiscard]] bool is_foreign() const noexcept {
        return owner_.load(std::memory_order_relaxed) != os::fork_generation() || is_found_dead();
    }
    // The part of it that may change during a call: others have found this participant dead, and
    // what it held may be others' by now. One load, to be done once more when memory has been read.
    [[nodiscard]] bool is_found_dead() const noexcept { return participants_.is_found_dead(); }
    // The same two after bytes were copied out: what was read is not younger than the look.
    // pairs with: the release in note_dead(), which comes before a janitor's first change
    [[nodiscard]] bool is_found_dead_after_reading() const noexcept {
        std::atomic_thread_fence(std::memory_order_acquire);
        return is_found_dead();
    }
    [[nodiscard]] bool is_foreign_after_reading() const noexcept {
        std::atomic_thread_fence(std::memory_order_acquire);
        return is_foreign();
    }
    // The program has closed the descriptor that carries the lock, by which others know that this
    // participant is alive. Nothing in shared memory is its own any more, nor in the table of
    // descriptors: it can only be closed. Not in a forked child.
    [[nodiscard]] bool is_lost() const noexcept;
    // Looks at the descriptor as well, by a system call: false if this handle is foreign, or lost
    // by now. For calls that use it, that wait, or that write for longer than this takes.
    [[nodiscard]] bool check_place() noexcept;
    // What every call says of a handle that is_foreign().
    [[nodiscard]] Status why_foreign() const noexcept;
    [[nodiscard]] const std::string& name() const noexcept { return location_.name; }
    [[nodiscard]] const layout::SegmentHeader& header() const noexcept { return header_; }
    [[nodiscard]] std::string instance() const;  // 32 hex digits
    [[nodiscard]] bool has_asymmetric_fence() const noexcept;
    [[nodiscard]] std::byte* control() const noexcept;
    [[nodiscard]] std::byte* payload() const noexcept { return payload_.data(); }
    // The payload where it can't be written: what is handed to the program to read lies here, so
    // that a stray write faults there and reaches no other process. payload() itself where it is
    // mapped read-only, and where the plan has no views.
    [[nodiscard]] const std::byte* views() const noexcept {
        return views_.data() != nullptr ? views_.data() : payload_.data();
    }
    // The same bytes there; `at` lies in the payload.
    [[nodiscard]] const std::byte* view_of(const std::byte* at) const noexcept {
        return views() + (at - payload_.data());
    }
    [[nodiscard]] std::uint64_t payload_offset() const noexcept { return header_.payload_offset; }
    [[nodiscard]] os::SharedFile& file() noexcept { return file_; }
    [[nodiscard]] Participants& participants() noexcept { return participants_; }
    [[nodiscard]] const Participants& participants() const noexcept { return participants_; }
    // -1: it was closed by the program.
    [[nodiscard]] int lending_descriptor() const noexcept {
        return lending_.is_ours() ? lending_.descriptor() : -1;
    }
    [[nodiscard]] std::uint64_t reserved_bytes() const noexcept;
    // What the abandoned segment held that create() replaced.
    [[nodiscard]] const KeptData& replaced() const noexcept { return replaced_; }
    // "; /dev/shm has so much free of so much: ...", for sentences about NoSpace.
    [[nodiscard]] std::string space_sentence() const;

private:
    Segment() noexcept;

    void open_for_lending();
    static std::unique_ptr<Segment> adopt(os::SharedFile file, Location location,
                                          const Wanted& wanted);
    void build(const SegmentPlan& plan, const MemoryOptions& memory);
    void map(os::Mapping::Access payload, bool has_views);
    [[nodiscard]] os::Mapping map_range(std::uint64_t offset, std::uint64_t bytes,
                                        os::Mapping::Access access) const;
    void place(const MemoryOptions& memory);
    void fault_in(const MemoryOptions& memory, std::uint64_t reserved);
    [[noreturn]] void throw_ended(ErrorCode why) const;
    void require(const std::error_code& error, const char* option, const char* remedy) const;
    [[nodiscard]] Location location_in_header() const;
    void publish(const std::optional<std::uint32_t>& replaces_owner);

    Location location_;
    os::SharedFile file_;  // carries the locks
    os::SharedFile
        lending_;  // carries no lock: a process that inherits it keeps no participant alive
    layout::SegmentHeader header_{};
    os::Mapping control_;  // header, slots and control, writable
    os::Mapping payload_;
    os::Mapping::Access payload_access_ = os::Mapping::Access::ReadWrite;
    os::Mapping views_;  // the payload again, read-only; empty where payload_ is, or without views
    Participants participants_;
    KeptData replaced_;
    const std::uint64_t fork_generation_;
    std::atomic<std::uint64_t> owner_;  // fork_generation_ until disown(), or until it is lost
    static constexpr std::uint64_t kDisowned = ~std::uint64_t{0};
    static constexpr std::uint64_t kLost = kDisowned - 1;
};

// Segment::attach(), waiting for the name to appear until `wait` ends; then NotFound or Cancelled.
std::unique_ptr<Segment> attach_when_there(const std::string& name, const Wanted& wanted,
                                           const Wait& wait);

// A look at a segment from outside: copied and checked, not joined, changed in nothing but by
// remove_if_abandoned(). Nothing is mapped, so that the owner of the file may do with it what it
// likes, also truncate it. Throws Error as Segment::attach(), but looks at every user's.
class Visit {
public:
    enum class Purpose : std::uint8_t { Look, Remove };
    explicit Visit(const std::string& name, Purpose purpose = Purpose::Look);

    [[nodiscard]] const layout::SegmentHeader& header() const noexcept { return header_; }
    // Lives are asked anew each time; the texts are of the moment of the visit.
    [[nodiscard]] const Participants& participants() const noexcept { return participants_; }
    // A copy of the control block as it is now, good until the next call. To be called once the
    // header's geometry has been checked: that bounds its size. Throws Corrupt (the file ends
    // before), NoSpace, TooLarge (another user's, and more than is copied of those).
    [[nodiscard]] std::byte* control();
    [[nodiscard]] os::SharedFile& file() noexcept { return file_; }
    [[nodiscard]] const os::SharedFile& file() const noexcept { return file_; }
    // Throws PermissionDenied unless it is this user's or `trust` names its owner.
    void check_trusted(const Trust& trust) const;
    // False: a living process is attached or just joining, or `may_go`, asked while none can join,
    // refused.
    bool remove_if_abandoned(const std::function<bool()>& may_go = {});

private:
    Location location_;
    os::SharedFile file_;
    layout::SegmentHeader header_{};
    std::unique_ptr<layout::ParticipantSlot[]> slots_;  // copies
    struct Free {
        void operator()(std::byte* memory) const noexcept { std::free(memory); }
    };
    std::unique_ptr<std::byte, Free> control_;  // from calloc(): zeros, and no memory until written
    Participants participants_;
};

// The statistics that segments of all concepts have.
void read_segment_stats(SegmentStats& stats, const Participants& participants,
                        std::uint64_t reserved_bytes) noexcept;

// What `penstock ls` shows of a visited segment.
SegmentSummary summarize(Visit& visit, const std::string& name);

// What would be lost with an abandoned segment. Nothing where its geometry makes no sense: then
// no process can attach to it. Defined in src/inspect, above the concepts, which know their data.
KeptData kept_data(Visit& visit);

}  // namespace penstock::detail
