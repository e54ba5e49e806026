// Working memory for one message, kept and reused: a small message is encoded without a call to
// malloc.
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
    // Releases the message's references. The GIL is held.
    void clear() noexcept;

    codec::MessageWriter message;
    std::vector<PyObject*> references;
};

// Takes this thread's spare scratch, or a new one; and returns it. A thread rarely builds more than
// one message at once; further scratches are made and freed.
Scratch* take_scratch();
void give_back_scratch(Scratch* scratch) noexcept;

}  // namespace penstock::py
