// The bare limit of a stream: cells of one size in a ring between one producer and one consumer, by
// the scheme of rigtorp/SPSCQueue. Each side keeps its own position and a copy of the other's,
// which it reads again only when the copy says full or empty. No death, no sleep, no second
// consumer.
#pragma once

#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>

#include "bench/cpp/common/shared.hpp"
#include "bench/cpp/links/link.hpp"

namespace penstock::bench {

class BareRing {
public:
    explicit BareRing(std::size_t cell)
        : cell_(cell), slots_(std::bit_ceil(queue_length(cell))), cells_(cell * slots_) {}

    void put(Bytes message) {
        while (own_ - other_ == slots_) {
            // pairs with: tail in BareRing::take
            other_ = positions_->tail.load(std::memory_order_acquire);
        }
        std::memcpy(at(own_), message.data(), message.size());
        // pairs with: head in BareRing::take
        positions_->head.store(++own_, std::memory_order_release);
    }

    template <typename Use>
    void take(Use&& use) {
        while (own_ == other_) {
            // pairs with: head in BareRing::put
            other_ = positions_->head.load(std::memory_order_acquire);
        }
        use(Bytes(at(own_), cell_));
        // pairs with: tail in BareRing::put
        positions_->tail.store(++own_, std::memory_order_release);
    }

private:
    struct Positions {
        alignas(kLine) std::atomic<std::uint64_t> head = 0;
        alignas(kLine) std::atomic<std::uint64_t> tail = 0;
    };

    [[nodiscard]] std::byte* at(std::uint64_t position) const {
        return cells_.data() + (position & (slots_ - 1)) * cell_;
    }

    std::size_t cell_;
    std::uint64_t slots_;
    SharedBytes cells_;
    Shared<Positions> positions_;
    std::uint64_t own_ = 0;    // position of this process's side
    std::uint64_t other_ = 0;  // the last seen position of the other side
};

// For one reader, and a core for each.
class BareRingLink {
public:
    static constexpr const char* kName = "bare ring";
    static constexpr bool kCarriesMessages = true;
    static constexpr std::size_t kRingBytes = 0;

    explicit BareRingLink(const Place& place)
        : forward_(place.message_size), backward_(place.message_size) {}
    void open_driver() {}
    void open_reader(unsigned /*rank*/) {}
    void close() {}

    void send(Bytes message) { forward_.put(message); }
    void answer(Bytes message) { backward_.put(message); }
    template <typename Use>
    void receive(Use&& use) {
        forward_.take(use);
    }
    template <typename Use>
    void collect(Use&& use) {
        backward_.take(use);
    }

private:
    BareRing forward_;
    BareRing backward_;
};

}  // namespace penstock::bench
