// penstock._core.View: `with reader.recv_view() as obj`, a message read in place. Arrays made of it
// hold its lease: the room is given back when the last of them is gone.
#include <utility>

#include "context.hpp"
#include "life.hpp"
#include "reader.hpp"
#include "received.hpp"
#include "wait.hpp"

namespace penstock::py {
namespace {

class ViewBlock {
public:
    ViewBlock(nb::handle_t<Reader> reader, Deadline deadline)
        : reader_(nb::borrow(reader)), deadline_(deadline) {}

    nb::object enter() {
        if (!reader_.is_valid()) {
            raise_error(ErrorCode::Busy, "a view can be entered once; ask for another one");
        }
        const nb::object owner = std::move(reader_);
        auto& reader = *nb::inst_ptr<Reader>(owner);
        nb::object lease = nb::cast(reader.take_message(deadline_));
        const BroadcastMessage& message = message_of(lease);
        nb::object value = view_of({message.bytes(), message.format()}, lease, reader.codec);
        lease_ = std::move(lease);
        return value;
    }

    void exit(bool failed) {
        if (!lease_.is_valid()) {
            return;
        }
        const Status held = failed ? Status::ok() : message_of(lease_).check_held();
        const Life given(lease_);
        lease_.reset();
        // Arrays of the message still exist, perhaps for long.
        if (const nb::object kept = given.object(); kept.is_valid()) {
            message_of(kept).keep();
        }
        check(held);
    }

private:
    static BroadcastMessage& message_of(const nb::object& lease) {
        return *nb::inst_ptr<BroadcastMessage>(lease);
    }

    nb::object reader_;
    Deadline deadline_;
    nb::object lease_;  // the message, as an object that arrays keep alive
};

}  // namespace

nb::object make_view(nb::handle_t<Reader> reader, nb::handle timeout) {
    nb::inst_ptr<Reader>(reader)->check_usable();
    return make_object<ViewBlock>(reader, parse_timeout(timeout));
}

void bind_view(nb::module_& module) {
    bind_exporter<BroadcastMessage>(module, "_Lease");

    bind_block<ViewBlock>(module, "View",
                          "One message of a Broadcast, read in place; made by "
                          "``BroadcastReader.recv_view()``.\n\n"
                          "Can be entered once, by any thread of its process.");
}

}  // namespace penstock::py
