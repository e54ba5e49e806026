// Life of an object: the transitions of its entry's word, one function each, and reads of its
// content. docs/protocols.md has the states, and the effect of a death in each of them.
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

// The entries of a store, through one participant. Any thread.
struct StoreEntries {
    using Outcome = StoreOrder::Outcome;
    // Reads of changing words before they count as damaged: each means that another participant
    // made progress, unless the memory is damaged.
    static constexpr unsigned kMaxAttempts = 1000;

    StoreEntries(std::unique_ptr<Segment> joined, unsigned participant);
    StoreEntries(const StoreEntries&) = delete;
    StoreEntries& operator=(const StoreEntries&) = delete;

    // Participant that makes the changes from here on.
    void act_as(unsigned participant) noexcept;

    // Writing.
    //
    // Stages an entry that the caller has Claimed under its key. `seen`: the version of the key's
    // bucket before the caller looked for the key. Changed: another key of the bucket was staged
    // meanwhile; the entry is free again.
    Outcome stage(std::uint32_t entry, Word& version, std::uint64_t seen,
                  const ReserveOptions& options) noexcept;
    [[nodiscard]] bool is_overdue(std::uint32_t entry) const noexcept;
    bool expire(std::uint32_t entry, std::uint64_t seen) noexcept;
    // Changed: the caller does not have it Staged any more, or it is overdue.
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
    // The caller has it pinned, or Staged.
    [[nodiscard]] Content content(std::uint32_t entry) const noexcept;
    // Pinned: the caller must unpin() it. None: there is no such object.
    std::optional<Content> pin_key(const KeyHash& hash, std::string_view key) noexcept;
    std::optional<Content> pin_ref(const StoreRef& ref) noexcept;
    bool pin(std::uint32_t entry) noexcept;
    void unpin(std::uint32_t entry) noexcept;
    void touch(std::uint32_t entry) noexcept;  // records a read
    [[nodiscard]] bool is_retained(std::uint32_t entry) const noexcept;
    // Changes the retain count of a pinned entry. False: the count can't go higher, or lower.
    bool retain(std::uint32_t entry, bool adds) noexcept;

    // Removing.
    //
    // Done: an object was evicted. Changed: it stays, or none may be evicted.
    Outcome evict(std::uint32_t entry) noexcept;
    Outcome evict_one() noexcept;
    // Removes the object of a pinned entry; it goes with its last reader. Changed: it was removed
    // already.
    Outcome remove(std::uint32_t entry) noexcept;
    void collect(std::uint32_t entry) noexcept;
    // Completes what a stalled participant left half done: Evicting -> Resident, Doomed without
    // holders -> Free.
    void unstick(std::uint32_t entry) noexcept;
    // Releases the dead participant's holder bit and ownership of the entry. For its janitor;
    // repeatable.
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

}  // namespace penstock::detail
