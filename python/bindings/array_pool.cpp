#include "array_pool.hpp"

#include <algorithm>
#include <new>
#include <utility>
#include <vector>

#include "codec_memory.hpp"

namespace penstock::py {
namespace {

// Granularity of blocks: batches vary by a few tokens.
constexpr std::size_t kStep = std::size_t{64} << 10U;

struct Block {
    nb::object memory;
    std::byte* data = nullptr;
    std::size_t bytes = 0;
};

Block make_block(std::size_t bytes) {
    Block block;
    block.memory = new_memory(bytes, block.data);
    block.bytes = bytes;
    return block;
}

}  // namespace

// Free blocks; the most recently freed, whose pages are warm, is last.
struct ArrayPool::Shelf {
    std::vector<Block> blocks;
    std::size_t kept = 0;
    std::size_t in_use = 0;
    std::size_t peak = 0;

    Block take(std::size_t bytes) {
        Block block = find(bytes);
        in_use += block.bytes;
        peak = std::max(peak, in_use);
        return block;
    }

    void give_back(Block block) noexcept {
        in_use -= block.bytes;
        kept += block.bytes;
        try {
            blocks.push_back(std::move(block));
        } catch (const std::bad_alloc&) {
            kept -= block.bytes;  // push_back failed: freed here
        }
        while (kept > peak) {
            kept -= blocks.front().bytes;
            blocks.erase(blocks.begin());
        }
    }

private:
    // The most recently freed block that is large enough, and at most twice as large as needed.
    Block find(std::size_t bytes) {
        for (std::size_t at = blocks.size(); at-- > 0;) {
            if (blocks[at].bytes < bytes || blocks[at].bytes / 2 > bytes) {
                continue;
            }
            Block found = std::move(blocks[at]);
            blocks.erase(blocks.begin() + static_cast<std::ptrdiff_t>(at));
            kept -= found.bytes;
            return found;
        }
        return make_block(bytes);
    }
};

// Owner behind the memory object: returns the block when the last array is gone.
class ArrayPool::Lent {
public:
    Lent(std::shared_ptr<Shelf> shelf, Block block)
        : shelf_(std::move(shelf)), block_(std::move(block)) {}
    Lent(Lent&&) noexcept = default;
    Lent& operator=(Lent&&) = delete;
    ~Lent() {
        if (shelf_ != nullptr) {
            shelf_->give_back(std::move(block_));
        }
    }

    [[nodiscard]] std::byte* data() const noexcept { return block_.data; }

private:
    std::shared_ptr<Shelf> shelf_;
    Block block_;
};

ArrayPool::ArrayPool() : shelf_(std::make_shared<Shelf>()) {}

nb::object ArrayPool::take(std::size_t bytes) {
    Lent lent(shelf_, shelf_->take((std::max<std::size_t>(bytes, 1) + kStep - 1) / kStep * kStep));
    std::byte* const data = lent.data();
    return writable_memory(data, bytes, nb::cast(std::move(lent)));
}

std::size_t ArrayPool::in_use() const noexcept {
    return shelf_->in_use;
}

std::size_t ArrayPool::kept() const noexcept {
    return shelf_->kept;
}

void bind_array_pool(nb::module_& module) {
    nb::class_<ArrayPool::Lent>(module, "_PooledBlock");
    nb::class_<ArrayPool>(module, "ArrayPool", "Reused memory for arrays that are made repeatedly.")
        .def(nb::init<>())
        .def("take", &ArrayPool::take, nb::arg("nbytes"),
             "A writable buffer, returned to the pool when the last array over it is gone.")
        .def_prop_ro("in_use", &ArrayPool::in_use, "Bytes under living arrays.")
        .def_prop_ro("kept", &ArrayPool::kept, "Bytes that wait for the next array.");
}

}  // namespace penstock::py
