// The life of an object: the moves of its entry's word, one function for each, and the reading of
// what an entry names. docs/protocols.md has the states, and what a death in each of them means.
//
//   Free -> Claimed               StoreIndex::claim
//   Claimed -> Staged             stage, with the version of the key's bucket
//   Staged -> Resident            publish, with the order
//   Staged -> Expired             expire
//   Claimed, Staged, Expired -> Freeing    abort
//   Resident -> Evicting          evict; back by pin, remove, unstick and janitors
//   Evicting -> Freeing           evict, with the order
//   Resident -> Doomed            remove, with the order
//   Doomed -> Freeing             collect
//   Freeing -> Free               free, with the heap
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "penstock/store.hpp"
#include "segment/life/segment.hpp"
#include "segment/memory/heap.hpp"
#include "store/index.hpp"
#include "store/order.hpp"
#include "store/pins.hpp"

namespace penstock::detail {

// The objects of a store through one participant. Any thread.
struct StoreEntries {
    using Outcome = StoreOrder::Outcome;

    StoreEntries(std::unique_ptr<Segment> joined, unsigned participant);
    StoreEntries(const StoreEntries&) = delete;
    StoreEntries& operator=(const StoreEntries&) = delete;

    // Changes from here on are that participant's.
    void act_as(unsigned participant) noexcept;

    // Writing.
    // Makes an entry that is ours, Claimed, Staged under its key. `seen`: the version of the key's
    // bucket before the caller looked whether the key is there. Changed: another staged a key of
    // the bucket meanwhile; the entry is free again.
    Outcome stage(std::uint32_t entry, Word& version, std::uint64_t seen,
                  const ReserveOptions& options) noexcept;
    [[nodiscard]] bool is_overdue(std::uint32_t entry) const noexcept;
    bool expire(std::uint32_t entry, std::uint64_t seen) noexcept;
    // Changed: it is not ours and Staged any more, or overdue.
    Outcome publish(std::uint32_t entry) noexcept;
    void abort(std::uint32_t entry) noexcept;

    // Reading.
    struct Content {
        StoreRef ref;
        std::span<const std::byte> key;
        std::span<const std::byte> meta;
        std::span<const std::byte> bytes;
        Format format = Format::Bytes;
        bool is_sound = false;
    };
    // Of an entry that is pinned, or staged by us.
    [[nodiscard]] Content content(std::uint32_t entry) const noexcept;
    // Pinned: the caller must unpin() it. None: it is not there.
    std::optional<Content> pin_key(const KeyHash& hash, std::string_view key) noexcept;
    std::optional<Content> pin_ref(const StoreRef& ref) noexcept;
    bool pin(std::uint32_t entry) noexcept;
    void unpin(std::uint32_t entry) noexcept;
    void touch(std::uint32_t entry) noexcept;  // it was read
    [[nodiscard]] bool is_retained(std::uint32_t entry) const noexcept;
    // Adds or takes a count of an entry that is pinned. False: none can be added, or taken.
    bool retain(std::uint32_t entry, bool adds) noexcept;

    // Removing.
    // Done: an object was evicted. Changed: it stays, or none may go.
    Outcome evict(std::uint32_t entry) noexcept;
    Outcome evict_one() noexcept;
    // Of an entry that is pinned; it goes with its last reader. Changed: another removed it.
    Outcome remove(std::uint32_t entry) noexcept;
    void collect(std::uint32_t entry) noexcept;
    // Completes what a stalled participant left half done: Evicting -> Resident, Doomed without
    // holders -> Free.
    void unstick(std::uint32_t entry) noexcept;
    // What the dead participant had of the entry is free. For its janitor; repeatable.
    void reap_entry(std::uint32_t entry, unsigned dead) noexcept;

    [[nodiscard]] layout::EntryWord state_of(std::uint32_t entry) const noexcept {
        return layout::decode_entry(word(entry));
    }
    [[nodiscard]] std::uint64_t word(std::uint32_t entry) const noexcept {
        return words.read(view.entry(entry).word);
    }
    [[nodiscard]] layout::StoreParticipant& own() const noexcept { return view.participant(self); }

    std::unique_ptr<Segment> segment;
    StoreView view;
    MultiWord words;
    Heap heap;
    StoreIndex index;
    StoreOrder order;
    unsigned self;
    std::unique_ptr<Pins> pins;  // null: no slot yet

private:
    using State = layout::EntryState;

    bool move(std::uint32_t entry, std::uint64_t seen, State state,
              unsigned participant = 0) noexcept {
        return MultiWord::change(view.entry(entry).word, seen,
                                 layout::encode_entry(state, participant));
    }
    void free(std::uint32_t entry) noexcept;
    [[nodiscard]] std::uint64_t own_bytes(std::uint32_t entry) const noexcept;
};

// Looks at words that others changed meanwhile, before they are taken for damaged: each means that
// another participant got on, unless the memory is damaged.
inline constexpr unsigned kMaxAttempts = 1000;

inline void count(std::atomic<std::uint64_t>& counter, std::uint64_t amount = 1) noexcept {
    counter.fetch_add(amount, std::memory_order_relaxed);
}

}  // namespace penstock::detail
