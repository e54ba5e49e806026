// The contents of messages: a sequence number, then words that both sides know. A receiver reads
// every byte and compares the sum, so no contender wins by delivering unread bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <string>

#include "bench/cpp/common/failure.hpp"

namespace penstock::bench {

class Payload {
public:
    // `size` is a multiple of eight.
    explicit Payload(std::size_t size)
        : size_(size),
          words_(new(std::align_val_t{64}) std::uint64_t[size / sizeof(std::uint64_t)]) {
        std::uint64_t state = 0x9E3779B97F4A7C15U;
        words_[0] = 0;
        for (std::size_t i = 1; i < size / sizeof(std::uint64_t); ++i) {
            state ^= state << 13U;
            state ^= state >> 7U;
            state ^= state << 17U;
            words_[i] = state;
        }
        sum_ = sum(bytes());
    }

    // Message `sequence`, valid until the next call.
    std::span<const std::byte> numbered(std::uint64_t sequence) noexcept {
        words_[0] = sequence;
        return bytes();
    }

    [[nodiscard]] std::size_t size() const noexcept { return size_; }

    void check(std::span<const std::byte> message, std::uint64_t sequence) const {
        if (message.size() != size_ || sum(message) != sum_ + sequence ||
            first_word(message) != sequence) [[unlikely]] {
            fail("message " + std::to_string(sequence) + " of " + std::to_string(size_) +
                 " bytes arrived torn or out of turn");
        }
    }

private:
    struct Delete {
        void operator()(std::uint64_t* words) const {
            ::operator delete[](words, std::align_val_t{64});
        }
    };

    [[nodiscard]] std::span<const std::byte> bytes() const noexcept {
        return std::as_bytes(std::span(words_.get(), size_ / sizeof(std::uint64_t)));
    }

    static std::uint64_t first_word(std::span<const std::byte> message) noexcept {
        std::uint64_t word = 0;
        std::memcpy(&word, message.data(), sizeof(word));
        return word;
    }

    static std::uint64_t sum(std::span<const std::byte> message) noexcept {
        std::uint64_t total = 0;
        for (std::size_t at = 0; at + sizeof(std::uint64_t) <= message.size();
             at += sizeof(std::uint64_t)) {
            std::uint64_t word = 0;
            std::memcpy(&word, message.data() + at, sizeof(word));
            total += word;
        }
        return total;
    }

    std::size_t size_;
    std::unique_ptr<std::uint64_t[], Delete> words_;
    std::uint64_t sum_ = 0;
};

}  // namespace penstock::bench
