// What would be lost with an abandoned segment, by kind. A Broadcast keeps nothing: what was sent
// is for those who are there, as after a close in good order.
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
        // Where it can't be looked at, nobody knows what is in it: then it stays.
        if (error.code() != ErrorCode::Corrupt) throw;
        return {};
    }
}

}  // namespace penstock::detail
