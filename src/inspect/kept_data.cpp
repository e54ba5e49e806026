// Data that would be lost with an abandoned segment, by kind. A Broadcast keeps none: its messages
// are for attached readers only.
#include "queue/control.hpp"
#include "segment/life/segment.hpp"
#include "store/control.hpp"

namespace penstock::detail {
namespace {

KeptData kept_in_queue(Visit& visit) {
    const QueueShape shape = queue_shape_of(visit.header());
    return kept_messages(QueueView(shape, visit.control()));
}

KeptData read_kept(Visit& visit) {
    switch (static_cast<Kind>(visit.header().kind)) {
        case Kind::Queue:
            return kept_in_queue(visit);
        case Kind::Store:
            return kept_objects(visit);
        case Kind::Broadcast:
        case Kind::Service:
            break;
    }
    return {};
}

}  // namespace

KeptData kept_data(Visit& visit) {
    try {
        return read_kept(visit);
    } catch (const Error& error) {
        // What can't be inspected may hold data, so the segment stays.
        if (error.code() != ErrorCode::Corrupt) throw;
        return {};
    }
}

}  // namespace penstock::detail
