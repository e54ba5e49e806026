// An arena without a segment, for its tests: words that forked children share, and a payload file
// that takes memory only where the arena reserves it.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <system_error>

#include "os/shared_file.hpp"
#include "segment/memory/arena.hpp"
#include "tests/unit/support/child.hpp"

namespace penstock::test {

class ArenaStage {
public:
    static constexpr std::uint64_t kGranule = 4096;
    static constexpr std::uint32_t kGranules = 64;
    static constexpr std::uint64_t kFileOffset = 3 * kGranule;  // nonzero on purpose

    ArenaStage() {
        descriptor_ = ::memfd_create("penstock-test", 0);  // inherited by children
        require(descriptor_ >= 0 && ::ftruncate(descriptor_, kFileSize) == 0);
        open();
    }
    ArenaStage(const ArenaStage&) = delete;
    ArenaStage& operator=(const ArenaStage&) = delete;
    ~ArenaStage() { ::close(descriptor_); }

    // Reopens in a child, which has neither the file nor the mapping of its parent.
    void open() {
        std::error_code error;
        file_.abandon();
        mapping_.abandon();
        file_ = os::SharedFile::reopen(descriptor_, error);
        require(!error);
        mapping_ = os::Mapping::map(file_, kFileOffset, kGranules * kGranule,
                                    os::Mapping::Access::ReadWrite, error);
        require(!error);
        arena = detail::Arena(geometry(), words_->data(), mapping_.data(), file_, kFileOffset);
    }

    [[nodiscard]] static detail::ArenaGeometry geometry() { return {kGranule, kGranules}; }
    // Memory that the payload takes now.
    [[nodiscard]] std::uint64_t reserved() const {
        std::error_code error;
        return file_.facts(error).reserved;
    }
    [[nodiscard]] layout::GranuleWord& word(std::uint32_t granule) const {
        return reinterpret_cast<layout::GranuleWord*>(words_->data())[granule];
    }
    [[nodiscard]] os::SharedFile& file() { return file_; }

    detail::Arena arena;

private:
    static constexpr std::uint64_t kFileSize = kFileOffset + kGranules * kGranule;
    using Words = std::array<std::byte, 4096>;

    int descriptor_ = -1;
    struct alignas(128) AlignedWords : Words {};
    Shared<AlignedWords> words_;
    os::SharedFile file_;
    os::Mapping mapping_;
};

}  // namespace penstock::test
