// Memory for the arrays that one handle makes repeatedly: returned by the last array that uses it,
// and warm for the next. Fresh pages cost three times the copy of a batch.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <memory>

namespace penstock::py {

namespace nb = nanobind;

// Keeps as much free memory as was in use at most. Blocks may outlive the pool. Needs the GIL.
class ArrayPool {
public:
    ArrayPool();

    // Writable memory of at least one byte for NumPy, uninitialised, 64-byte aligned.
    nb::object take(std::size_t bytes);
    // Bytes in use, and bytes kept for reuse.
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
