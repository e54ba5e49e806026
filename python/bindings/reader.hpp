// The reader of a Broadcast as a Python object, behind penstock/broadcast.py. Needs the GIL.
#pragma once

#include <optional>
#include <string>

#include "codec.hpp"
#include "handle.hpp"
#include "penstock/broadcast.hpp"

namespace penstock::py {

// Members belong to the thread with the Turn, except constants, and `core` for calls that the
// library allows to any thread.
struct Reader final : Handle {
    Reader(BroadcastReader attached, const std::string& name, unsigned rank_of_it, Codec values);

    [[nodiscard]] const BroadcastReader& usable() const {
        check_usable();
        return core;
    }

    BroadcastReader core;
    const Codec codec;
    const unsigned rank;
    const std::string name;
    const std::string instance;
    // The next message: received, and not consumed yet, for example because its format was refused.
    std::optional<BroadcastMessage> pending;

    // Waits until a message is pending. Raises as recv() does.
    void await_message(Turn& turn, Deadline deadline, const Cancel* cancel = nullptr);
    // The next message for recv() and recv_view(). Incompatible leaves it pending.
    BroadcastMessage take_message(Deadline deadline);

private:
    void end_waits() noexcept override { core.request_close(); }
    void shut() noexcept override {
        pending.reset();
        core.close();
    }
};

// reader.recv_view(timeout): a context manager around a message read in place.
nb::object make_view(nb::handle_t<Reader> reader, nb::handle timeout);

void bind_view(nb::module_& module);
void bind_reader(nb::module_& module);

}  // namespace penstock::py
