// penstock._core.PagedPlanes: the layers of an engine's paged KV cache on the host. Blocks are
// gathered into reservations and scattered out of objects in one pass. Needs the GIL, except
// gather() and scatter().
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "codec/paged_copy.hpp"

namespace penstock::py {

namespace nb = nanobind;

// Holds the buffers of the arrays, and thereby the arrays, during its life.
class PagedPlanes {
public:
    // Writable arrays [blocks, tokens, …] of any strides, all of one shape except for the number of
    // blocks. Raises TypeError, BufferError or InvalidArgument.
    explicit PagedPlanes(nb::handle arrays);
    PagedPlanes(const PagedPlanes&) = delete;
    PagedPlanes& operator=(const PagedPlanes&) = delete;
    ~PagedPlanes();

    // The block ids of a chunk of `bytes` bytes. Raises InvalidArgument for blocks that the cache
    // does not have, and for another size.
    [[nodiscard]] std::vector<std::int64_t> parse_blocks(nb::handle blocks,
                                                         std::size_t nbytes) const;

    void gather(std::span<const std::int64_t> blocks, std::byte* chunk) const noexcept {
        cache_.gather(blocks, chunk);
    }
    void scatter(std::span<const std::int64_t> blocks, const std::byte* chunk,
                 std::size_t skip_tokens) const noexcept {
        cache_.scatter(blocks, chunk, skip_tokens);
    }

private:
    void add(const Py_buffer& buffer);

    std::vector<Py_buffer> buffers_;
    codec::PagedCache cache_;
};

void bind_paged_planes(nb::module_& module);

}  // namespace penstock::py
