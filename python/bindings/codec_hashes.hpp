// A defence against crafted hash collisions. A dict compares a new key with each key of the same
// hash: 40,000 such keys make 800 million comparisons in one recv(), with the GIL held.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace penstock::py {

namespace nb = nanobind;

// For one message. Samples every sixteenth key on average, at random, and compares its hash with
// the sampled ones of its dict. From the equal pairs it estimates all comparisons, and bounds them
// by 2 million and 128 for each key, where a comparison of a long key counts for more. So a message
// is refused only if it has thousands of keys with one hash.
//
// Only for keys whose hash a sender can choose: hashes of str and bytes are salted with a secret,
// and at most a dozen 64-bit ints share a hash.
class KeyHashes {
public:
    KeyHashes() noexcept;

    // The sampled hashes of one dict: made when the dict begins, before its first key.
    class Dict {
    public:
        explicit Dict(KeyHashes& all) noexcept : all_(all) {}

        // Called before the key, which took `bytes` of the message, is inserted. Raises Corrupt.
        void add(nb::handle key, std::size_t bytes) {
            if (--all_.passed_over_ == 0) {
                all_.choose();
                look(key, bytes);
            }
        }

    private:
        struct Place {
            std::uint64_t hash = 0;
            std::uint64_t keys = 0;  // 0: free
        };

        void look(nb::handle key, std::size_t bytes);
        std::uint64_t count(std::uint64_t hash);
        Place& place_of(std::uint64_t hash);
        void grow();

        KeyHashes& all_;
        std::vector<Place> places_;  // a power of two, at most half full
        std::size_t used_ = 0;
    };

private:
    // Chooses the next sample at random: a sender that could predict it would avoid it.
    void choose() noexcept;
    void note(std::uint64_t same, std::uint64_t cost);

    std::uint64_t random_;
    std::uint64_t secret_;
    unsigned passed_over_ = 1;  // keys until the next sample
    // Numbers of sampled keys, and of equal pairs among them in one dict, weighted by the cost of
    // their comparison (short keys: 1).
    std::uint64_t keys_ = 0;
    std::uint64_t pairs_ = 0;
};

}  // namespace penstock::py
