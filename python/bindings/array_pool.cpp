#include "array_pool.hpp"

#include "codec/array_pool.hpp"
#include "codec_memory.hpp"
#include "statistics.hpp"

namespace penstock::py {

void bind_array_pool(nb::module_& module) {
    codec::array_pool();  // made now: a fork in mid-construction would leave it locked in the child
    module.def(
        "new_memory",
        [](std::size_t nbytes) {
            std::byte* data = nullptr;
            return new_memory(nbytes, data);
        },
        nb::arg("nbytes"),
        "A writable, 64-byte aligned buffer that holds anything; a large one is recycled memory.");
    module.def(
        "memory_stats", [] { return to_python(codec::array_pool().stats()); },
        "Statistics of the memory under the arrays that this process received as its own.\n\n"
        "Arrays, tensors and pickled buffers of 128 KiB and more lie in memory that the last\n"
        "reference to them gives back for the next ones; ``bytes`` and ``bytearray`` don't.");
}

}  // namespace penstock::py
