// Messages whose every byte follows from their number and size: a lost, doubled, torn, mixed or
// overwritten message is noticed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

namespace penstock::trust {

// splitmix64 (S. Vigna): one step.
constexpr std::uint64_t scramble(std::uint64_t seed) noexcept {
    seed += 0x9E3779B97F4A7C15;
    seed = (seed ^ (seed >> 30U)) * 0xBF58476D1CE4E5B9;
    seed = (seed ^ (seed >> 27U)) * 0x94D049BB133111EB;
    return seed ^ (seed >> 31U);
}

// Word `at` of message `number`. The first is the number itself, for people with a debugger.
constexpr std::uint64_t numbered_word(std::uint64_t number, std::uint64_t key,
                                      std::size_t at) noexcept {
    return at == 0 ? number : key + at * 0x9E3779B97F4A7C15;
}

inline void fill_numbered(std::span<std::byte> message, std::uint64_t number) noexcept {
    const std::uint64_t key = scramble(number * 0x100000001B3 + message.size());
    for (std::size_t at = 0; at * 8 < message.size(); ++at) {
        const std::uint64_t word = numbered_word(number, key, at);
        const std::size_t bytes = message.size() - at * 8 < 8 ? message.size() - at * 8 : 8;
        std::memcpy(message.data() + at * 8, &word, bytes);
    }
}

// Empty, or the fault of the message.
inline std::string check_numbered(std::span<const std::byte> message, std::uint64_t number) {
    const std::uint64_t key = scramble(number * 0x100000001B3 + message.size());
    for (std::size_t at = 0; at * 8 < message.size(); ++at) {
        const std::uint64_t word = numbered_word(number, key, at);
        const std::size_t bytes = message.size() - at * 8 < 8 ? message.size() - at * 8 : 8;
        if (std::memcmp(message.data() + at * 8, &word, bytes) == 0) continue;
        std::uint64_t found = 0;
        std::memcpy(&found, message.data() + at * 8, bytes);
        return "message " + std::to_string(number) + " of " + std::to_string(message.size()) +
               " bytes is torn at byte " + std::to_string(at * 8) + ": word " +
               std::to_string(found) + " instead of " + std::to_string(word);
    }
    return {};
}

// Random numbers that a printed seed repeats. Not thread-safe.
class Dice {
public:
    explicit Dice(std::uint64_t seed) : state_(seed) {}
    std::uint64_t next() { return state_ = scramble(state_); }
    // Nearly uniform in [from, to].
    std::uint64_t between(std::uint64_t from, std::uint64_t to) {
        return from + next() % (to - from + 1);
    }

private:
    std::uint64_t state_;
};

}  // namespace penstock::trust
