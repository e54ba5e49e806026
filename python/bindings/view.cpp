// penstock._core.View: `with reader.recv_view() as obj`, a message read in place. Arrays made of it
// hold its lease, so that the room is given back when the last of them is gone.
#include <memory>
#include <span>
#include <utility>

#include "block.hpp"
#include "reader.hpp"
#include "received.hpp"
#include "wait.hpp"

namespace penstock::py {
namespace {

// Owns one received message, as an object that arrays can keep alive.
struct Lease {
    std::shared_ptr<BroadcastMessage> message;
    [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return message->bytes(); }
};

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
        auto shared = std::make_shared<BroadcastMessage>(reader.take_message(deadline_));
        const BroadcastMessage& message = *shared;
        nb::object lease = nb::cast(Lease{shared});
        nb::object value = view_of({message.bytes(), message.format()}, lease, reader.codec);
        lease_ = std::move(lease);
        message_ = std::move(shared);
        return value;
    }

    void exit(bool failed) {
        if (!lease_.is_valid()) {
            return;
        }
        const Status held = failed ? Status::ok() : message_->check_held();
        const std::weak_ptr<BroadcastMessage> given = std::exchange(message_, nullptr);
        lease_.reset();
        // Arrays over the message still exist, perhaps for long.
        if (const auto kept = given.lock()) {
            kept->keep();
        }
        check(held);
    }

private:
    nb::object reader_;
    Deadline deadline_;
    nb::object lease_;
    std::shared_ptr<BroadcastMessage> message_;
};

}  // namespace

nb::object make_view(nb::handle_t<Reader> reader, nb::handle timeout) {
    nb::inst_ptr<Reader>(reader)->check_usable();
    auto* const block = new ViewBlock(reader, parse_timeout(timeout));
    return nb::cast(block, nb::rv_policy::take_ownership);
}

void bind_view(nb::module_& module) {
    bind_exporter<Lease>(module, "_Lease");

    nb::class_<ViewBlock> bound(module, "View",
                                "One message of a Broadcast, read in place; made by "
                                "``BroadcastReader.recv_view()``.\n\n"
                                "Can be entered once, by any thread of its process.");
    bind_block(bound);
}

}  // namespace penstock::py
