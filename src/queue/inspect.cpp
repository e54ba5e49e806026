// A Queue as `penstock info` shows it, read without attaching.
#include <algorithm>
#include <utility>

#include "penstock/queue.hpp"
#include "queue/dead_letters.hpp"
#include "segment/words/atomics.hpp"

namespace penstock {
namespace {

std::vector<QueueRequest> requests_of(const detail::QueueView& view) {
    std::vector<std::pair<std::uint64_t, QueueRequest>> found;
    for (unsigned slot = 0; slot < view.shape().participants; ++slot) {
        const layout::QueueParticipant& participant = view.participant(slot);
        const std::uint64_t word = detail::load_acquire(participant.request);
        if (word == 0) continue;
        const bool is_passed = layout::decode_request(word).is_passed;
        found.push_back({word & ~layout::kPassedRequest,
                         {slot, detail::load_relaxed(participant.requested), is_passed}});
    }
    std::ranges::sort(found, [](const auto& one, const auto& other) {
        return std::pair(one.first, one.second.slot) < std::pair(other.first, other.second.slot);
    });
    std::vector<QueueRequest> requests;
    for (const auto& [word, request] : found) requests.push_back(request);
    return requests;
}

}  // namespace

QueueInfo inspect_queue(const std::string& name) {
    constexpr std::size_t kMaxListedDeadLetters = 100;
    detail::Visit visit(name);
    if (visit.header().kind != static_cast<std::uint32_t>(Kind::Queue)) {
        throw Error(ErrorCode::Incompatible, "'" + name + "' is not a queue");
    }
    const detail::QueueShape shape = detail::queue_shape_of(visit.header());
    QueueInfo info;
    info.segment = detail::summarize(visit, name);
    const detail::QueueView view(shape, visit.control());
    const detail::Arena arena(view.shape().arena, view.arena_control(), nullptr, visit.file(),
                              visit.header().payload_offset + view.shape().cells_bytes());
    info.stats = detail::read_queue_stats(view);
    detail::read_segment_stats(info.stats, visit.header(), visit.participants(), visit.file());
    info.requests = requests_of(view);
    info.stats.held_bytes = arena.allocated_bytes();
    for (const DeadLetter& letter : detail::list_dead_letters(view, kMaxListedDeadLetters)) {
        info.dead_letters.push_back(letter.sequence);
    }
    info.application = view.shape().application;
    info.ends_with = view.shape().ends_with;
    return info;
}

}  // namespace penstock
