// A heap without a segment, for its tests and those of its parts: words that forked children share,
// and a payload file that takes memory only where the heap reserves it.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <system_error>

#include "os/shared_file.hpp"
#include "segment/memory/heap.hpp"
#include "tests/unit/support/child.hpp"

namespace penstock::test {

class HeapStage {
public:
    static constexpr unsigned kMembers = 8;
    static constexpr std::uint64_t kNames = 4096;  // words in which owners name their blocks
    static constexpr std::uint64_t kFileOffset = 3 * 4096;  // nonzero on purpose

    explicit HeapStage(std::uint64_t granule_bytes = 1024, std::uint32_t granules = 4096)
        : geometry_{granule_bytes, granules} {
        descriptor_ = ::memfd_create("penstock-test", 0);  // inherited by children
        require(descriptor_ >= 0 &&
                ::ftruncate(descriptor_, static_cast<off_t>(kFileOffset + geometry_.bytes())) == 0);
        control_bytes_ = kNames * sizeof(Word) + kMembers * sizeof(layout::WordOperation) +
                         geometry_.control_bytes();
        void* const memory = ::mmap(nullptr, control_bytes_, PROT_READ | PROT_WRITE,
                                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        require(memory != MAP_FAILED);
        control_ = static_cast<std::byte*>(memory);
        join(0);
        heap.prepare();
    }
    HeapStage(const HeapStage&) = delete;
    HeapStage& operator=(const HeapStage&) = delete;
    ~HeapStage() {
        ::munmap(control_, control_bytes_);
        ::close(descriptor_);
    }

    // Reopens in a child, which has neither the file nor the slot of its parent.
    void join(unsigned self) {
        std::error_code error;
        file_.abandon();
        file_ = os::SharedFile::reopen(descriptor_, error);
        require(!error);
        words.attach(control_, control_bytes_ / sizeof(Word), operations(), kMembers, self);
        heap = detail::Heap(geometry_, heap_control(), words, file_, kFileOffset);
    }

    [[nodiscard]] layout::Word& name(std::uint64_t number) const {
        return reinterpret_cast<layout::Word*>(control_)[number];
    }
    [[nodiscard]] layout::Word& granule(std::uint32_t number) const {
        return reinterpret_cast<layout::Word*>(heap_control())[number];
    }
    [[nodiscard]] const detail::HeapGeometry& geometry() const { return geometry_; }
    // Bytes that the payload takes now.
    [[nodiscard]] std::uint64_t reserved() const {
        std::error_code error;
        return file_.facts(error).reserved;
    }

    // Allocates a block under name `number`; its length is 0 if that fails.
    detail::HeapBlock take(std::uint64_t number, std::uint64_t bytes,
                           std::uint64_t alignment = 64) {
        layout::Word& word = name(number);
        const auto outcome = heap.allocate({bytes, alignment}, word, words.read(word));
        return outcome.fit == detail::Heap::Fit::Found ? outcome.block : detail::HeapBlock{};
    }
    bool give(std::uint64_t number) {
        layout::Word& word = name(number);
        const std::uint64_t seen = words.read(word);
        const detail::HeapBlock block = heap.block_named(detail::payload_of(seen));
        detail::WordPlan plan;
        plan.set(word, seen, 0);
        return block.length > 0 && heap.free(block, plan);
    }

    // Walks from block to block: they tile the heap, free neighbours are joined, every free block
    // has its tail, every used block exactly one name. No other thread may use the heap.
    void check() const {
        std::uint32_t at = 0;
        bool was_free = false;
        std::uint64_t used = 0;
        while (at < geometry_.granules) {
            const std::uint64_t payload = detail::payload_of(words.read(granule(at)));
            const std::uint64_t state = payload & 3U;
            const auto length = static_cast<std::uint32_t>(payload >> 12U);
            ASSERT_TRUE(state == 1 || state == 2) << "granule " << at << " says " << state;
            ASSERT_GT(length, 0U);
            ASSERT_LE(length, geometry_.granules - at);
            ASSERT_FALSE(was_free && state == 2) << "two free blocks touch at " << at;
            was_free = state == 2;
            used += state == 1 ? 1 : 0;
            for (std::uint32_t inside = 1; inside < length; ++inside) {
                const std::uint64_t word = detail::payload_of(words.read(granule(at + inside)));
                const bool is_tail = state == 2 && inside + 1 == length;
                ASSERT_EQ(word, is_tail ? (std::uint64_t{length} << 12U | 3U) : 0U)
                    << "granule " << at + inside;
            }
            at += length;
        }
        ASSERT_EQ(at, geometry_.granules);
        std::uint64_t named = 0;
        for (std::uint64_t number = 0; number < kNames; ++number) {
            const std::uint64_t payload = detail::payload_of(words.read(name(number)));
            if (payload == 0) continue;
            ++named;
            ASSERT_GT(heap.block_named(payload).length, 0U) << "name " << number;
        }
        ASSERT_EQ(named, used);
    }

    detail::MultiWord words;
    detail::Heap heap;

private:
    using Word = layout::Word;
    [[nodiscard]] layout::WordOperation* operations() const {
        return reinterpret_cast<layout::WordOperation*>(control_ + kNames * sizeof(Word));
    }
    [[nodiscard]] std::byte* heap_control() const {
        return reinterpret_cast<std::byte*>(operations() + kMembers);
    }

    detail::HeapGeometry geometry_;
    int descriptor_ = -1;
    std::uint64_t control_bytes_ = 0;
    std::byte* control_ = nullptr;
    os::SharedFile file_;
};

}  // namespace penstock::test
