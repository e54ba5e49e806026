#include "store/index.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "os/crash_point.hpp"
#include "segment/words/atomics.hpp"

namespace penstock::detail {
namespace {

using layout::EntryState;

}  // namespace

KeyHash hash_key(std::string_view key, std::uint64_t seed) noexcept {
    const XXH128_hash_t hash = XXH3_128bits_withSeed(key.data(), key.size(), seed);
    return {hash.low64, hash.high64};
}

bool StoreIndex::has_hash(std::uint32_t number, const KeyHash& hash) const noexcept {
    const layout::StoreEntry& entry = view_.entry(number);
    return load_relaxed(entry.hash[0]) == hash.low && load_relaxed(entry.hash[1]) == hash.high;
}

std::uint32_t StoreIndex::claim(const KeyHash& hash, unsigned participant) noexcept {
    for (unsigned probe = 0; probe < layout::kProbes; ++probe) {
        const std::uint32_t bucket = (home(hash) + probe) & (view_.shape().buckets - 1);
        for (unsigned way = 0; way < layout::kWays; ++way) {
            const std::uint32_t number = bucket * layout::kWays + way;
            layout::StoreEntry& entry = view_.entry(number);
            const std::uint64_t seen = words_->read(entry.word);
            if (layout::decode_entry(seen).state != EntryState::Free) continue;
            if (!MultiWord::change(entry.word, seen,
                                   layout::encode_entry(EntryState::Claimed, participant))) {
                continue;
            }
            PENSTOCK_CRASH_POINT("store.reserve.claimed");
            store_relaxed(entry.hash[0], hash.low);
            store_relaxed(entry.hash[1], hash.high);
            fetch_add_relaxed(entry.incarnation, 1);
            // pairs with: the acquire in find(); before the word says that the entry is in use
            store_release(view_.bucket(bucket).tags[way], tag_of(hash));
            return number;
        }
    }
    return kNone;
}

std::uint32_t StoreIndex::neighbour(const KeyHash& hash, unsigned number) const noexcept {
    for (; number < layout::kProbes * layout::kWays; ++number) {
        const std::uint32_t entry =
            (home(hash) * layout::kWays + number) & (view_.shape().entries() - 1);
        const EntryState state = layout::decode_entry(words_->read(view_.entry(entry).word)).state;
        if (state == EntryState::Resident) return entry;
    }
    return kNone;
}

void StoreIndex::forget(std::uint32_t number) noexcept {
    store_release(view_.bucket(number / layout::kWays).tags[number % layout::kWays], 0);
}

}  // namespace penstock::detail
