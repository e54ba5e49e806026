// What `with` does to a block that is bound as a class.
#pragma once

#include <nanobind/nanobind.h>

namespace penstock::py {

namespace nb = nanobind;

// Block::enter() gives the value of `with`; Block::exit(bool has_failed) ends it.
template <typename Block>
void bind_block(nb::class_<Block>& bound) {
    bound.def("__enter__", &Block::enter)
        .def(
            "__exit__",
            [](Block& block, nb::handle type, nb::handle, nb::handle) {
                block.exit(!type.is_none());
            },
            nb::arg("type").none(), nb::arg("value").none(), nb::arg("traceback").none());
}

}  // namespace penstock::py
