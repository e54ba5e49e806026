// The writer of a Broadcast as a Python object, behind penstock/broadcast.py. Needs the GIL.
#pragma once

#include <memory>
#include <string>

#include "codec.hpp"
#include "handle.hpp"
#include "loan_window.hpp"
#include "penstock/broadcast.hpp"

namespace penstock::py {

// Members belong to the thread with the Turn, except `core` for calls that the library allows to
// any thread.
struct Writer final : Handle {
    Writer(const std::string& name_of_it, BroadcastWriter made, Codec values);

    [[nodiscard]] const BroadcastWriter& usable() const {
        check_usable();
        return core;
    }

    BroadcastWriter core;
    Codec codec;
    const std::string name;              // empty if anonymous
    std::shared_ptr<LoanWindow> window;  // made for the first loan to Python; gone after close()

private:
    void end_waits() noexcept override { core.request_close(); }
    void shut() noexcept override {
        core.close();
        window.reset();
    }
};

// writer.loan(nbytes, timeout): a context manager around a loan.
nb::object make_loan(nb::handle_t<Writer> writer, nb::handle nbytes, nb::handle timeout);

void bind_loan(nb::module_& module);
void bind_writer(nb::module_& module);

}  // namespace penstock::py
