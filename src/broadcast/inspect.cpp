// A Broadcast as `penstock info` shows it, read without attaching.
#include "broadcast/control.hpp"
#include "penstock/broadcast.hpp"
#include "segment/waiting/elapsed.hpp"
#include "segment/words/atomics.hpp"

namespace penstock {

BroadcastInfo inspect_broadcast(const std::string& name) {
    detail::Visit visit(name);
    if (visit.header().kind != static_cast<std::uint32_t>(Kind::Broadcast)) {
        throw Error(ErrorCode::Incompatible, "'" + name + "' is not a broadcast");
    }
    const detail::BroadcastShape shape = detail::broadcast_shape_of(visit.header());
    BroadcastInfo info;
    info.segment = detail::summarize(visit, name);
    const detail::BroadcastView view(shape, visit.control());
    info.stats = detail::read_stats(view);
    info.stats.reader_deaths = detail::reader_deaths(visit.participants(), shape);
    detail::read_segment_stats(info.stats, visit.header(), visit.participants(), visit.file());
    info.stats.held_bytes = detail::load_relaxed(view.state().held_bytes);
    info.closed = detail::load_acquire(view.state().closed) != 0;
    const std::int64_t since = detail::load_relaxed(view.state().blocked_since);
    if (since != 0) info.writer_blocked_for = detail::seconds_since(since);
    const auto blockers = detail::find_blockers(view, visit.participants());
    for (unsigned rank = 0; rank < view.shape().readers; ++rank) {
        BroadcastReaderState state = detail::describe_reader(view, visit.participants(), rank);
        for (const BroadcastReaderState& blocker : blockers) {
            if (blocker.rank == rank) state.blocking_for = blocker.blocking_for;
        }
        info.readers.push_back(std::move(state));
    }
    return info;
}

}  // namespace penstock
