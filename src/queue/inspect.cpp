// A Queue as `penstock info` shows it, read without attaching.
#include "penstock/queue.hpp"
#include "queue/control.hpp"

namespace penstock {

QueueInfo inspect_queue(const std::string& name) {
    constexpr std::size_t kMostPoisoned = 100;
    detail::Visit visit(name);
    if (visit.header().kind != static_cast<std::uint32_t>(Kind::Queue)) {
        throw Error(ErrorCode::Incompatible, "'" + name + "' is not a queue");
    }
    const detail::QueueView view(detail::queue_shape_of(visit.header()), visit.control());
    const detail::Arena arena(view.shape().arena, view.arena_control(), nullptr, visit.file(),
                              visit.header().payload_offset + view.shape().cells_bytes());
    QueueInfo info;
    info.application = view.shape().application;
    info.segment = detail::summarize(visit, name);
    info.stats = detail::read_queue_stats(view);
    info.stats.reserved_bytes = info.segment.reserved_bytes;
    info.stats.held_bytes = arena.allocated_bytes();
    for (std::uint64_t i = 0; i < view.shape().slots; ++i) {
        if (info.poisoned.size() == kMostPoisoned) break;
        const layout::QueueSlot& slot = view.slot(i);
        const auto word = layout::decode_slot(slot.word.load(std::memory_order_acquire));
        if (word.state != layout::SlotState::Poisoned) continue;
        info.poisoned.push_back(slot.sequence.load(std::memory_order_relaxed));
    }
    return info;
}

}  // namespace penstock
