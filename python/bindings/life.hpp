// Whether an object has gone since one let go of it: what proves that nothing refers to it any
// more, where the number of references to an object that is still there proves nothing.
#pragma once

#include <nanobind/nanobind.h>

namespace penstock::py {

namespace nb = nanobind;

// Of an object whose type can be referred to weakly. Everything here needs the GIL.
class Life {
public:
    Life() noexcept = default;
    explicit Life(nb::handle object)
        : reference_(nb::steal(PyWeakref_NewRef(object.ptr(), nullptr))) {
        if (!reference_.is_valid()) {
            nb::raise_python_error();
        }
    }

    // The object, if it has not gone. It may go late (a thread that lets go of it without the GIL
    // tells the one that made it), and never comes back.
    [[nodiscard]] nb::object object() const {
        nb::object found = nb::steal(PyObject_CallNoArgs(reference_.ptr()));
        if (!found.is_valid()) {
            nb::raise_python_error();
        }
        return found.is_none() ? nb::object() : found;
    }
    [[nodiscard]] bool is_over() const { return !object().is_valid(); }

private:
    nb::object reference_;
};

}  // namespace penstock::py
