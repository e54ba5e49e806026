// From keys to entries, without a lock: a key belongs to a bucket and lies there or in one of the
// next three.
//
// Look-ups read tags, then the entries that match. The bucket's version keeps a key from being
// staged twice: a writer looks for the key, then changes the version together with its entry; if a
// key of this bucket was staged in between, the change fails, and the writer looks again.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "segment/words/atomics.hpp"
#include "store/control.hpp"

namespace penstock::detail {

struct KeyHash {
    std::uint64_t low = 0;
    std::uint64_t high = 0;
};
// XXH3, 128 bits, seeded by the segment's instance id.
KeyHash hash_key(std::string_view key, std::uint64_t seed) noexcept;

// A value; any thread.
class StoreIndex {
public:
    static constexpr std::uint32_t kNone = ~std::uint32_t{0};

    StoreIndex() noexcept = default;
    StoreIndex(const StoreView& view, MultiWord& words) noexcept : view_(view), words_(&words) {}

    [[nodiscard]] std::uint32_t home(const KeyHash& hash) const noexcept {
        return static_cast<std::uint32_t>(hash.high) & (view_.shape().buckets - 1);
    }
    [[nodiscard]] Word& version(const KeyHash& hash) const noexcept {
        return view_.bucket(home(hash)).version;
    }

    // Calls `bool visit(entry, value of its word)` for every entry that has the hash and is staged,
    // resident or evicting, until it returns true; returns that entry, or kNone.
    template <typename Visit>
    std::uint32_t find(const KeyHash& hash, Visit&& visit) const noexcept {
        const std::uint16_t tag = tag_of(hash);
        for (unsigned probe = 0; probe < layout::kProbes; ++probe) {
            const std::uint32_t bucket = (home(hash) + probe) & (view_.shape().buckets - 1);
            for (unsigned way = 0; way < layout::kWays; ++way) {
                if (load_acquire(view_.bucket(bucket).tags[way]) != tag) continue;
                const std::uint32_t number = bucket * layout::kWays + way;
                const std::uint64_t seen = words_->read(view_.entry(number).word);
                if (!is_there(seen) || !has_hash(number, hash)) continue;
                if (visit(number, seen)) return number;
            }
        }
        return kNone;
    }

    // Claims a free entry near the key's home for `participant`, with the hash and tag of the key.
    // kNone: all 32 are in use.
    std::uint32_t claim(const KeyHash& hash, unsigned participant) noexcept;
    // An entry whose eviction could make room for the key; kNone: none is resident.
    [[nodiscard]] std::uint32_t neighbour(const KeyHash& hash, unsigned number) const noexcept;
    // Clears the tag, before an entry that the caller owns becomes free.
    void forget(std::uint32_t number) noexcept;

    [[nodiscard]] bool has_hash(std::uint32_t number, const KeyHash& hash) const noexcept;

private:
    [[nodiscard]] static std::uint16_t tag_of(const KeyHash& hash) noexcept {
        return static_cast<std::uint16_t>(hash.high >> 48U | 1U);
    }
    [[nodiscard]] static bool is_there(std::uint64_t value) noexcept {
        const layout::EntryState state = layout::decode_entry(value).state;
        return state == layout::EntryState::Staged || state == layout::EntryState::Resident ||
               state == layout::EntryState::Evicting;
    }

    StoreView view_;
    MultiWord* words_ = nullptr;
};

}  // namespace penstock::detail
