// A weak reference to a Python object. That the object is gone proves that nothing refers to it;
// the reference count of an object that still exists proves nothing.
#pragma once

#include <nanobind/nanobind.h>

namespace penstock::py {

namespace nb = nanobind;

// The object's type must allow weak references. Everything here needs the GIL.
class Life {
public:
    Life() noexcept = default;
    explicit Life(nb::handle object)
        : reference_(nb::steal(PyWeakref_NewRef(object.ptr(), nullptr))) {
        if (!reference_.is_valid()) {
            nb::raise_python_error();
        }
    }

    // The object, if it still exists. It may go some time after its last reference was dropped in
    // another thread, and never comes back.
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
