// Memory behind the arrays that one handle makes again and again: given back by the last array that
// uses it, and warm for the next. Fresh pages of a batch cost three times its copy.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <memory>

namespace penstock::py {

namespace nb = nanobind;

// What is free is kept up to the most that was in use at once. Blocks may outlive the pool.
// Everything here needs the GIL.
class ArrayPool {
public:
    ArrayPool();

    // Writable memory of at least one byte for NumPy, uninitialised, 64-byte aligned.
    nb::object take(std::size_t bytes);
    // Bytes that are in use, and that are kept for the next.
    [[nodiscard]] std::size_t in_use() const noexcept;
    [[nodiscard]] std::size_t kept() const noexcept;

private:
    struct Shelf;
    class Lent;
    friend void bind_array_pool(nb::module_& module);

    std::shared_ptr<Shelf> shelf_;
};

void bind_array_pool(nb::module_& module);

}  // namespace penstock::py
