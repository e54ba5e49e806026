// Each thread keeps one scratch between messages.
#include "codec_scratch.hpp"

#include <memory>

namespace penstock::py {
namespace {

// Holds no Python reference while it is spare, so that a thread may end without the GIL.
thread_local std::unique_ptr<Scratch> spare;

}  // namespace

void Scratch::clear() noexcept {
    message.clear();
    for (PyObject* const reference : references) {
        Py_DECREF(reference);
    }
    references.clear();
}

Scratch* take_scratch() {
    return spare != nullptr ? spare.release() : new Scratch;
}

void give_back_scratch(Scratch* scratch) noexcept {
    std::unique_ptr<Scratch> owned(scratch);
    owned->clear();
    if (spare == nullptr) {
        spare = std::move(owned);
    }
}

}  // namespace penstock::py
