// The table of this process's participants. Its mutex is held across forks, so that a child finds a
// consistent table; its entries are foreign in the child, and do nothing there.
#include "segment/life/attachment.hpp"

#include <algorithm>
#include <mutex>
#include <vector>

#include "os/fork.hpp"
#include "os/found_once.hpp"

namespace penstock::detail {

// Outlives all statics: participants may leave in the destructors of statics.
struct AttachmentTable {
    std::mutex mutex;
    std::vector<Attachment*> all;

    static AttachmentTable& get() noexcept;

    static const Segment& segment(const Attachment& one) noexcept { return *one.place_; }
    static unsigned slot(const Attachment& one) noexcept { return one.place_slot_; }

    // Participants of this process in that segment. The caller holds the mutex.
    [[nodiscard]] std::vector<Attachment*> of(const std::string& instance) const {
        std::vector<Attachment*> found;
        for (Attachment* const one : all) {
            if (!segment(*one).is_foreign() && segment(*one).instance() == instance) {
                found.push_back(one);
            }
        }
        return found;
    }
};

namespace {

constinit os::Immortal<AttachmentTable> only;

using Own = std::vector<Attachment*>;

bool has_slot(const Own& own, unsigned slot) {
    return std::ranges::any_of(
        own, [slot](const Attachment* one) { return AttachmentTable::slot(*one) == slot; });
}

bool others_live(const Own& own) {
    const Participants& participants = AttachmentTable::segment(*own.front()).participants();
    for (unsigned slot = 0; slot < participants.count(); ++slot) {
        if (!has_slot(own, slot) && participants.life(slot) == Life::Alive) return true;
    }
    return false;
}

bool is_one_sided(const Own& own) {
    const auto kind = static_cast<Kind>(AttachmentTable::segment(*own.front()).header().kind);
    return kind == Kind::Broadcast;
}

// Initialized while the program or the library is loaded.
[[maybe_unused]] const bool is_held = (os::hold_across_forks(only.value.mutex), true);

}  // namespace

AttachmentTable& AttachmentTable::get() noexcept {
    return only.value;
}

void Attachment::enter(const Segment& segment, unsigned slot) {
    AttachmentTable& table = AttachmentTable::get();
    const std::lock_guard lock(table.mutex);
    place_ = &segment;
    place_slot_ = slot;
    table.all.push_back(this);
}

void Attachment::withdraw() noexcept {
    AttachmentTable& table = AttachmentTable::get();
    const std::lock_guard lock(table.mutex);
    std::erase(table.all, this);
}

bool is_awaited_in_vain(const std::string& instance, Awaited what) {
    const AttachmentTable& table = AttachmentTable::get();
    const std::lock_guard lock(AttachmentTable::get().mutex);
    const Own own = table.of(instance);
    if (own.empty() || std::ranges::any_of(own, &Attachment::is_stream_over)) return false;
    const bool feeds = std::ranges::any_of(own, &Attachment::feeds);
    // its only writer is in this process
    if (what == Awaited::Message && is_one_sided(own)) return feeds;
    if (others_live(own)) return false;
    // No other process is attached. The wait is in vain only if this process has both ends of the
    // stream: otherwise a peer may still attach.
    return what == Awaited::Message ? feeds : own.size() > 1;
}

void end_streams(const std::string& instance) noexcept {
    AttachmentTable& table = AttachmentTable::get();
    const std::lock_guard lock(table.mutex);
    for (Attachment* const one : table.all) {
        const Segment& segment = AttachmentTable::segment(*one);
        if (!segment.is_foreign() && segment.instance() == instance) one->end_stream();
    }
}

void depart_all() noexcept {
    AttachmentTable& table = AttachmentTable::get();
    const std::lock_guard lock(table.mutex);
    for (Attachment* const one : table.all) {
        if (!AttachmentTable::segment(*one).is_foreign()) one->depart();
    }
}

}  // namespace penstock::detail
