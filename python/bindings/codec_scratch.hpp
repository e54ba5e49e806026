// What one message needs while it is built, kept and used again: a small message is encoded
// without a call to malloc.
#pragma once

#include <nanobind/nanobind.h>

#include <vector>

#include "penstock/codec.hpp"

namespace penstock::py {

namespace nb = nanobind;

struct Scratch {
    Scratch() = default;
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch() { clear(); }

    // Keeps `object` alive until the message has been written. The GIL is held.
    void keep(nb::object object) { references.push_back(object.release().ptr()); }
    // Forgets the message. The GIL is held.
    void clear() noexcept;

    codec::MessageWriter message;
    std::vector<PyObject*> references;
};

// This thread's spare one, or a new one; and back. A thread has one message in the making, as a
// rule; further ones are made and freed.
Scratch* take_scratch();
void give_back_scratch(Scratch* scratch) noexcept;

}  // namespace penstock::py
