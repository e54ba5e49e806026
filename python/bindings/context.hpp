// Common parts of classes for `with` statements: handles, which stay in their process and close at
// the end of the block, and blocks, which are entered once. Everything here needs the GIL.
#pragma once

#include <nanobind/nanobind.h>

#include <string>
#include <utility>

namespace penstock::py {

namespace nb = nanobind;

// Binds the class of a handle. `what`: its name in sentences, as in "reader".
template <typename Class, typename... Base>
nb::class_<Class, Base...> bind_handle(nb::module_& module, const char* name, const char* what,
                                       const char* help) {
    nb::class_<Class, Base...> bound(module, name, nb::is_weak_referenceable(), help);
    bound
        .def_prop_ro(
            "closed", [](const Class& own) { return own.is_closed(); },
            "Whether this handle was closed here.")
        .def_prop_ro("_is_foreign", [](const Class& own) { return own.is_foreign(); })
        .def("__enter__", [](nb::handle self) { return nb::borrow(self); })
        .def("__exit__", [](nb::handle self, const nb::args& /*raised*/) { self.attr("close")(); })
        .def("__reduce__", [what = std::string(what)](nb::handle /*self*/) {
            throw nb::type_error(("a " + what + " stays in its process; give others " + what +
                                  ".handle to attach to")
                                     .c_str());
        });
    return bound;
}

// Binds the class of a block: enter() returns the value for `as`; exit(failed) ends it.
template <typename Block>
nb::class_<Block> bind_block(nb::module_& module, const char* name, const char* help) {
    nb::class_<Block> bound(module, name, help);
    bound.def("__enter__", &Block::enter)
        .def(
            "__exit__",
            [](Block& block, nb::handle type, nb::handle, nb::handle) {
                block.exit(!type.is_none());
            },
            nb::arg("type").none(), nb::arg("value").none(), nb::arg("traceback").none());
    return bound;
}

// An object of a bound class, owned by Python.
template <typename Block, typename... Arguments>
nb::object make_object(Arguments&&... arguments) {
    return nb::cast(new Block(std::forward<Arguments>(arguments)...),
                    nb::rv_policy::take_ownership);
}

}  // namespace penstock::py
