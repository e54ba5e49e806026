// Blocks of any size in one range of payload memory: they tile it, and no two free blocks are
// adjacent.
//
// Every granule has a word. The first word of a block says FREE or USED and how long the block is;
// the last word of a free block of two or more granules says TAIL and the same length; all others
// are INSIDE. Splitting, freeing and joining change all affected words at once
// (segment/words/multi_word.hpp), together with the word by which the owner names the block: so the
// tiling is whole at every instant, a block has an owner from its first moment to its last, and a
// death leaves nothing to repair. Costs do not grow with the size of a block.
// segment/memory/free_map.hpp leads to the first place from the start that fits, which keeps free
// memory together (D. Knuth, The Art of Computer Programming, 2.5: boundary tags, first fit by
// address).
#pragma once

#include <cstdint>
#include <system_error>

#include "os/shared_file.hpp"
#include "segment/layout.hpp"
#include "segment/memory/free_map.hpp"
#include "segment/words/multi_word.hpp"

namespace penstock::detail {

struct HeapGeometry {
    std::uint64_t granule_bytes = 0;  // a power of two, 64 at least
    std::uint32_t granules = 0;       // below 2^28; whole chunks

    [[nodiscard]] std::uint64_t bytes() const noexcept { return granules * granule_bytes; }
    // Unit in which memory is reserved and given back.
    [[nodiscard]] std::uint64_t chunk_bytes() const noexcept;
    [[nodiscard]] std::uint32_t chunks() const noexcept;
    [[nodiscard]] std::uint32_t regions() const noexcept;
    [[nodiscard]] std::uint64_t control_bytes() const noexcept;
    [[nodiscard]] std::uint32_t granules_for(std::uint64_t bytes) const noexcept;
};

// In granules.
struct HeapBlock {
    std::uint32_t first = 0;
    std::uint32_t length = 0;
};

struct HeapRequest {
    std::uint64_t bytes = 0;
    std::uint64_t alignment = 64;  // a power of two up to 2 MiB
    std::uint64_t lead = 0;        // offset of the aligned address behind the block's start
};

struct HeapUse {
    std::uint64_t used_bytes = 0;  // in blocks
    std::uint64_t free_bytes = 0;
    std::uint64_t free_blocks = 0;
    std::uint64_t largest_free = 0;
    std::uint64_t reserved_bytes = 0;  // memory that the heap has reserved now
};

// A view of one heap through one handle. Any thread.
class Heap {
public:
    enum class Fit : std::uint8_t {
        Found,
        NoRun,     // nothing free is long enough now
        NameGone,  // the name has another payload than was seen
        NoMemory,  // the file system is full: see `error`
        Damaged,   // the words contradict themselves
    };
    struct Outcome {
        Fit fit = Fit::NoRun;
        HeapBlock block;
        std::error_code error;
    };

    Heap() noexcept = default;
    // `control` has geometry.control_bytes(), prepared once. `file_offset` is the payload's offset
    // in the file.
    Heap(const HeapGeometry& geometry, std::byte* control, MultiWord& words, os::SharedFile& file,
         std::uint64_t file_offset) noexcept;
    // Makes one free block, in zeroed control memory that is not shared yet. `is_reserved`: all its
    // memory is reserved.
    void prepare(bool is_reserved = false) noexcept;

    // Takes a block, reserves its memory, and stores its name in `name`, which held `seen`: see
    // name_of().
    Outcome allocate(const HeapRequest& request, Word& name, std::uint64_t seen) noexcept;
    // Frees the block, together with the changes in `also`: its name, at least; at most three
    // words, of which no other participant changes a payload and changes it back. False: one of
    // them has another payload than was seen, or the words are damaged, and the block is still
    // used.
    bool free(HeapBlock block, WordPlan also) noexcept;
    // Makes a used block longer or shorter in place. Only its owner may call.
    Fit resize(HeapBlock& block, std::uint64_t bytes) noexcept;

    // Conversion between blocks and their names. 0 names nothing.
    static constexpr std::uint64_t name_of(HeapBlock block) noexcept {
        return std::uint64_t{block.first} + 1;
    }
    // The block that a name names; length 0 if it names none.
    [[nodiscard]] HeapBlock block_named(std::uint64_t payload) const noexcept;
    // The same for display: changes nothing.
    [[nodiscard]] HeapBlock block_peeked(std::uint64_t payload) const noexcept;
    [[nodiscard]] std::uint64_t offset(HeapBlock block) const noexcept {
        return block.first * geometry_.granule_bytes;
    }
    [[nodiscard]] std::uint64_t bytes_of(HeapBlock block) const noexcept {
        return block.length * geometry_.granule_bytes;
    }
    [[nodiscard]] const HeapGeometry& geometry() const noexcept { return geometry_; }

    // Gives the memory of free chunks back to the system, all but `keep_bytes`; returns how many
    // bytes.
    std::uint64_t trim(unsigned self, std::uint64_t keep_bytes) noexcept;
    // After a death, and before a successor changes anything: frees blocks that were being trimmed,
    // and writes hints that were noted and not written.
    void reap(unsigned dead) noexcept;
    void restore_hints() noexcept;
    [[nodiscard]] HeapUse use() const noexcept;  // looks at every granule; for people

private:
    enum class State : std::uint8_t { Inside = 0, Used = 1, Free = 2, Tail = 3 };
    struct Piece {
        State state = State::Inside;
        std::uint32_t first = 0;
        std::uint32_t length = 0;
        unsigned owner = 0;
        std::uint64_t seen = 0;  // its first word, as it was read
    };
    static constexpr std::uint32_t kNowhere = ~std::uint32_t{0};
    static constexpr unsigned kNamed =
        0x3FF;  // owner of a block that an entry names; not a participant

    // Payload of a granule's word, from the lowest bit: state 2, owner 10, length 28.
    [[nodiscard]] static Piece decode(std::uint64_t value, std::uint32_t granule) noexcept {
        return {static_cast<State>(value & 3U), granule,
                static_cast<std::uint32_t>(value >> 12U & ((1U << 28U) - 1)),
                static_cast<unsigned>(value >> 2U & 0x3FFU), value};
    }
    [[nodiscard]] static std::uint64_t encode(const Piece& piece) noexcept {
        return static_cast<std::uint64_t>(piece.state) | std::uint64_t{piece.owner} << 2U |
               std::uint64_t{piece.length} << 12U;
    }
    [[nodiscard]] Piece piece_at(std::uint32_t granule) const noexcept {
        return decode(words_->read(granules_[granule]), granule);
    }
    [[nodiscard]] HeapBlock block_in(const Piece& piece) const noexcept;
    [[nodiscard]] bool fits_heap(const Piece& piece) const noexcept;
    void set(WordPlan& plan, std::uint32_t granule, std::uint64_t payload) const noexcept;
    void keep(WordPlan& plan, const Piece& piece) const noexcept;
    void erase(WordPlan& plan, const Piece& piece) const noexcept;
    void lay(WordPlan& plan, const Piece& piece) const noexcept;
    void hint(const Piece& piece) noexcept;
    void restore_hint(std::uint32_t region) noexcept;
    void restore_noted() noexcept;
    void restore_noted(unsigned participant) noexcept;

    struct Wanted {
        std::uint32_t length = 0;
        std::uint32_t step = 1;  // granules between aligned places
        std::uint32_t phase = 0;
    };
    static constexpr Wanted kEverything{~std::uint32_t{0}, 1, 0};  // fits nowhere
    [[nodiscard]] Wanted wanted(const HeapRequest& request) const noexcept;
    [[nodiscard]] static std::uint32_t lead(const Piece& piece, const Wanted& wanted) noexcept;
    Piece find(const Wanted& wanted) noexcept;
    Piece search(const Wanted& wanted, SizeClass size) noexcept;
    Piece scan(std::uint32_t region, const Wanted& wanted, SizeClass& largest) const noexcept;
    void correct(std::uint32_t region, SizeClass said, SizeClass largest) noexcept;
    Fit carve(const Piece& piece, std::uint32_t lead, std::uint32_t length, unsigned owner,
              WordPlan plan) noexcept;
    bool settle(const WordPlan& plan, const Piece& rest) noexcept;
    bool join_before(WordPlan& plan, std::uint32_t granule, Piece& joined) const noexcept;
    bool join_behind(WordPlan& plan, std::uint32_t granule, Piece& joined) const noexcept;
    Fit release(HeapBlock block, WordPlan& plan) noexcept;

    [[nodiscard]] bool is_reserved(std::uint32_t chunk) const noexcept;
    std::error_code reserve(HeapBlock block) noexcept;
    std::error_code reserve_chunks(std::uint64_t first, std::uint64_t end) noexcept;
    std::uint64_t punch(HeapBlock block) noexcept;
    std::uint64_t trim_part(unsigned self, std::uint32_t from, HeapBlock part) noexcept;

    HeapGeometry geometry_;
    Word* granules_ = nullptr;
    std::atomic<std::uint64_t>* reserved_ = nullptr;  // one bit for each chunk
    FreeMap map_;
    MultiWord* words_ = nullptr;
    os::SharedFile* file_ = nullptr;
    std::uint64_t file_offset_ = 0;
};

}  // namespace penstock::detail
