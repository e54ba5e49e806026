// The life of a segment: built in private, published in one step, left in order.
#include "segment/life/segment.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <utility>

#include "os/clock.hpp"
#include "os/crash_point.hpp"
#include "os/directory_watch.hpp"
#include "os/fence.hpp"
#include "os/host.hpp"
#include "segment/life/header.hpp"
#include "segment/life/refusal.hpp"
#include "segment/life/trust.hpp"
#include "segment/text.hpp"
#include "segment/waiting/signal.hpp"
#include "segment/waiting/watcher.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {
namespace {

constexpr std::uint64_t kLifeCycleByte = 0;
// Limit for copies of another user's control block, to protect this machine's memory. A control
// block of the default sizes has a few MiB; holes are not counted.
constexpr std::uint64_t kMaxCopiedOfOthers = std::uint64_t{256} << 20U;

[[noreturn]] void throw_cut_short(const Location& location) {
    throw Error(ErrorCode::Corrupt, title_of(location) + " was cut short while it was looked at");
}

std::string describe_holders(const Participants& participants) {
    std::string text;
    for (unsigned slot = 0; slot < participants.count(); ++slot) {
        if (participants.life(slot) != Life::Alive) continue;
        const ParticipantText who = participants.text(slot);
        if (!text.empty()) text += ", ";
        text += "pid " + std::to_string(who.pid) + " (" + printable(who.process) + ")";
    }
    return text;
}

enum class Removal : std::uint8_t { Removed, Kept, InUse, Busy };

// Removes the name if no living process is attached and may_go(), if given, agrees. The life-cycle
// lock keeps joiners out meanwhile.
Removal remove_if_dead(os::SharedFile& file, const Participants& participants,
                       const std::string& path, const std::function<bool()>& may_go) {
    // Looks again after releasing the lock: a participant that left meanwhile may have found the
    // lock taken and given up.
    constexpr unsigned kMaxLooks = 1000;
    for (unsigned look = 0; look < kMaxLooks; ++look) {
        if (participants.anybody_alive()) return Removal::InUse;
        // asked first without the life-cycle lock, which would keep joiners out
        if (may_go && !may_go()) return Removal::Kept;
        if (!file.try_lock(kLifeCycleByte)) return Removal::Busy;
        PENSTOCK_CRASH_POINT("segment.remove.locked");
        const bool is_dead = !participants.anybody_alive();
        const bool goes = is_dead && (!may_go || may_go());
        if (goes) {
            // A participant that lost its lock and lives would go on in a removed segment: its slot
            // tells it.
            for (unsigned slot = 0; slot < participants.count(); ++slot) {
                participants.note_dead(slot);
            }
            os::unlink_if_same(path, file);
            PENSTOCK_CRASH_POINT("segment.remove.unlinked");
        }
        file.unlock(kLifeCycleByte);
        PENSTOCK_CRASH_POINT("segment.remove.unlocked");
        if (is_dead) return goes ? Removal::Removed : Removal::Kept;
    }
    return Removal::InUse;  // the slots keep changing: damaged
}

// The same, with patience for a process that is joining or removing.
Removal remove_patiently(os::SharedFile& file, const Participants& participants,
                         const std::string& path, const std::function<bool()>& may_go = {}) {
    const std::int64_t end = os::monotonic_ns() + kLifeCyclePatience;
    for (;;) {
        const Removal result = remove_if_dead(file, participants, path, may_go);
        if (result != Removal::Busy || os::monotonic_ns() >= end) return result;
        os::pause_between_tries();
    }
}

// Why a name without living participants is not replaced; empty if it may be. Messages of a queue
// may be lost to a queue of the same name, whose creator is told (Segment::replaced).
std::string why_kept(const KeptData& kept, Kind found, Kind wanted) {
    const bool is_replaced = found == wanted && kept.objects == 0;
    if (kept.is_nothing() || is_replaced) return "";
    return "nobody is attached to it, but it is a " + std::string(to_string(found)) +
           " that keeps " + kept.describe() + "; attach to it, or remove it with what it keeps " +
           "(penstock gc --data), or choose another name";
}

// Frees a taken name if its participants are all dead, or throws AlreadyExists. Returns what was
// lost with it.
KeptData make_way(const Location& location, Kind wanted,
                  const std::optional<std::uint32_t>& replaces_owner) {
    const std::string start = "can't create " + title_of(location) + ": ";
    try {
        Visit other(location.name, Visit::Purpose::Remove);
        other.check_trusted({.owner = replaces_owner});
        const auto found = static_cast<Kind>(other.header().kind);
        KeptData kept;
        std::string why;
        const auto may_go = [&] {
            kept = kept_data(other);
            why = why_kept(kept, found, wanted);
            return why.empty();
        };
        if (other.remove_if_abandoned(may_go)) return kept;
        const std::string holders = describe_holders(other.participants());
        if (holders.empty() && !why.empty()) throw Error(ErrorCode::AlreadyExists, start + why);
        throw Error(
            ErrorCode::AlreadyExists,
            start +
                (holders.empty() ? "somebody is just joining it" : "it is in use by " + holders) +
                "; attach to it, choose another name, or end that process");
    } catch (const Error& error) {
        if (error.code() == ErrorCode::NotFound) return {};  // removed meanwhile
        if (error.code() == ErrorCode::AlreadyExists) throw;
        throw Error(error.code() == ErrorCode::PermissionDenied ? ErrorCode::PermissionDenied
                                                                : ErrorCode::AlreadyExists,
                    start + "the name is taken by " + location.path + ", and " + error.what());
    }
}

// Opens the file under the name and takes the life-cycle lock shared, so that it stays linked.
os::SharedFile open_to_join(const Location& location, const Trust& trust) {
    const std::int64_t end = os::monotonic_ns() + kLifeCyclePatience;
    for (;;) {
        std::error_code error;
        os::SharedFile file = os::SharedFile::open(location.path, error);
        if (error) throw_refused(Step::Attach, location, error);
        // Before any wait: another user could hold every lock of its own file.
        check_trust(file, trust, "can't attach to " + title_of(location) + ": ");
        if (file.try_lock_shared(kLifeCycleByte)) {
            PENSTOCK_CRASH_POINT("segment.attach.locked");
            if (file.facts(error).links > 0) return file;
        } else if (os::monotonic_ns() >= end) {
            throw Error(ErrorCode::Busy, "can't attach to " + title_of(location) +
                                             ": somebody has been removing it for 0.2 s");
        }
        os::pause_between_tries();  // being removed: the next look finds the name gone or replaced
        if (os::monotonic_ns() >= end + kLifeCyclePatience) {
            throw Error(ErrorCode::NotFound,
                        "can't attach to " + title_of(location) + ": it is being removed");
        }
    }
}

// Offsets and addresses that huge pages need, in the file and in memory.
SegmentPlan on_huge_pages(SegmentPlan plan) {
    plan.huge_pages = true;
    plan.payload_alignment = std::max(plan.payload_alignment, os::huge_page_size());
    return plan;
}

// Long work is done in pieces of this size, 2 to 20 ms each, and can be ended between them.
std::uint64_t piece_size() noexcept {
    return std::max(std::uint64_t{32} << 20U, os::huge_page_size());
}

// Size of a piece of memory that is put into huge pages, which takes longer.
std::uint64_t huge_piece_size() noexcept {
    return std::max(std::uint64_t{16} << 20U, os::huge_page_size());
}

// Whether work in pieces ends before its next piece: Timeout (not before the first piece), or
// Cancelled.
ErrorCode early_end(const Wait& wait, std::uint64_t done) {
    const WaitEnd end = end_of_wait(wait);
    if (end == WaitEnd::Cancelled) return ErrorCode::Cancelled;
    return end == WaitEnd::Timeout && done > 0 ? ErrorCode::Timeout : ErrorCode::Ok;
}

void check_kind(const layout::SegmentHeader& header, Kind kind, const Location& location) {
    if (header.kind == static_cast<std::uint32_t>(kind)) return;
    throw Error(ErrorCode::Incompatible,
                title_of(location) + " is a " +
                    std::string(to_string(static_cast<Kind>(header.kind))) + ", not a " +
                    std::string(to_string(kind)) + "; attach with the matching class");
}

}  // namespace

std::unique_ptr<Segment> attach_when_there(const std::string& name, const Wanted& wanted,
                                           const Wait& wait) {
    // Made only if the call must wait: closing a watch takes the kernel 10 ms and more.
    std::optional<os::DirectoryWatch> watch;
    for (;;) {
        try {
            return Segment::attach(name, wanted);
        } catch (const Error& error) {
            const auto now = Clock::now();
            if (error.code() != ErrorCode::NotFound || wait.deadline.has_passed(now)) throw;
            if (!watch) {
                watch.emplace(locate(name).directory);
                continue;  // one look after the watch has begun: together they miss nothing
            }
            watch->wait(wait.deadline.left(now, kSlice));
            const bool is_interrupted =
                wait.interrupted != nullptr && wait.interrupted(wait.context);
            if (is_interrupted || (wait.cancel != nullptr && wait.cancel->is_cancelled())) {
                throw Error(ErrorCode::Cancelled,
                            "waiting for '" + name + "' to appear was cancelled");
            }
        }
    }
}

Visit::Visit(const std::string& name, Purpose purpose) : location_(locate(name)) {
    using Access = os::SharedFile::Access;
    std::error_code error;
    file_ = os::SharedFile::open(location_.path, error,
                                 purpose == Purpose::Look ? Access::Read : Access::ReadWrite);
    if (error) throw_refused(Step::Examine, location_, error);
    header_ = read_header(file_, title_of(location_));
    // checked by read_header(): at most kMaxSlots
    const auto count = static_cast<unsigned>(header_.slot_count);
    slots_ = std::make_unique<layout::ParticipantSlot[]>(count);
    if (!file_.read(header_.slots_offset, slots_.get(), count * sizeof slots_[0])) {
        throw_cut_short(location_);
    }
    participants_ = Participants::of_copy(file_, slots_.get(), header_.slots_offset, count);
}

std::byte* Visit::control() {
    const std::uint64_t bytes = header_.control_size;
    std::error_code error;
    const bool is_own = file_.facts(error).owner == os::current_user();
    control_.reset();  // before the next mapping: address space may suffice for one only
    control_.reset(static_cast<std::byte*>(std::calloc(1, std::max<std::uint64_t>(bytes, 1))));
    if (control_ == nullptr) error = std::make_error_code(std::errc::not_enough_memory);
    if (!error) {
        error = file_.read_sparse(header_.control_offset, control_.get(), bytes,
                                  is_own ? bytes : kMaxCopiedOfOthers);
    }
    if (error == std::errc::io_error) throw_cut_short(location_);
    if (error) throw_refused(Step::Copy, location_, error, bytes);
    return control_.get();
}

void Visit::check_trusted(const Trust& trust) const {
    check_trust(file_, trust, "");
}

bool Visit::remove_if_abandoned(const std::function<bool()>& may_go) {
    return remove_patiently(file_, participants_, location_.path, may_go) == Removal::Removed;
}

Segment::Segment() noexcept : fork_generation_(os::fork_generation()), owner_(fork_generation_) {}

Segment::~Segment() {
    if (fork_generation_ == os::fork_generation()) return;
    // The child owns neither lock nor mapping, and its copy of the descriptor is closed.
    control_.abandon();
    payload_.abandon();
    views_.abandon();
    file_.abandon();
    lending_.abandon();
}

std::unique_ptr<Segment> Segment::create(const std::string& name, const SegmentPlan& plan,
                                         const MemoryOptions& memory, const Fill& fill) {
    Watcher::prepare();
    std::unique_ptr<Segment> segment(new Segment);
    if (!name.empty() || !plan.may_be_anonymous) segment->location_ = locate(name);
    segment->build(plan, memory);
    fill(*segment);
    PENSTOCK_CRASH_POINT("segment.create.filled");
    segment->publish(plan.replaces_owner);
    PENSTOCK_CRASH_POINT("segment.create.published");
    return segment;
}

void Segment::build(const SegmentPlan& plan, const MemoryOptions& memory) {
    std::error_code error;
    file_ = location_.path.empty() ? os::SharedFile::create_anonymous("penstock", error)
                                   : os::SharedFile::create_private(location_.directory, error);
    if (error) throw_refused(Step::Create, location_, error, plan.payload_reserved);
    header_ = make_header(location_.name, memory.huge_pages ? on_huge_pages(plan) : plan);
    PENSTOCK_CRASH_POINT("segment.create.opened");
    error = file_.set_size(header_.file_size);
    if (error) throw_refused(Step::Size, location_, error, header_.file_size);
    PENSTOCK_CRASH_POINT("segment.create.sized");
    if (location_.path.empty()) {
        error = file_.seal_size();
        if (error) throw_refused(Step::Seal, location_, error);
    }
    map(os::Mapping::Access::ReadWrite, plan.has_views);
    place(memory);  // before pages exist: this decides their node and size
    const std::uint64_t control = header_.control_offset + header_.control_size;
    error = file_.reserve(0, control);
    if (!error) error = reserve(memory, plan.payload_reserved);
    if (error) throw_refused(Step::Reserve, location_, error, control + plan.payload_reserved);
    PENSTOCK_CRASH_POINT("segment.create.reserved");
    fault_in(memory, plan.payload_reserved);
    open_for_lending();
    std::memcpy(control_.data(), &header_, sizeof header_);
    PENSTOCK_CRASH_POINT("segment.create.described");
}

os::Mapping Segment::map_range(std::uint64_t offset, std::uint64_t bytes,
                               os::Mapping::Access access) const {
    std::error_code error;
    os::Mapping mapping = os::Mapping::map(file_, offset, bytes, access, error);
    if (error) throw_refused(Step::Map, location_, error, bytes);
    return mapping;
}

void Segment::map(os::Mapping::Access payload, bool has_views) {
    using Access = os::Mapping::Access;
    payload_access_ = payload;
    control_ = map_range(0, header_.payload_offset, Access::ReadWrite);
    if (header_.payload_size > 0) {
        payload_ = map_range(header_.payload_offset, header_.payload_size, payload);
        if (payload == Access::ReadWrite && has_views) {
            views_ = map_range(header_.payload_offset, header_.payload_size, Access::Read);
        }
    }
    if (payload == Access::ReadWrite && payload_.size() > 0) {
        file_.note_mapping(payload_, header_.payload_offset);
    }
    auto* slots =
        reinterpret_cast<layout::ParticipantSlot*>(control_.data() + header_.slots_offset);
    participants_ =
        Participants(file_, slots, header_.slots_offset, static_cast<unsigned>(header_.slot_count));
}

void Segment::open_for_lending() {
    std::error_code error;
    lending_ = os::SharedFile::reopen(file_.descriptor(), error);
    if (error) throw_refused(Step::Reopen, location_, error);
}

void Segment::require(const std::error_code& error, const char* option, const char* remedy) const {
    if (!error) return;
    throw Error(
        error == std::errc::not_enough_memory ? ErrorCode::NoSpace : ErrorCode::InvalidArgument,
        std::string("can't create ") + title_of(location_) + " with " + option + ": " +
            error.message() + "; " + remedy);
}

void Segment::place(const MemoryOptions& memory) {
    if (memory.numa_node) {
        require(payload_.bind_to_node(*memory.numa_node), "numa_node",
                "see `numactl --hardware` for the nodes there are");
    }
    if (memory.huge_pages) {
        const char* const remedy = "this kernel has no transparent huge pages for shared memory";
        require(payload_.use_huge_pages(), "huge_pages", remedy);
        if (views_.size() > 0) require(views_.use_huge_pages(), "huge_pages", remedy);
    }
}

std::error_code Segment::reserve(const MemoryOptions& memory, std::uint64_t payload) {
    if (payload == 0) return {};
    if (memory.huge_pages) {
        const std::error_code error = reserve_huge_pages(memory.wait, payload);
        if (error) return error;
    }
    ErrorCode ended = ErrorCode::Ok;
    const auto goes_on = [&] {
        ended = early_end(memory.wait, payload);
        return ended == ErrorCode::Ok;
    };
    const std::error_code error = file_.reserve(header_.payload_offset, payload, goes_on);
    if (ended != ErrorCode::Ok) throw_ended(ended);
    return error;
}

// Makes each huge page around one small page: to move 512 small pages into it takes several times
// as long. Where huge pages run out, the rest is left to reserve().
std::error_code Segment::reserve_huge_pages(const Wait& wait, std::uint64_t bytes) {
    const std::error_code no_room = file_.check_room(bytes);
    if (no_room) return no_room;
    const std::uint64_t whole = bytes / os::huge_page_size() * os::huge_page_size();
    if (whole == 0) require_huge_pages(std::make_error_code(std::errc::invalid_argument));
    for (std::uint64_t at = 0; at < whole; at += huge_piece_size()) {
        const ErrorCode ended = early_end(wait, at);
        if (ended != ErrorCode::Ok) throw_ended(ended);
        const std::uint64_t size = std::min(huge_piece_size(), whole - at);
        const std::error_code error = reserve_first_pages(at, size);
        if (error) return error;
        const std::error_code refused = payload_.collapse(at, size);
        if (at == 0 && refused == std::errc::invalid_argument) require_huge_pages(refused);
        if (refused == std::errc::not_enough_memory ||
            refused == std::errc::device_or_resource_busy) {
            break;
        }
    }
    return {};
}

// Reserves the first page of each huge page of the range.
std::error_code Segment::reserve_first_pages(std::uint64_t offset, std::uint64_t bytes) {
    for (std::uint64_t at = 0; at < bytes; at += os::huge_page_size()) {
        const std::error_code error =
            file_.reserve(header_.payload_offset + offset + at, os::page_size());
        if (error) return error;
    }
    return {};
}

void Segment::require_huge_pages(const std::error_code& error) const {
    const std::string remedy =
        "they take Linux 6.1 or newer, whose shmem_enabled is not 'deny', a file system in memory, "
        "and a capacity of " +
        std::to_string(os::huge_page_size() >> 20U) + " MiB at least";
    require(error, "huge_pages", remedy.c_str());
}

void Segment::throw_ended(ErrorCode why) const {
    throw Error(why, "creating " + title_of(location_) + " with all its memory " +
                         (why == ErrorCode::Timeout ? "took too long" : "was cancelled"));
}

void Segment::fault_in(const MemoryOptions& memory, std::uint64_t reserved) {
    using Act = std::error_code (os::Mapping::*)(std::uint64_t, std::uint64_t) noexcept;
    const auto each = [&](os::Mapping& mapping, Act act, const char* option, const char* remedy) {
        const std::uint64_t piece = piece_size();
        for (std::uint64_t at = 0; at < reserved; at += piece) {
            const ErrorCode end = early_end(memory.wait, at);
            if (end != ErrorCode::Ok) throw_ended(end);
            require((mapping.*act)(at, std::min(piece, reserved - at)), option, remedy);
        }
    };
    if (memory.populate) {
        const char* const remedy = "there is not that much memory";
        each(payload_, &os::Mapping::populate, "populate", remedy);
        if (views_.size() > 0) {
            each(views_, &os::Mapping::populate_to_read, "populate", remedy);
        }
    }
    if (memory.lock_memory) {
        each(payload_, &os::Mapping::lock_in_memory, "lock_memory", "raise `ulimit -l`");
    }
}

void Segment::publish(const std::optional<std::uint32_t>& replaces_owner) {
    if (location_.path.empty()) return;
    constexpr int kTries = 100;  // every failure means that another process published first
    for (int i = 0; i < kTries; ++i) {
        const std::error_code error = file_.publish(location_.path);
        if (!error) return;
        if (error != std::errc::file_exists) throw_refused(Step::Publish, location_, error);
        const KeptData lost = make_way(location_, static_cast<Kind>(header_.kind), replaces_owner);
        if (!lost.is_nothing()) replaced_ = lost;
    }
    throw Error(ErrorCode::AlreadyExists,
                "can't create " + title_of(location_) + ": others keep creating and leaving it");
}

std::unique_ptr<Segment> Segment::attach(const std::string& name, const Wanted& wanted) {
    Watcher::prepare();  // before the life-cycle lock is taken: it may wait for the dynamic loader
    const Location location = locate(name);
    return adopt(open_to_join(location, wanted.trust), location, wanted);
}

std::unique_ptr<Segment> Segment::attach(int descriptor, const Wanted& wanted) {
    Watcher::prepare();
    std::error_code error;
    os::SharedFile file = os::SharedFile::reopen(descriptor, error);
    if (error) throw_refused(Step::Attach, {}, error);
    const std::string start = "can't attach to descriptor " + std::to_string(descriptor) + ": ";
    check_trust(file, wanted.trust, start);
    // Checked before the size: a sealed size cannot change afterwards.
    const bool may_shrink = file.facts(error).links == 0 && !file.is_sealed_against_shrinking();
    if (!file.try_lock_shared(kLifeCycleByte)) {
        throw Error(ErrorCode::NotFound, start + "the last participant is just removing it");
    }
    if (may_shrink) {
        read_header(file, title_of({}));  // other faults are reported first
        throw Error(ErrorCode::Incompatible,
                    start +
                        "the anonymous file is not sealed against shrinking (F_SEAL_SHRINK), and "
                        "whoever has it could cut it short under this process, which is SIGBUS; "
                        "have it made by create(), which seals it");
    }
    return adopt(std::move(file), {}, wanted);
}

// The name of a segment that was reached by descriptor, if it has one: the last participant to
// leave removes it, after comparing inodes.
Location Segment::location_in_header() const {
    std::error_code error;
    if (header_.name[0] == '\0' || file_.facts(error).links == 0) return {};
    try {
        return locate(header_.name);
    } catch (const Error&) {
        return {};
    }
}

std::unique_ptr<Segment> Segment::adopt(os::SharedFile file, Location location,
                                        const Wanted& wanted) {
    std::unique_ptr<Segment> segment(new Segment);
    segment->location_ = std::move(location);
    segment->file_ = std::move(file);
    segment->header_ = read_header(segment->file_, title_of(segment->location_));
    if (segment->location_.path.empty()) segment->location_ = segment->location_in_header();
    check_kind(segment->header_, wanted.kind, segment->location_);
    if (!wanted.instance.empty() && wanted.instance != segment->instance()) {
        throw Error(ErrorCode::NotFound,
                    title_of(segment->location_) +
                        " is another segment than the one asked for: that one is gone");
    }
    if (segment->has_asymmetric_fence() && !os::register_asymmetric_fence()) {
        throw Error(ErrorCode::Incompatible,
                    title_of(segment->location_) +
                        " relies on membarrier(2), which this process may not call (seccomp?)");
    }
    segment->map(wanted.payload, true);
    segment->open_for_lending();
    PENSTOCK_CRASH_POINT("segment.attach.mapped");
    return segment;
}

Status Segment::populate(const Wait& wait, const Cancel& closing) noexcept {
    using Access = os::Mapping::Access;
    const bool has_huge_pages = (header_.features & layout::kFeatureHugePages) != 0;
    const std::uint64_t piece = has_huge_pages ? huge_piece_size() : piece_size();
    for (std::uint64_t at = 0; at < header_.payload_size; at += piece) {
        if (!check_place()) return why_foreign();
        const ErrorCode end = closing.is_cancelled() ? ErrorCode::Cancelled : early_end(wait, at);
        if (end == ErrorCode::Timeout) return Status(end);
        if (end == ErrorCode::Cancelled) {
            return {end, "mapping the memory of " + title_of(location_) + " was cancelled"};
        }
        const std::uint64_t bytes = std::min(piece, header_.payload_size - at);
        if (has_huge_pages) {
            [[maybe_unused]] const std::error_code left_small = payload_.collapse(at, bytes);
        }
        std::error_code error = payload_.populate_present(at, bytes, payload_access_);
        if (!error && views_.size() > 0) error = views_.populate_present(at, bytes, Access::Read);
        if (error) {
            // EFAULT: the page was given back since, and can't be reserved again.
            const bool is_full =
                error == std::errc::not_enough_memory || error == std::errc::bad_address;
            return {is_full ? ErrorCode::NoSpace : ErrorCode::InvalidArgument,
                    "can't map all memory of " + title_of(location_) + ": " + error.message() +
                        (is_full ? "" : "; it takes a kernel of Linux 5.14 or newer")};
        }
    }
    return Status::ok();
}

void Segment::joined() noexcept {
    file_.unlock(kLifeCycleByte);
    PENSTOCK_CRASH_POINT("segment.attach.unlocked");
}

bool Segment::is_lost() const noexcept {
    return fork_generation_ == os::fork_generation() && load_relaxed(owner_) != kDisowned &&
           is_foreign();
}

bool Segment::check_place() noexcept {
    if (is_foreign()) return false;
    if (file_.is_ours()) return true;
    store_relaxed(owner_, kLost);
    return false;
}

Status Segment::why_foreign() const noexcept {
    if (!is_lost()) {
        return {ErrorCode::WrongProcess,
                "this handle belongs to the parent process; create or attach anew in the child"};
    }
    const std::string start = "this handle of " + title_of(location_) + " is of no more use: ";
    if (file_.is_ours()) {
        return {ErrorCode::WrongProcess,
                start + "others found its lock gone and took back what it held; attach anew"};
    }
    return {ErrorCode::WrongProcess,
            start + "its descriptor was closed by this process; close it and attach anew, and " +
                "where a program closes all descriptors (to become a daemon), attach after that"};
}

void Segment::leave(const std::function<bool()>& may_go) noexcept {
    if (location_.path.empty() || !check_place()) return;
    remove_patiently(file_, participants_, location_.path, may_go);
}

void Segment::disown() noexcept {
    store_relaxed(owner_, kDisowned);
}

void Segment::detach() noexcept {
    if (is_foreign() && !is_lost()) return;
    disown();
    participants_ = Participants();
    control_ = os::Mapping();
    payload_ = os::Mapping();
    views_ = os::Mapping();
    lending_ = os::SharedFile();
    file_ = os::SharedFile();
}

std::string Segment::space_sentence() const {
    return detail::space_sentence(location_);
}

std::string Segment::instance() const {
    std::string text;
    for (const std::uint64_t half : header_.instance) append_hex(text, half, 16);
    return text;
}

bool Segment::has_asymmetric_fence() const noexcept {
    return (header_.features & layout::kFeatureAsymmetricFence) != 0;
}

SpinBudget Segment::receiving_budget(unsigned slot, WaitMeter::Waiters waiters) noexcept {
    return SpinBudget(waiting_of(header_), {participants_.receiving(slot), waiters});
}

SpinBudget Segment::sending_budget(unsigned slot) noexcept {
    const WaitPolicy policy = waiting_of(header_);
    return SpinBudget(policy == WaitPolicy::Latency ? WaitPolicy::Balanced : policy,
                      {participants_.sending(slot), WaitMeter::Waiters::Several});
}

std::byte* Segment::control() const noexcept {
    return control_.data() + header_.control_offset;
}

std::uint64_t Segment::reserved_bytes() const noexcept {
    std::error_code error;
    return file_.facts(error).reserved;
}

}  // namespace penstock::detail
