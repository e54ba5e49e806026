// A Queue as `penstock info` shows it, read without attaching.
#include "penstock/queue.hpp"
#include "queue/dead_letters.hpp"

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
    for (const DeadLetter& letter : detail::list_dead_letters(view, kMostPoisoned)) {
        info.poisoned.push_back(letter.sequence);
    }
    info.application = view.shape().application;
    info.ends_with = view.shape().ends_with;
    return info;
}

}  // namespace penstock
