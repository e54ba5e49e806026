// A named piece of shared memory: built in private, published complete, attached to after every
// field of its header was checked, and removed by the last participant to leave.
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
#include "segment/waiting/spin_budget.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {

using Geometry = std::array<std::uint64_t, layout::kGeometryWords>;

// A concept's requirements for a new segment.
struct SegmentPlan {
    Kind kind = Kind::Broadcast;
    Geometry geometry{};
    unsigned slots = 0;
    std::uint64_t control_bytes = 0;
    std::uint64_t payload_bytes = 0;     // address range
    std::uint64_t payload_reserved = 0;  // bytes of it, from its start, reserved at once
    std::uint64_t payload_alignment = layout::kPage;  // of its offset and its address
    bool huge_pages = false;                          // set by Segment::create()
    bool has_views = true;          // the creator reads messages or objects in place, too
    bool may_be_anonymous = false;  // the concept supports attaching by descriptor
    WaitPolicy waiting = WaitPolicy::Balanced;
    // A second user, besides this process's own, whose abandoned segment may be replaced.
    std::optional<std::uint32_t> replaces_owner = std::nullopt;
};

// An attacher's requirements, and how it wants the payload mapped.
struct Wanted {
    Kind kind = Kind::Broadcast;
    os::Mapping::Access payload = os::Mapping::Access::Read;
    std::string instance;  // empty: any
    Trust trust = {};
};

// Owns the file, the mappings and the locks of one handle. Not thread-safe, except the const
// members. In a forked child the destructor releases nothing.
class Segment {
public:
    using Fill = std::function<void(Segment&)>;

    Segment(const Segment&) = delete;
    Segment& operator=(const Segment&) = delete;
    ~Segment();

    // Builds the segment, calls `fill` to write its first contents and to claim a slot, then links
    // its name. Replaces a segment of that name whose participants are all dead, unless that holds
    // data (KeptData) and is a store or of another kind: AlreadyExists. An empty name makes an
    // anonymous segment if the plan allows it. Throws Error.
    static std::unique_ptr<Segment> create(const std::string& name, const SegmentPlan& plan,
                                           const MemoryOptions& memory, const Fill& fill);

    // Opens and checks. The life-cycle lock is held shared until joined() or destruction, so that
    // the segment is not removed while the caller claims its slot. Throws Error.
    static std::unique_ptr<Segment> attach(const std::string& name, const Wanted& wanted);
    static std::unique_ptr<Segment> attach(int descriptor, const Wanted& wanted);
    void joined() noexcept;

    // Maps the payload's present memory into this process's page tables, which no other process can
    // do for it. In pieces, so that `wait` may end it: Timeout or Cancelled; pieces that are mapped
    // stay mapped. InvalidArgument: the kernel can't (before Linux 5.14). In a segment with huge
    // pages, memory that lies in small pages is first moved into huge ones, as far as there are
    // any; an access to a page that is being moved waits some ms.
    [[nodiscard]] Status populate(const Wait& wait, const Cancel& closing) noexcept;

    // To be called after the slot was retired and released: removes the name if no participant is
    // left and `may_go`, called while none can join, agrees.
    void leave(const std::function<bool()>& may_go = {}) noexcept;

    // After leave(): makes the handle foreign, so that objects that refer to it change nothing. The
    // memory stays mapped for threads that still read it.
    void disown() noexcept;
    // After leave(): also unmaps memory and closes descriptors. Name, header and instance stay
    // known.
    void detach() noexcept;

    // True in a forked child, after disown() or detach(), and for a handle that is_lost(): it must
    // not touch shared memory.
    [[nodiscard]] bool is_foreign() const noexcept {
        return load_relaxed(owner_) != os::fork_generation() || is_found_dead();
    }
    // The one part of is_foreign() that may change during a call: another process found this
    // participant dead, and what it held may be others' by now. One load, to be repeated after
    // memory was read.
    [[nodiscard]] bool is_found_dead() const noexcept { return participants_.is_found_dead(); }
    // The same two after bytes were copied out: ordered after those reads.
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
    // participant is alive. Nothing in shared memory or in the descriptor table belongs to the
    // handle any more; it can only be closed. False in a forked child.
    [[nodiscard]] bool is_lost() const noexcept;
    // Also checks the descriptor, by a system call: false if this handle is foreign, or lost by
    // now. For calls that use the descriptor, wait, or write for longer than the check takes.
    [[nodiscard]] bool check_place() noexcept;
    // The Status that every call of a foreign handle returns.
    [[nodiscard]] Status why_foreign() const noexcept;
    [[nodiscard]] const std::string& name() const noexcept { return location_.name; }
    [[nodiscard]] const layout::SegmentHeader& header() const noexcept { return header_; }
    [[nodiscard]] std::string instance() const;  // 32 hex digits
    [[nodiscard]] bool has_asymmetric_fence() const noexcept;
    // Fresh budgets for waits of the participant in that slot, which are counted there.
    [[nodiscard]] SpinBudget receiving_budget(
        unsigned slot, WaitMeter::Waiters waiters = WaitMeter::Waiters::One) noexcept;
    // For room and credit. Each look reads the lines of many others, and asking for credit holds up
    // other writers: these waits spin no longer for latency.
    [[nodiscard]] SpinBudget sending_budget(unsigned slot) noexcept;
    [[nodiscard]] std::byte* control() const noexcept;
    [[nodiscard]] std::byte* payload() const noexcept { return payload_.data(); }
    // The payload, mapped read-only: what the program reads in place lies here, so that a stray
    // write faults and reaches no other process. The same as payload() where that is read-only, and
    // where the plan has no views.
    [[nodiscard]] const std::byte* views() const noexcept {
        return views_.data() != nullptr ? views_.data() : payload_.data();
    }
    // The address in views() of `at`, which lies in the payload.
    [[nodiscard]] const std::byte* view_of(const std::byte* at) const noexcept {
        return views() + (at - payload_.data());
    }
    [[nodiscard]] std::uint64_t payload_offset() const noexcept { return header_.payload_offset; }
    [[nodiscard]] os::SharedFile& file() noexcept { return file_; }
    [[nodiscard]] const os::SharedFile& file() const noexcept { return file_; }
    [[nodiscard]] Participants& participants() noexcept { return participants_; }
    [[nodiscard]] const Participants& participants() const noexcept { return participants_; }
    // -1: the program has closed it.
    [[nodiscard]] int lending_descriptor() const noexcept {
        return lending_.is_ours() ? lending_.descriptor() : -1;
    }
    [[nodiscard]] std::uint64_t reserved_bytes() const noexcept;
    // Data lost with the abandoned segment that create() replaced.
    [[nodiscard]] const KeptData& replaced() const noexcept { return replaced_; }
    // "; /dev/shm has 12 MiB free of 64 MiB: ...", for sentences about NoSpace.
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
    [[nodiscard]] std::error_code reserve(const MemoryOptions& memory, std::uint64_t payload);
    [[nodiscard]] std::error_code reserve_huge_pages(const Wait& wait, std::uint64_t bytes);
    [[nodiscard]] std::error_code reserve_first_pages(std::uint64_t offset, std::uint64_t bytes);
    void require_huge_pages(const std::error_code& error) const;
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

// An inspection of a segment from outside: copied and checked, not joined; only
// remove_if_abandoned() changes anything. Nothing is mapped, so that truncation by the file's owner
// is harmless; pages are counted in a mapping that is never accessed. Throws Error as
// Segment::attach(), but accepts every user's segments.
class Visit {
public:
    enum class Purpose : std::uint8_t { Look, Remove };
    explicit Visit(const std::string& name, Purpose purpose = Purpose::Look);

    [[nodiscard]] const layout::SegmentHeader& header() const noexcept { return header_; }
    // Liveness is asked anew each time; texts are as of the inspection.
    [[nodiscard]] const Participants& participants() const noexcept { return participants_; }
    // A fresh copy of the control block, valid until the next call. To be called after the header's
    // geometry was checked, which bounds its size. Throws Corrupt (the file is too short), NoSpace,
    // TooLarge (another user's, above the limit for copies).
    [[nodiscard]] std::byte* control();
    [[nodiscard]] os::SharedFile& file() noexcept { return file_; }
    [[nodiscard]] const os::SharedFile& file() const noexcept { return file_; }
    // Throws PermissionDenied unless this user, or the one that `trust` names, owns the file.
    void check_trusted(const Trust& trust) const;
    // False: a living process is attached or joining, or `may_go`, called while none can join,
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

// The statistics that segments of all concepts have. `file` is the segment's; where it has huge
// pages, they are looked for, which takes up to 1 ms.
void read_segment_stats(SegmentStats& stats, const layout::SegmentHeader& header,
                        const Participants& participants, const os::SharedFile& file) noexcept;
void set_wait_costs(SegmentStats& stats, const WaitCosts& costs) noexcept;

// Summary of an inspected segment, as `penstock ls` shows it.
SegmentSummary summarize(Visit& visit, const std::string& name);

// Data that would be lost with an abandoned segment. None if its geometry makes no sense: then no
// process can attach to it. Defined in src/inspect, above the concepts, which know their data.
KeptData kept_data(Visit& visit);

}  // namespace penstock::detail
